"""The daemon: everything a gateway runs, from one configuration. Start at `Daemon` in `gateway`."""

from fisher_edge.daemon.gateway import Daemon

__all__ = ["Daemon"]
