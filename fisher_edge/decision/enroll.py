"""Enrollment: windows of a normal state, or of a fault, become a baseline with its own calibration. See `enroll`."""

import math
from collections.abc import Sequence

from fisher_edge.decision.assess import Enrolled, EnrolledTake, Made, assess
from fisher_edge.decision.fusion import Fusion
from fisher_edge.decision.naming import NORMAL, learn
from fisher_edge.decision.reactions import Embed
from fisher_edge.dsp.blocks import rate_text
from fisher_edge.errors import BadInputError
from fisher_edge.names import ChannelKey
from fisher_edge.store.baselines import Baselines

__all__ = ["DEFAULT_WINDOW_S", "activate", "check_target", "enroll", "relearn", "remove", "undo"]

DEFAULT_WINDOW_S = 10.24


def enroll(
    baselines: Baselines,
    key: ChannelKey,
    takes: Sequence[EnrolledTake],
    made: Made,
    *,
    label: str | None = None,
    extend: bool = False,
    reason: str = "",
    embed: Embed | None = None,
) -> Enrolled:
    """Store windows as the newest baseline of a channel, in one transaction.

    Without `label` they are its normal state; with one, examples of a fault. `extend` keeps the windows enrolled
    already, and calibrates all of them anew. `embed` embeds the spots of the takes, to say which changes of the normal
    state would be noticed. Raises BadInputError for windows of a dead sensor, or too few to calibrate a threshold.
    """
    check_target(baselines, key, made, label=label)
    before = baselines.get(key, label) if extend else None
    found = assess(key, takes, made, label=label, before=before, reason=reason, embed=embed)
    with baselines.database.transaction(durable=True):
        version = baselines.add(found.baseline)
        fusion = relearn(baselines, key)
    return found.enrolled(version, fusion)


def check_target(baselines: Baselines, key: ChannelKey, made: Made, *, label: str | None = None) -> None:
    """Refuse names that cannot be, and examples of a fault that the normal state cannot be compared with."""
    key.check()
    if label is None:
        return
    if label.strip() in {"", NORMAL} or not label.isprintable():
        raise BadInputError(
            f"label {label!r} names no fault; give the fault the recordings show, or none for the normal state"
        )
    normal = baselines.get(key, None)
    if normal is None:
        raise BadInputError(f"the normal state of {key} is not enrolled yet; enroll it first, then examples of faults")
    if normal.rate_hz != made.rate_hz:
        raise BadInputError(
            f"these recordings have {rate_text(made.rate_hz)} Hz, the normal state of {key} was enrolled at "
            f"{rate_text(normal.rate_hz)} Hz; record the fault with the same sensor"
        )
    if not math.isclose(normal.grid.signal_window_s, made.grid.signal_window_s):
        raise BadInputError(
            f"the normal state of {key} was enrolled with windows of {normal.grid.signal_window_s:g} s; use --window-s "
            f"{normal.grid.signal_window_s:g}"
        )


def activate(baselines: Baselines, key: ChannelKey, label: str | None, version: int) -> None:
    """Make an earlier version of a baseline the active one again."""
    with baselines.database.transaction(durable=True):
        baselines.activate(key, label, version)
        relearn(baselines, key)


def undo(baselines: Baselines, key: ChannelKey, label: str | None) -> int:
    """Make the version before the active one the active one; return its number."""
    versions = [facts for facts in baselines.facts(key) if facts.label == label]
    active = next((facts.version for facts in versions if facts.active), 0)
    earlier = [facts.version for facts in versions if facts.version < active]
    if not earlier:
        raise BadInputError(f"{key} has no version of {label or 'normal'} before the active one; nothing was changed")
    activate(baselines, key, label, max(earlier))
    return max(earlier)


def remove(baselines: Baselines, key: ChannelKey, label: str | None) -> int:
    """Delete all versions of a baseline and return how many there were."""
    with baselines.database.transaction(durable=True):
        count = baselines.remove(key, label)
        relearn(baselines, key)
        return count


def relearn(baselines: Baselines, key: ChannelKey) -> Fusion | None:
    """Learn how faults are named from all active baselines of a channel, and keep it."""
    fusion = learn(baselines.active(key))
    baselines.set_fusion(key, fusion.to_dict() if fusion else None)
    return fusion
