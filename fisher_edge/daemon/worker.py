"""The worker of a gateway: takes windows in order, judges them, writes the outcome into the outbox."""

import logging
import threading
import time
from typing import Any

from fisher_edge.config import ChannelConfig
from fisher_edge.daemon.work import Work, WorkQueue
from fisher_edge.decision.alarm import Transition
from fisher_edge.decision.monitor import Verdict
from fisher_edge.dsp.blocks import rfc3339
from fisher_edge.errors import DamagedStateError, StateError
from fisher_edge.publish.outbox import Outbox

__all__ = ["judge_all"]

RETRY_S = 1.0

log = logging.getLogger(__name__)


def judge_all(queue: WorkQueue, outbox: Outbox, stop: threading.Event) -> None:
    """Judge windows and write the results until `stop` is set."""
    while not stop.is_set():
        work = queue.get()
        if work is not None:
            _handle(work, outbox, stop)
            queue.done()


def _handle(work: Work, outbox: Outbox, stop: threading.Event) -> None:
    """Judge one window, or note why there is none, and put what follows into the outbox."""
    config, monitor = work.channel.config, work.channel.monitor
    if work.window is not None:
        verdict = _judge(work)
        event = _event(verdict.transition, verdict.fields["time"], verdict.fields) if verdict.transition else None
        _log(work, verdict.transition)
        _put(outbox, config, verdict.fields | {"unit": config.unit}, event, _state(verdict), stop)
        return
    transition = monitor.interrupt(work.interruption, work.reason)
    _log(work, transition)
    if transition:
        now = rfc3339(time.time())
        state = {"state": monitor.state, "time": now, "reason": work.reason}
        _put(outbox, config, None, _event(transition, now, {}), state, stop)


def _log(work: Work, transition: Transition | None) -> None:
    """Say a change of state in the log."""
    if transition:
        log.info("%s: %s -> %s (%s)", work.channel.name, transition.before, transition.after, transition.reason)


def _judge(work: Work) -> Verdict:
    """Judge a window; whatever goes wrong stays with its channel, which then says check_function."""
    assert work.window is not None
    try:
        return work.channel.monitor.judge(work.window)
    except Exception as error:
        if not work.channel.failed:
            log.exception("channel %s: a window could not be judged", work.channel.name)
        work.channel.failed = True
        return work.channel.monitor.failed(work.window, f"internal error, {type(error).__name__}: {error}")


def _put(
    outbox: Outbox,
    config: ChannelConfig,
    result: dict[str, Any] | None,
    event: dict[str, Any] | None,
    state: dict[str, Any],
    stop: threading.Event,
) -> None:
    """Write to the outbox; while the database is locked or the disk full, say so once and try again.

    A damaged database ends the daemon: only its next start sets it aside.
    """
    failed = False
    while True:
        try:
            outbox.put(config.asset, config.name, result=result, event=event, state=state)
        except DamagedStateError:
            raise
        except StateError as error:
            if not failed:
                log.error("%s; trying again every %g s", error, RETRY_S)  # noqa: TRY400 -- one line, no traceback
            failed = True
            if stop.wait(RETRY_S):
                raise
        else:
            if failed:
                log.info("%s can be written again", outbox.store.path)
            return


def _state(verdict: Verdict) -> dict[str, Any]:
    """The latest state of a channel, for the retained topic."""
    kept = ("state", "time", "distance", "threshold", "ratio", "p_value", "level", "reason")
    return {key: verdict.fields[key] for key in kept if key in verdict.fields}


def _event(transition: Transition, stamp: str, fields: dict[str, Any]) -> dict[str, Any]:
    """A change of state with what led to it."""
    kept = ("distance", "threshold", "ratio", "p_value", "bands", "nearest", "fault", "level", "views")
    return {
        "time": stamp,
        "before": transition.before,
        "after": transition.after,
        "reason": transition.reason,
        **{key: fields[key] for key in kept if key in fields},
    }
