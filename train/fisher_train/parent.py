"""A process that must not outlive the one that started it. Start at `end_with_parent`."""

import multiprocessing
import multiprocessing.connection
import os

__all__ = ["end_with_parent"]


def end_with_parent() -> None:
    """Wait for the end of the process that started this one, however it ends, and end this one too; for a thread.

    The system's own notion of a parent is the fork server, where there is one, and that lives as long as a worker.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
