"""Scoring of a whole recording against the baseline of a channel. See `score_recording`."""

from collections.abc import Iterator
from typing import Any

from fisher_edge.decision.enrol import check_length, windows_of
from fisher_edge.decision.monitor import Policy, load_monitor
from fisher_edge.encoder.ort import EncoderSession
from fisher_edge.errors import BadInputError
from fisher_edge.sources.recording import Recording
from fisher_edge.store import Store

__all__ = ["score_recording"]


def score_recording(
    store: Store,
    session: EncoderSession,
    recording: Recording,
    *,
    asset: str,
    channel: str,
    hop_s: float | None = None,
    policy: Policy | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the result fields of every window, in order; times count from the start of the recording.

    Raises BadInputError when nothing is enrolled or the recording does not fit the baseline.
    """
    front_end = session.bundle.front_end
    if hop_s is not None:
        check_length("hop_s", hop_s)
    hop_frames = None if hop_s is None else front_end.frames_of(hop_s)
    monitor = load_monitor(store, session, asset, channel, policy, hop_frames)
    if recording.rate_hz != monitor.rate_hz:
        raise BadInputError(
            f"{recording.path} has {recording.rate_hz} Hz, the baseline of {asset}/{channel} was enrolled at "
            f"{monitor.rate_hz} Hz; enrol recordings of this rate"
        )
    frame_s = front_end.hop_ms / 1000
    windows = windows_of(recording, front_end, monitor.window_frames * frame_s, monitor.hop_frames * frame_s)
    for number, window in enumerate(windows, 1):
        verdict = monitor.judge(window)
        yield {"asset": asset, "channel": channel, "seq": number, "boot": None, **verdict.fields, "replay": False}
