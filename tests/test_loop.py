"""The training loop: a checkpoint with its facts, a falling loss, repetition, accumulation, precision, time."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from training import FRONT_END, PLAN, log_of, losses_of, make_recordings

from fisher_edge.dsp.views import ENVELOPE, MODULATION
from fisher_edge.errors import BadInputError, UsageError
from fisher_train.checkpoint import build_encoder, load_checkpoint
from fisher_train.data import batches
from fisher_train.data.simulated import Batches
from fisher_train.encoder import PRESETS, Encoder
from fisher_train.loop import train
from fisher_train.measure import throughput
from fisher_train.objectives.objective import Batch, Objective
from fisher_train.recordings.find import find
from fisher_train.run.distributed import World
from fisher_train.run.recorder import Recorder
from fisher_train.run.settings import Execution, Settings
from fisher_train.run.start import checkpoint_of, start_of
from fisher_train.run.state import checkpoints, resume, save
from fisher_train.run.step import new_state, optimise

TRAINED = Path(__file__).parents[1] / "train" / "checkpoints" / "nano"
SETTINGS = Settings(steps=4, warmup_steps=2)
QUIET = Execution(workers=0, log_every=1, tensorboard=False)


def one_batch(_plan: object, _first_step: int, *, workers: int) -> Iterator[Tensor]:
    """Yield one batch of simulated machines again and again, in place of `data.loader`."""
    assert workers == 0
    batch = Batches(PLAN).batch(0)
    while True:
        yield batch


def test_training_makes_a_checkpoint(tmp_path: Path) -> None:
    """A run ends with a checkpoint that loads, with the front-end and the facts of its training."""
    final = train(SETTINGS, tmp_path / "run", QUIET, plan=PLAN)
    found = load_checkpoint(final)
    assert found.front_end == replace(FRONT_END, piece_frames=96, views=(ENVELOPE, MODULATION))
    assert found.config == PRESETS["nano"]
    assert found.facts["steps"] == 4
    assert found.facts["licence"] == "Apache-2.0"
    assert found.facts["data"] == "simulated machines only, no recordings"
    assert found.facts["command"] == (
        "python -m fisher_train --preset nano --objective contrastive --steps 4 --seed 0 --warmup-steps 2"
    )
    assert build_encoder(found)(torch.randn(1, 96, 50)).shape == (1, 128)


def test_self_distillation_on_recordings_says_so(tmp_path: Path) -> None:
    """The facts of a run on recordings name them; teacher and decoder are not in the finished checkpoint."""
    recordings = make_recordings(tmp_path / "recordings")
    settings = Settings(objective="distillation", data=(str(recordings),), batch=2, frames=96, steps=2)
    final = train(settings, tmp_path / "run", QUIET)
    facts = load_checkpoint(final).facts
    assert facts["data"] == f"recordings: {recordings}"
    assert facts["method"].startswith("self-distillation")
    assert not any("teacher" in key or "decoder" in key for key in load_file(final / "model.safetensors"))


def test_training_lowers_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty steps on one batch of simulated machines bring the loss well below where it was; the log averages."""
    monkeypatch.setattr(batches, "loader", one_batch)
    train(Settings(steps=30, warmup_steps=5), tmp_path, Execution(workers=0, tensorboard=False), plan=PLAN)
    lines = log_of(tmp_path)
    assert [line["step"] for line in lines] == [20, 30]
    assert lines[1]["loss"] < 0.7 * lines[0]["loss"]


