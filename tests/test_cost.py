"""What a step costs: operations counted by hand, and the command as it is run."""

import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from fisher_train.measure.cost import flop_counter, main, measure


def test_grouped_convolution_is_counted_by_hand() -> None:
    """Forward once, backward twice: for the input and for the weight, both with the groups."""
    convolution = nn.Conv2d(32, 32, 3, padding=1, groups=16)
    image = torch.randn(2, 32, 8, 8, requires_grad=True)
    once = 2 * 2 * 32 * 8 * 8 * 2 * 9  # 2 images, 32 channels of 8 x 8, each from 2 channels of 3 x 3
    with flop_counter() as counter:
        result = convolution(image).sum()
    assert counter.get_total_flops() == once
    with flop_counter() as counter:
        torch.autograd.backward(result)
    assert counter.get_total_flops() == 2 * once


def test_attention_is_counted_by_hand() -> None:
    """Two products forward, five backward, of 10 queries with 10 keys of 8 channels."""
    query, key, value = torch.randn(3, 2, 4, 10, 8, requires_grad=True).unbind()
    product = 2 * 2 * 4 * 10 * 10 * 8
    with flop_counter() as counter:
        result = functional.scaled_dot_product_attention(query, key, value).sum()
    assert counter.get_total_flops() == 2 * product
    with flop_counter() as counter:
        torch.autograd.backward(result)
    assert counter.get_total_flops() == 5 * product


def test_measured_step_agrees_with_an_estimate() -> None:
    """A short sample of nano: one band of 96 frames at 2 kHz, 128 clones; operations as the layers have them."""
    cost = measure("nano", rate_hz=2000, frames=96)
    assert (cost.bands, cost.clones, cost.tokens) == (1, 128, 4)
    assert cost.encoder_parameters == pytest.approx(1.22e6, rel=0.01)
    blocks = 6 * (4 + 8) * 128 * 128  # weights of all blocks: attention has 4 dim^2, the MLP 8 dim^2
    decoder = 6 * 9 * 128 * 128 // 16 + 128 * 128
    student = 6 * blocks * 128 * 4  # a multiplication and an addition, forward and twice backward
    estimate = student + 2 * blocks * 19 + 6 * decoder * 128 * 18
    assert cost.tflop * 1e12 == pytest.approx(estimate, rel=0.03)
    assert math.isfinite(cost.loss)
    assert cost.cpu_s > 0
    assert cost.peak_gb > 16 * cost.encoder_parameters / 1e9
    assert cost.batch_gb == pytest.approx(cost.peak_gb + 15 * cost.sample_gb)
    assert cost.batch_tflop == pytest.approx(16 * cost.tflop)


def test_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The command measures in a process of its own and prints one object a preset."""
    assert main(["--preset", "nano", "--rate-hz", "4000", "--frames", "96", "--samples", "2", "--json"]) == 0
    (cost,) = json.loads(capsys.readouterr().out)
    assert (cost["preset"], cost["samples"], cost["bands"], cost["clones"]) == ("nano", 2, 1, 128)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--samples", "0"], "--samples 0 is no batch"),
        (["--preset", "nano", "--rate-hz", "30"], "rate_hz=30 is below 100 Hz"),
    ],
)
def test_command_refuses_what_cannot_be_measured(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """Wrong values are one line and exit code 4."""
    assert main(arguments) == 4
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert len(error.splitlines()) == 1
