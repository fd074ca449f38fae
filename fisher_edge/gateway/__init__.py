"""The gateway: everything that runs on the device, from one configuration. Start at `Gateway` in `gateway`."""

from fisher_edge.gateway.gateway import Gateway
from fisher_edge.gateway.status import ChannelStatus, GatewayStatus

__all__ = ["ChannelStatus", "Gateway", "GatewayStatus"]