def test_self_distillation_lowers_its_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Self-distillation of simulated machines learns, and its teacher is not the student."""
    monkeypatch.setattr(batches, "loader", one_batch)
    settings = Settings(objective="distillation", steps=12, warmup_steps=2)
    train(settings, tmp_path, QUIET, plan=PLAN)
    losses = losses_of(tmp_path)
    assert losses[-1] < 0.8 * losses[0]
    tensors = load_file(tmp_path / "step-000012" / "training.safetensors")
    student = load_file(tmp_path / "step-000012" / "model.safetensors")
    teacher = tensors["objective.distillation.teacher.blocks.0.mlp.fc1.weight"]
    distance = float((teacher - student["blocks.0.mlp.fc1.weight"]).norm() / teacher.norm())
    assert 1e-5 < distance < 0.1


@pytest.mark.parametrize("objective", ["contrastive", "distillation", "both"])
def test_same_settings_give_the_same_losses(tmp_path: Path, objective: str) -> None:
    """A run repeats bit by bit; another seed does not."""
    settings = Settings(objective=objective, steps=3, warmup_steps=1)
    for name in ("first", "again"):
        train(settings, tmp_path / name, QUIET, plan=PLAN)
    assert len(log_of(tmp_path / "first")) == 3
    assert log_of(tmp_path / "first") == log_of(tmp_path / "again")


@pytest.mark.parametrize("objective", ["contrastive", "distillation", "both"])
def test_accumulation_equals_the_whole_batch(tmp_path: Path, objective: str) -> None:
    """A batch in two parts gives the loss and the norm of the gradient of the whole (to 1e-6 and 1e-5).

    At a rate so low that rounding stays rounding: Muon gives every direction of a gradient the same length, the
    smallest ones, which are nothing but rounding, too.
    """
    for parts in (1, 2):
        settings = Settings(objective=objective, steps=3, peak_rate=1e-6, warmup_steps=1, accumulate=parts)
        train(settings, tmp_path / str(parts), QUIET, plan=PLAN)
    whole, divided = log_of(tmp_path / "1"), log_of(tmp_path / "2")
    assert len(whole) == 3
    for one, other in zip(whole, divided, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-6)
        assert other["norm"] == pytest.approx(one["norm"], rel=1e-5)


def test_bfloat16_trains_near_float32(tmp_path: Path) -> None:
    """With bfloat16 activations the first loss is near that of float32, not equal; weights stay float32.

    From trained weights: embeddings of fresh ones hardly differ, and batch norm would magnify their rounding.
    """
    for precision in ("fp32", "bf16"):
        settings = Settings(steps=3, warmup_steps=1, precision=precision, init=str(TRAINED))
        train(settings, tmp_path / precision, QUIET, plan=PLAN)
    exact, mixed = losses_of(tmp_path / "fp32"), losses_of(tmp_path / "bf16")
    assert mixed[0] != exact[0]
    assert mixed[0] == pytest.approx(exact[0], rel=0.05)
    stored = load_file(tmp_path / "bf16" / "final" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float32}


def test_init_continues_from_a_checkpoint(tmp_path: Path) -> None:
    """A run with `init` starts where that checkpoint ended, and its facts keep those of the run before."""
    first = train(SETTINGS, tmp_path / "first", QUIET, plan=PLAN)
    settings = Settings(steps=1, peak_rate=1e-9, init=str(first))
    again = load_checkpoint(train(settings, tmp_path / "again", QUIET, plan=PLAN))
    torch.testing.assert_close(again.state, load_checkpoint(first).state, atol=1e-6, rtol=0)
    assert again.facts["started_from"]["facts"]["steps"] == 4


def test_teacher_starts_where_the_student_does() -> None:
    """Weights to start from are those of the teacher too: it is a moving average of the student."""
    state = Encoder(PRESETS["nano"]).state_dict()
    objective = Objective("both", PRESETS["nano"])
    objective.start_from(state)
    assert objective.distillation is not None
    torch.testing.assert_close(dict(objective.distillation.teacher.state_dict()), dict(state), atol=0, rtol=0)


def test_init_of_another_preset_is_refused(tmp_path: Path) -> None:
    """Weights of one shape do not start another."""
    first = train(SETTINGS, tmp_path / "first", QUIET, plan=PLAN)
    with pytest.raises(UsageError, match="not preset tiny"):
        train(Settings(preset="tiny", steps=1, init=str(first)), tmp_path / "again", QUIET, plan=PLAN)


def test_float16_without_a_gpu_is_refused(tmp_path: Path) -> None:
    """The scaler of float16 is for CUDA: elsewhere one line says what to use."""
    with pytest.raises(UsageError, match="fp16 needs a CUDA device"):
        train(Settings(steps=1, precision="fp16"), tmp_path, QUIET, plan=PLAN)


def test_compiling_without_a_compiler_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without a C++ compiler one line says so, before minutes are spent."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="needs a C\\+\\+ compiler"):
        train(SETTINGS, tmp_path, replace(QUIET, compile=True), plan=PLAN)


def test_overflow_of_float16_leaves_the_step_out(tmp_path: Path) -> None:
    """When the scaled loss overflows, weights stay as they are and the scale, kept with the run, is halved."""
    start = start_of(SETTINGS)
    state, resumed = (new_state(SETTINGS, start, World()) for _ in range(2))
    state.scaler, resumed.scaler = (torch.amp.GradScaler("cpu", init_scale=2.0**127) for _ in range(2))
    before = {name: value.clone() for name, value in state.objective.named_parameters()}
    batch = Batch(Batches(PLAN).batch(0))
    facts = optimise(state.objective, batch, state, SETTINGS)
    assert not torch.isfinite(facts["norm"])
    assert state.scaler.get_scale() == 2.0**126
    torch.testing.assert_close(dict(state.objective.named_parameters()), before, atol=0, rtol=0)

    state.scaler.update(2.0**10)
    assert torch.isfinite(optimise(state.objective, batch, state, SETTINGS)["norm"])
    name = "contrastive.encoder.blocks.0.mlp.fc1.weight"
    assert not torch.equal(before[name], state.objective.get_parameter(name))
    state.step = 1
    weights = state.objective.encoder.state_dict()
    save(tmp_path, state, checkpoint_of(SETTINGS, start, weights, steps=1, elapsed_s=0, cpu_s=0, processes=1), keep=1)
    resume(tmp_path, resumed, 1)
    assert resumed.scaler.get_scale() == 2.0**10


def test_gradient_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    """At a learning rate that throws the weights far away the run ends; what it was is still in its checkpoint."""
    wild = Settings(steps=4, warmup_steps=1, peak_rate=1e30)
    with pytest.raises(BadInputError, match="not finite at step 1"):
        train(wild, tmp_path, replace(QUIET, save_every_min=0), plan=PLAN)
    assert [step for step, _ in checkpoints(tmp_path)] == [1]


def ticking(step_s: float) -> Callable[[], float]:
    """Return a clock that moves on by `step_s` whenever it is read."""
    ticks = itertools.count()
    return lambda: step_s * next(ticks)


def test_time_drives_the_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of so many minutes ends when they are over, at a learning rate near zero."""
    monkeypatch.setattr(batches, "loader", one_batch)
    train(Settings(minutes=0.5, warmup_steps=1), tmp_path, QUIET, plan=PLAN, clock=ticking(1.0))
    lines = log_of(tmp_path)
    # A step reads the clock, and so does the line of the log after it: 1 s after the first step, 2 s more after each.
    assert len(lines) == 16
    assert lines[0]["rate"] == pytest.approx(5e-4)
    assert lines[-1]["rate"] < 0.2e-3
    rates = [line["rate"] for line in lines]
    assert rates == sorted(rates, reverse=True)
    facts = load_checkpoint(tmp_path / "final").facts
    assert facts["minutes"] == 0.5
    assert "--minutes 0.5" in facts["command"]


