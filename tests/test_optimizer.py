"""Which optimiser trains which parameters, and which of them decay."""

import pytest
import torch
from torch import nn

from fisher_train.encoder import PRESETS, Encoder, EncoderConfig
from fisher_train.objectives.distillation import Distillation
from fisher_train.objectives.objective import Objective
from fisher_train.run.optimizer import MUON_RATE, make_optimizers, parameter_groups, set_rate
from fisher_train.run.settings import RECIPES, Recipe

MICRO = EncoderConfig(embed_dim=32, depth=2, num_heads=2, band_width=50, max_length=64, max_freq=3)


def test_norms_biases_and_tokens_do_not_decay() -> None:
    """Weight decay is for matrices and kernels only, and every parameter is in one group."""
    encoder = Encoder(PRESETS["nano"])
    decayed, free = parameter_groups([encoder], 0.05)
    assert isinstance(decayed["params"], list)
    assert isinstance(free["params"], list)
    names = {id(value): name for name, value in encoder.named_parameters()}
    free_names = {names[id(value)] for value in free["params"]}
    assert {names[id(value)] for value in decayed["params"]} | free_names == set(names.values())
    assert free_names == {
        name for name in names.values() if "norm" in name or name.endswith("bias") or "extra_tokens" in name
    }


def test_only_matrices_and_kernels_of_what_is_trained_decay() -> None:
    """Norms, biases and the [CLS] do not decay; the teacher is in neither group; all else is in one of them."""
    with torch.device("meta"):
        model = Distillation(PRESETS["nano"])
    decayed, free = parameter_groups([model], 0.05)
    names = {id(value): name for name, value in model.named_parameters()}
    assert isinstance(decayed["params"], list)
    assert isinstance(free["params"], list)
    decayed_names = {names[id(value)] for value in decayed["params"]}
    free_names = {names[id(value)] for value in free["params"]}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    assert decayed_names | free_names == {name for name in names.values() if not name.startswith("teacher.")}
    assert free_names == {
        name
        for name in names.values()
        if not name.startswith("teacher.") and ("norm" in name or name.endswith("bias") or "extra_tokens" in name)
    }
    assert "decoder.convolutions.5.weight" in decayed_names


def test_muon_trains_the_matrices_of_the_blocks_and_adamw_the_rest() -> None:
    """Every trained parameter has one optimiser; heads, kernels and vectors are AdamW's."""
    model = Objective("both", MICRO)
    adamw, muon = make_optimizers(model, RECIPES["both"])
    assert (type(adamw), type(muon)) == (torch.optim.AdamW, torch.optim.Muon)
    names = {parameter: name for name, parameter in model.named_parameters()}
    by_muon = {names[parameter] for group in muon.param_groups for parameter in group["params"]}
    by_adamw = {names[parameter] for group in adamw.param_groups for parameter in group["params"]}
    assert by_muon | by_adamw == {name for name, value in model.named_parameters() if value.requires_grad}
    assert not by_muon & by_adamw
    ends = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert {name.split("encoder.")[-1] for name in by_muon} == {
        f"blocks.{block}.{end}.weight" for block in range(2) for end in ends
    }


def test_self_distillation_keeps_the_optimiser_of_its_source() -> None:
    """FISHER's pre-training is AdamW alone."""
    (adamw,) = make_optimizers(Objective("distillation", MICRO), RECIPES["distillation"])
    assert type(adamw) is torch.optim.AdamW


def test_update_of_a_matrix_is_orthogonal_at_its_rate() -> None:
    """The first step moves all directions of a matrix alike, by the rate of Muon times the usual step of AdamW."""
    block = nn.ModuleDict({"blocks": nn.Linear(24, 16, bias=False)})
    model = nn.ModuleDict({"encoder": block})
    weight = block["blocks"].weight
    assert isinstance(weight, nn.Parameter)
    recipe = Recipe(batch=1, peak_rate=1.0, betas=(0.9, 0.98), clip=1.0, weight_decay=0.0, optimizer="muon")
    optimizers = make_optimizers(model, recipe)
    set_rate(optimizers, 1e-3)
    assert [group["lr"] for group in optimizers[1].param_groups] == [pytest.approx(1e-3 * MUON_RATE)]
    assert {group["lr"] for group in optimizers[0].param_groups} == {1e-3}
    generator = torch.Generator().manual_seed(0)
    before, weight.grad = weight.detach().clone(), torch.randn(16, 24, generator=generator)
    weight.grad[:, 0] *= 100  # one direction with a far larger gradient
    for optimizer in optimizers:
        optimizer.step()
    moved = torch.linalg.svdvals((weight - before).detach())
    assert float(moved.min() / moved.max()) > 0.5, "Newton and Schulz's iteration is stopped early"
    assert float(moved.mean()) == pytest.approx(0.2 * 24**0.5 * 1e-2, rel=0.3)
