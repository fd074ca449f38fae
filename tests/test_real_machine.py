"""Real machines from the file to the state: enrolled, cut, embedded and judged by the shipped encoder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from machine import EXAMPLES
from windows import KEY

from fisher_edge.decision.alarm import AlarmMachine, AlarmRule
from fisher_edge.decision.assess import EnrolledTake, Made
from fisher_edge.decision.enroll import enroll
from fisher_edge.decision.evidence import Rates
from fisher_edge.decision.judge import Judge
from fisher_edge.decision.judgement import ModelName, State
from fisher_edge.dsp.blocks import Block
from fisher_edge.dsp.grid import Grid, grid_of
from fisher_edge.dsp.stream import PieceStream
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import EmbeddedWindow, WindowJoiner, read
from fisher_edge.sources.recording import read_recording
from fisher_edge.store.baselines import Baselines
from fisher_edge.store.database import Database

WINDOW_S, HOP_S = 0.64, 0.32


def cut(encoder: Encoder, path: Path) -> tuple[list[EmbeddedWindow], Grid]:
    """Return the windows of a recording and the grid they were cut on."""
    recording, front_end = read_recording(path), encoder.bundle.front_end
    grid = grid_of(front_end, WINDOW_S, HOP_S, recording.rate_hz)
    samples = np.concatenate(list(recording.blocks()))
    pieces = PieceStream(front_end, recording.rate_hz, grid).push(Block(samples, recording.rate_hz, 0, 0.0))
    joiner = WindowJoiner(grid)
    joined = [joiner.push(reading) for reading in read(encoder, front_end, pieces)]
    return [window for window in joined if window is not None], grid


def states_of(
    encoder: Encoder, folder: Path, enrolled: list[str], judged: list[str], *, levels_kept: bool = True
) -> dict[str, list[State]]:
    """Enroll some of the example recordings and return the state after every window of others.

    A release before kept no level of any window, only mean and spread of their operating state.
    """
    cuts = {name: cut(encoder, EXAMPLES / f"{name}.flac") for name in (*enrolled, *judged)}
    rate_hz, grid = cuts[enrolled[0]][0][0].rate_hz, cuts[enrolled[0]][1]
    front_end = encoder.bundle.front_end
    made = Made(ModelName(encoder.name, encoder.sha256), front_end, grid, rate_hz)
    with Database(folder) as database:
        baselines = Baselines(database)
        enroll(baselines, KEY, [EnrolledTake(name, cuts[name][0]) for name in enrolled], made)
        (normal,) = baselines.active(KEY)
        if not levels_kept:
            normal = replace(normal, level=np.full(len(normal), np.nan))
        judge = Judge([normal], front_end, Rates(), grid.hop_s)
    after: dict[str, list[State]] = {}
    for name in judged:
        judge.forget()
        machine = AlarmMachine(AlarmRule(), lambda: 0.0)
        after[name] = []
        for window in cuts[name][0]:
            machine.judge(judge.judge(window))
            after[name].append(machine.state)
    return after


def test_real_bearing_is_judged(tmp_path: Path, encoder: Encoder) -> None:
    """Healthy takes of a bearing that were kept out are normal throughout, faults of both races are alarms."""
    enrolled = [f"bearing/healthy-{rpm}rpm-{part}" for rpm in (600, 900, 1200) for part in "ab"]
    healthy = [f"bearing/healthy-{rpm}rpm-c" for rpm in (600, 900, 1200)]
    faulty = ["bearing/inner-5-900rpm", "bearing/outer-5-1200rpm"]
    after = states_of(encoder, tmp_path, enrolled, [*healthy, *faulty])
    for name in healthy:
        assert after[name] == [State.NORMAL] * len(after[name]) != []
    for name in faulty:
        assert after[name][1:] == [State.ALARM] * (len(after[name]) - 1) != []


@pytest.mark.parametrize("levels_kept", [True, False])
def test_real_gearbox_is_judged_at_loads_in_between(tmp_path: Path, encoder: Encoder, levels_kept: bool) -> None:
    """A healthy gearbox at a load that was not enrolled is no alarm, a broken tooth is one at every load.

    So it is by a baseline of a release before.
    """
    enrolled = [f"gearbox/healthy-load{load}" for load in ("00", "20", "30", "40", "60", "70", "90")]
    broken = [f"gearbox/broken-tooth-load{load}" for load in (10, 50, 90)]
    healthy = ["gearbox/healthy-load50", "gearbox/healthy-load80"]
    after = states_of(encoder, tmp_path, enrolled, [*healthy, *broken], levels_kept=levels_kept)
    for name in healthy:
        assert after[name] != []
        assert State.ALARM not in after[name]
    for name in broken:
        assert after[name][-1] is State.ALARM, name
