"""From records to the broker: messages and the MQTT publisher.

The embedded broker is `fisher_edge.publish.broker`; it is imported only where one is wanted.
"""

from fisher_edge.publish.address import BrokerAddress
from fisher_edge.publish.message import Topics
from fisher_edge.publish.mqtt import Condition, Publisher, Timing
from fisher_edge.publish.session import check_broker

__all__ = ["BrokerAddress", "Condition", "Publisher", "Timing", "Topics", "check_broker"]
