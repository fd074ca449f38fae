"""From verdicts to the broker: messages, the outbox and the MQTT publisher."""
