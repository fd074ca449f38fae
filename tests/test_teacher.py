"""The teacher: decay of its moving average, and targets against a slow version written out by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fisher_train.encoder import Encoder, EncoderConfig
from fisher_train.objectives.teacher import distillation_targets, ema_decay, make_teacher, update_teacher

CONFIG = EncoderConfig(embed_dim=16, depth=3, num_heads=2, band_width=50, max_length=64, max_freq=3)


def test_decay_rises_over_the_first_quarter() -> None:
    """The paper's numbers: 0.9998 at step 0, half way up at 50 k, 0.99999 from 100 k to the end."""
    assert ema_decay(0) == pytest.approx(0.9998, abs=1e-12)
    assert ema_decay(50_000) == pytest.approx((0.9998 + 0.99999) / 2, abs=1e-12)
    assert ema_decay(100_000) == pytest.approx(0.99999, abs=1e-12)
    assert ema_decay(200_000) == ema_decay(399_999) == pytest.approx(0.99999, abs=1e-12)


def test_decay_of_a_short_run_averages_over_the_same_share() -> None:
    """A hundred times shorter: a hundred times fewer steps averaged over, and the ramp ends a hundred times sooner."""
    assert 1 - ema_decay(0, 4_000) == pytest.approx(100 * 2e-4)
    assert 1 - ema_decay(1_000, 4_000) == pytest.approx(100 * 1e-5)
    assert 1 - ema_decay(3_999, 4_000) == pytest.approx(100 * 1e-5)
    assert ema_decay(500, 4_000) == pytest.approx((ema_decay(0, 4_000) + ema_decay(1_000, 4_000)) / 2)


def test_decay_of_extreme_runs_stays_within_bounds() -> None:
    """A run of ten steps still averages over ten; one longer than the paper's keeps the paper's numbers."""
    assert ema_decay(0, 10) == 0.9
    assert ema_decay(100_000, 4_000_000) == pytest.approx(0.99999, abs=1e-12)


def test_teacher_starts_as_the_student_and_follows_it() -> None:
    """`t = decay t + (1 - decay) s`, in place, and the student stays as it is."""
    torch.manual_seed(0)
    student = Encoder(CONFIG)
    teacher = make_teacher(student)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    torch.testing.assert_close(before, dict(student.state_dict()), atol=0, rtol=0)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter))
    current = {name: value.clone() for name, value in student.state_dict().items()}
    update_teacher(teacher, student, 0.75)
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, 0.75 * before[name] + 0.25 * current[name])
    torch.testing.assert_close(dict(student.state_dict()), current, atol=0, rtol=0)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_targets_equal_the_slow_version() -> None:
    """Each block's feed-forward output, normalised over patches; their mean, normalised over channels; no [CLS]."""
    torch.manual_seed(1)
    teacher = make_teacher(Encoder(CONFIG))
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # norms and biases that are not 1 and 0
    bands = torch.randn(2, 100, 50)
    outputs = slow_ffn_outputs(teacher, bands)
    expected = np.empty((2, 18, 16))
    for band in range(2):
        total = np.zeros((18, 16))
        for output in outputs:
            patches = output[band, 1:].double().numpy()
            for channel in range(16):
                column = patches[:, channel]
                total[:, channel] += (column - column.mean()) / np.sqrt(column.var() + 1e-5) / len(outputs)
        for patch in range(18):
            expected[band, patch] = (total[patch] - total[patch].mean()) / np.sqrt(total[patch].var() + 1e-5)
    found, utterances = distillation_targets(teacher, bands)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(utterances.numpy(), expected.mean(1), atol=1e-4)


def slow_ffn_outputs(encoder: Encoder, bands: Tensor) -> list[Tensor]:
    """Return what the second layer of every block's MLP gives for all tokens, [CLS] first."""
    found: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(output)

    layers = [module for name, module in encoder.named_modules() if name.endswith("fc2")]
    handles = [layer.register_forward_hook(keep) for layer in layers]
    with torch.no_grad():
        tokens = encoder.modality_encoders["IMAGE"](bands)
        for block in encoder.blocks:
            tokens = block(tokens)
    for handle in handles:
        handle.remove()
    return found


def test_targets_have_no_gradient() -> None:
    """Nothing is learnt through the teacher."""
    patches, utterances = distillation_targets(make_teacher(Encoder(CONFIG)), torch.randn(1, 96, 50))
    assert not patches.requires_grad
    assert not utterances.requires_grad
