"""Contrastive pre-training: loss, schedule and batches."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fisher_edge.dsp.frontend import FrontEnd
from fisher_train.data.simulated import Batches, Plan, _band_weights, loader
from fisher_train.encoder import EncoderConfig
from fisher_train.objectives.contrastive import Contrastive, Projector, nt_xent
from fisher_train.objectives.pooled import lost_of, pooled_target, varied
from fisher_train.run.schedule import learning_rate

FRONT_END = FrontEnd(band_width=50, top_band="pad", amplitude="standardise")
PLAN = Plan(0, FRONT_END, rates_hz=(1000, 4000), families=2, singles=2, held=5, first=4, new_per_step=1)
MICRO = EncoderConfig(embed_dim=32, depth=2, num_heads=2, band_width=50, max_length=64, max_freq=3)


def test_nt_xent_is_its_definition() -> None:
    """The loss is the mean of -log softmax of the partner among all other rows."""
    torch.manual_seed(0)
    first, second = torch.randn(2, 5, 8)
    rows = nn.functional.normalize(torch.cat([first, second]), dim=1)
    losses = []
    for i in range(10):
        scores = [float(rows[i] @ rows[j]) / 0.1 for j in range(10) if j != i]
        partner = float(rows[i] @ rows[(i + 5) % 10]) / 0.1
        losses.append(math.log(sum(math.exp(score) for score in scores)) - partner)
    loss, _ = nt_xent(first, second)
    assert float(loss) == pytest.approx(sum(losses) / 10, rel=1e-4)


def test_nt_xent_ranks_equal_views_first() -> None:
    """Equal and mutually orthogonal pairs have almost no loss and are all ranked first."""
    loss, ranked_first = nt_xent(torch.eye(6), torch.eye(6))
    assert float(loss) < 1e-3
    assert float(ranked_first) == 1.0


def test_projector_maps_to_the_loss_space() -> None:
    """The projector has two layers and batch norm."""
    assert Projector(32)(torch.randn(8, 32)).shape == (8, 128)


def test_contrastive_is_encoder_projector_and_loss() -> None:
    """The loss is NT-Xent of the last dimensions, projected, and four times what the first ones lost of the spectra.

    A tenth of what they lost of differences is added, and the offset that the compared dimensions have in common;
    nothing follows a step.
    """
    torch.manual_seed(0)
    model, views = Contrastive(MICRO), torch.randn(2, 6, 96, 50)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    loss, facts = model(views)
    model.load_state_dict(state)
    bands = torch.cat([views[0], views[1], varied(views[0, ::2])])
    rows = model.encoder(bands)
    preserved, compared = rows[:, :24], rows[:12, 24:]
    compare, ranked_first = nt_xent(*model.projector(compared).chunk(2))
    lost, differences_lost = lost_of(preserved, pooled_target(bands, MICRO), 32)
    offset = compared.mean(0).square().sum() / 32
    torch.testing.assert_close(loss, compare + 40 * (lost + 0.1 * differences_lost + offset))
    assert facts["ranked_first"] == ranked_first
    after = {name: value.clone() for name, value in model.state_dict().items()}
    model.after_step(0, 100)
    torch.testing.assert_close(dict(model.state_dict()), after, atol=0, rtol=0)


PROCESS = """
import sys, torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from fisher_train.objectives.contrastive import Contrastive
from fisher_train.encoder import EncoderConfig

torch.set_num_threads(1)
rank, folder = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
given = torch.load(f"{folder}/given.pt", weights_only=True)
model = Contrastive(EncoderConfig(**given["config"])).double()
model.load_state_dict(given["state"])
parallel = DistributedDataParallel(model)  # held: it averages the gradients only while it is alive
loss, _ = parallel(given["views"][:, 8 * rank : 8 * rank + 8])
torch.autograd.backward(loss)
gradients = {name: value.grad for name, value in model.named_parameters()}
found = {"loss": loss.detach(), "gradients": gradients, "state": model.state_dict()}
torch.save(found, f"{folder}/found-{rank}.pt")
distributed.destroy_process_group()
"""


def test_two_processes_equal_one_with_the_whole_batch(tmp_path: Path) -> None:
    """Two real processes with half of the pairs have, on average, loss, gradients and batch norm of the whole batch.

    In float64: at the start embeddings are almost alike, and batch norm magnifies the round-off of float32.
    """
    torch.manual_seed(0)
    model, views = Contrastive(MICRO).double(), torch.randn(2, 16, 96, 50).double()
    torch.save({"config": vars(MICRO), "state": model.state_dict(), "views": views}, tmp_path / "given.pt")
    started = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    loss, _ = model(views)
    torch.autograd.backward(loss)
    expected = {name: value.grad for name, value in model.named_parameters()}
    every = [torch.load(tmp_path / f"found-{rank}.pt", weights_only=True) for rank in range(2)]
    torch.testing.assert_close((every[0]["loss"] + every[1]["loss"]) / 2, loss.detach(), atol=0, rtol=1e-6)
    for found in every:
        torch.testing.assert_close(found["gradients"], expected, atol=1e-8, rtol=1e-6)
        torch.testing.assert_close(found["state"], dict(model.state_dict()), atol=1e-12, rtol=1e-9)


def test_learning_rate_warms_up_then_anneals_to_zero() -> None:
    """Linear warm-up, cosine down, zero at the end and after it."""
    assert learning_rate(1.0, 0, 0.0, warmup_steps=100) == pytest.approx(0.01)
    assert learning_rate(1.0, 99, 0.0, warmup_steps=100) == pytest.approx(1.0)
    assert learning_rate(1.0, 500, 0.5, warmup_steps=100) == pytest.approx(0.5)
    assert learning_rate(1.0, 999, 1.0, warmup_steps=100) == pytest.approx(0.0)
    assert learning_rate(1.0, 999, 1.3, warmup_steps=100) == pytest.approx(0.0)


def test_batches_depend_on_seed_and_step_only() -> None:
    """A batch is the same whether the steps before it were made or not; another seed gives another."""
    running = Batches(PLAN)
    batches = [running.batch(step) for step in range(9)]
    for step in (5, 7):
        torch.testing.assert_close(Batches(PLAN, step).batch(step), batches[step], atol=0, rtol=0)
    assert not torch.equal(Batches(replace(PLAN, seed=1)).batch(0), batches[0])
    assert not torch.equal(batches[0], batches[1])


def test_batches_have_families_and_singles() -> None:
    """A batch holds 2 families of 4 states and 2 single states, each at two operating points."""
    batch = Batches(PLAN).batch(3)
    assert tuple(batch.shape) == (2, 10, 96, 50)
    assert bool(torch.isfinite(batch).all())


def test_worker_makes_the_same_batches() -> None:
    """A loader worker gives what this process gives."""
    there, here = loader(PLAN, 2, workers=1), loader(PLAN, 2, workers=0)
    for _ in range(2):
        torch.testing.assert_close(next(there), next(here), atol=0, rtol=0)


def test_band_that_shows_the_fault_is_drawn_most() -> None:
    """A band in which the states of a machine differ is drawn far more often than the others."""
    bands = np.random.default_rng(0).standard_normal((4, 2, 3, 96, 50)).astype(np.float32)
    bands[1:, :, 1] += 1.0
    weights = _band_weights(bands)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[1] > 10 * max(weights[0], weights[2]) > 0