def test_timed_run_continues_its_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timed run that was ended has only the rest of its time left."""
    settings = Settings(minutes=0.5, warmup_steps=1)
    execution = Execution(workers=0, log_every=1, tensorboard=False, save_every_min=0)
    monkeypatch.setattr(batches, "loader", one_batch)

    after_step = Recorder.after_step

    def interrupted(recorder: Recorder, batch: Batch, facts: Mapping[str, Tensor]) -> None:
        after_step(recorder, batch, facts)
        if log_of(tmp_path)[-1]["step"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "after_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(settings, tmp_path, execution, plan=PLAN, clock=ticking(1.0))
    rate = log_of(tmp_path)[-1]["rate"]
    train(settings, tmp_path, execution, plan=PLAN, clock=ticking(1.0))
    lines = log_of(tmp_path)
    assert lines[2]["step"] == 3
    assert 0 < lines[2]["rate"] < rate
    assert load_checkpoint(tmp_path / "final").facts["minutes"] == 0.5


def test_contrastive_batches_take_a_quarter_of_pairs_from_recordings(tmp_path: Path) -> None:
    """With recordings, crops of them complete each batch, the same ones whenever the step is made."""
    corpus = find([make_recordings(tmp_path / "recordings")])
    settings = Settings(batch=16, data=("recordings",))
    plan = batches.plan_for(settings, FRONT_END)
    config = PRESETS["nano"]
    made = batches.batches(settings, config, plan, corpus, World(), first_step=0, workers=0)
    shapes, views = [], []
    for _, batch in zip(range(4), made, strict=False):
        assert batch.views is not None
        views.append(batch.views)
        shapes.append(tuple(batch.views.shape))
    assert shapes == [(2, 16, 96, 50)] * 4
    assert 4 * plan.families + plan.singles == 12
    later = next(batches.batches(settings, config, plan, corpus, World(), first_step=2, workers=0))
    assert later.views is not None
    torch.testing.assert_close(later.views, views[2], atol=0, rtol=0)
    simulated = next(batches.batches(Settings(batch=16), config, plan, None, World(), first_step=0, workers=0))
    assert simulated.views is not None
    torch.testing.assert_close(views[0][:, :12], simulated.views, atol=0, rtol=0)
    assert not torch.allclose(views[0][0, 12:], views[0][1, 12:])


@pytest.mark.parametrize("batch", [4, 8, 96, 100])
def test_batches_have_the_pairs_asked_for(batch: int) -> None:
    """The plan of simulated machines is scaled to the batch; at each step enough families are held."""
    plan = batches.plan_for(Settings(batch=batch), FRONT_END)
    assert 4 * plan.families + plan.singles == batch
    assert plan.held >= plan.first >= plan.families + plan.singles


def test_throughput_is_measured_on_real_batches(capsys: pytest.CaptureFixture[str]) -> None:
    """The measurement trains on the batches of the settings and gives bands a second of both sides."""
    assert throughput.main(["--batch", "8", "--steps", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bands_per_step"] == 16
    assert found["steps"] == 2
    assert found["loader_bands_per_s"] > 1
    assert found["step_bands_per_s"] > 1
    expected = found["step_bands_per_s"] / found["loader_bands_per_s"]
    assert found["loaders_per_step"] == pytest.approx(expected)
