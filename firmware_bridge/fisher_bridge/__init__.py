"""The gateway's side of the firmware bridge: frames from microcontrollers become blocks of samples.

Bytes pass `framing` (frames), `messages` (what they say), `session` (one device: commands, loss, clock) and `reader`
(a port on a thread of its own); `source` offers the result to the runtime. The wire format is in PROTOCOL.md.
"""
