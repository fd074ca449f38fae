"""Self-distillation: the loss by hand, batches divided among processes, the noise, and learning on real recordings."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from fisher_edge.dsp.frontend import FrontEnd
from fisher_train.encoder import Encoder, EncoderConfig
from fisher_train.objectives.distillation import Distillation, fill_noise
from fisher_train.objectives.masking import kept_patches
from fisher_train.objectives.teacher import distillation_targets, ema_decay
from fisher_train.run.optimizer import parameter_groups
from fisher_train.run.schedule import learning_rate

EXAMPLES = Path(__file__).parents[1] / "examples"
CONFIG = EncoderConfig(embed_dim=32, depth=2, num_heads=2, band_width=50, max_length=64, max_freq=3)
SEEDS = torch.tensor([5, 6, 7, 8])


def batch(rng_seed: int = 0, n: int = 4, clones: int = 3) -> tuple[Tensor, Tensor]:
    """Return bands of 96 frames and the patches kept of them."""
    rng = np.random.default_rng(rng_seed)
    bands = torch.from_numpy(rng.standard_normal((n, 96, 50)).astype(np.float32))
    return bands, torch.from_numpy(np.stack([kept_patches(rng, 6, 3, clones) for _ in range(n)]))


def model(config: EncoderConfig = CONFIG) -> Distillation:
    """Return a model whose teacher is not its student."""
    torch.manual_seed(0)
    made = Distillation(config)
    with torch.no_grad():
        for parameter in made.encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


def gradient(made: Distillation, loss: Tensor) -> Tensor:
    """Return the gradient of all that is trained, as one vector."""
    trained = [parameter for parameter in made.parameters() if parameter.requires_grad]
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, trained)])


@pytest.mark.parametrize("flatten", ["freq", "time"])
def test_kept_patches_are_encoded_as_the_whole_is(flatten: str) -> None:
    """With every patch kept the [CLS] is that of the plain encoder; with some kept, that of blocks run on these."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(**{**vars(CONFIG), "flatten": flatten}))
    bands, kept = batch()
    everything = torch.arange(18).expand(4, 1, 18)
    torch.testing.assert_close(encoder.encode_kept(bands, everything)[:, 0], encoder(bands), atol=1e-5, rtol=1e-5)
    tokens = encoder.modality_encoders["IMAGE"](bands)[2:3, [0, *(1 + kept[2, 1]).tolist()]]
    for block in encoder.blocks:
        tokens = block(tokens)
    found = encoder.encode_kept(bands, kept).view(4, 3, 4, 32)[2, 1]
    torch.testing.assert_close(found, tokens[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("flatten", ["freq", "time"])
@torch.no_grad()
def test_loss_is_its_definition(flatten: str) -> None:
    """Squared errors of masked patches and of [CLS], summed over channels, over sqrt(dim), averaged: clone by clone."""
    made = model(EncoderConfig(**{**vars(CONFIG), "flatten": flatten}))
    bands, kept = batch()
    patch_targets, utterance_targets = distillation_targets(made.teacher, bands)
    noise = fill_noise(SEEDS, (3, 18, 32))
    rows, columns = (6, 3) if flatten == "freq" else (3, 6)
    patch_errors, utterance_errors = [], []
    for band in range(4):
        for clone in range(3):
            places = kept[band, clone].tolist()
            encoded = made.encoder.encode_kept(bands[band : band + 1], kept[band : band + 1, clone : clone + 1])[0]
            grid = noise[band, clone].clone()
            for place, token in zip(places, encoded[1:], strict=True):
                grid[place] = token
            predicted = made.decoder(grid[None], rows, columns)[0]
            masked = sorted(set(range(18)) - set(places))
            patch_errors += [float((predicted[i] - patch_targets[band, i]).square().sum()) for i in masked]
            utterance_errors.append(float((encoded[0] - utterance_targets[band]).square().sum()))
    assert len(patch_errors) == 4 * 3 * 15
    loss, facts = made(bands, kept, SEEDS)
    assert float(facts["patch_loss"]) == pytest.approx(np.mean(patch_errors) / math.sqrt(32), rel=1e-5)
    assert float(facts["utterance_loss"]) == pytest.approx(np.mean(utterance_errors) / math.sqrt(32), rel=1e-5)
    assert float(loss) == pytest.approx(float(facts["patch_loss"] + facts["utterance_loss"]), rel=1e-5)


def test_two_halves_equal_the_whole_batch() -> None:
    """Mean loss and mean gradient of two halves, each with its own seeds, are those of the whole batch."""
    made = model()
    bands, kept = batch()
    whole, _ = made(bands, kept, SEEDS)
    halves = [made(bands[part], kept[part], SEEDS[part])[0] for part in (slice(0, 2), slice(2, 4))]
    assert float(whole.detach()) == pytest.approx(float((halves[0] + halves[1]).detach()) / 2, rel=1e-5)
    expected = gradient(made, whole)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close((gradient(made, halves[0]) + gradient(made, halves[1])) / 2, expected, atol=1e-5, rtol=0)


def test_noise_has_its_seed_and_its_size() -> None:
    """Each row depends on its own seed alone and has a standard deviation of 0.01."""
    noise = fill_noise(SEEDS, (3, 18, 32))
    torch.testing.assert_close(fill_noise(SEEDS[2:3], (3, 18, 32))[0], noise[2], atol=0, rtol=0)
    assert not torch.equal(noise[0], noise[1])
    assert float(noise.std()) == pytest.approx(0.01, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0.0, abs=1e-3)


def test_facts_show_what_goes_wrong() -> None:
    """The share masked, the decay, the loss of each band's place, and variances that vanish when bands are equal."""
    made = model()
    bands, kept = batch()
    places = torch.tensor([0, 1, 0, 4])
    loss, facts = made(bands, kept, SEEDS, places)
    assert float(facts["masked_share"]) == pytest.approx(15 / 18)
    assert float(facts["ema_decay"]) == pytest.approx(0.9998)
    assert {name for name in facts if name.startswith("loss_band_")} == {"loss_band_0", "loss_band_1", "loss_band_4"}
    mean = (2 * facts["loss_band_0"] + facts["loss_band_1"] + facts["loss_band_4"]) / 4
    assert float(mean) == pytest.approx(float(loss.detach()), rel=1e-5)
    assert float(facts["target_variance"]) == pytest.approx(1.0, abs=0.1)
    assert facts["target_variance_between_bands"] > 0.2
    _, equal = made(bands[:1].expand(4, -1, -1), kept, SEEDS)
    assert equal["target_variance_between_bands"] < 1e-6
    assert not any(fact.requires_grad for fact in facts.values())


def test_step_moves_the_teacher_and_state_holds_it() -> None:
    """The optimiser moves student and decoder, `after_step` the teacher; another model continues from the state."""
    made = model()
    bands, kept = batch()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    optimizer = torch.optim.SGD(parameter_groups([made], 0.0), 0.1)
    loss, _ = made(bands, kept, SEEDS)
    torch.autograd.backward(loss)
    optimizer.step()
    torch.testing.assert_close(made.teacher.state_dict(), {k[8:]: before[k] for k in before if k[:8] == "teacher."})
    made.after_step(100, 4000)
    name = "blocks.1.mlp.fc1.weight"
    decay = ema_decay(100, 4000)
    student, teacher = made.encoder.state_dict()[name], made.teacher.state_dict()[name]
    assert not torch.equal(student, before[f"encoder.{name}"])
    torch.testing.assert_close(teacher, decay * before[f"teacher.{name}"] + (1 - decay) * student, atol=1e-7, rtol=0)
    other = Distillation(CONFIG)
    other.load_state_dict(made.state_dict())
    (expected, facts), (found, facts_found) = (one(bands, kept, SEEDS) for one in (made, other))
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    assert facts_found["ema_decay"] == facts["ema_decay"] == decay


def test_every_trained_parameter_has_a_gradient() -> None:
    """Nothing is left out, as training on several processes demands."""
    made = model()
    loss, _ = made(*batch(), SEEDS)
    torch.autograd.backward(loss)
    for name, parameter in made.named_parameters():
        assert (parameter.grad is None) == name.startswith("teacher."), name


def test_half_precision_gives_nearly_the_same_loss() -> None:
    """Under bfloat16 autocast the loss is float32 and within 2 % of the exact one."""
    made = model()
    exact, _ = made(*batch(), SEEDS)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = made(*batch(), SEEDS)
    assert found.dtype == torch.float32
    assert float(found.detach()) == pytest.approx(float(exact.detach()), rel=0.02)


def test_learning_on_real_recordings_does_not_collapse() -> None:
    """In 120 steps on the example recordings the loss falls below a third and targets still differ between bands."""
    front_end = FrontEnd(band_width=50, top_band="pad", amplitude="standardise")
    recordings = []
    for path in sorted(EXAMPLES.glob("*/*.flac")):
        wave, rate_hz = soundfile.read(path, dtype="float32")
        recordings.append(front_end.sub_bands(wave, rate_hz))
    assert len(recordings) > 30
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    made = Distillation(replace(CONFIG, embed_dim=64))
    optimizer = torch.optim.AdamW(parameter_groups([made], 0.05), betas=(0.9, 0.95))
    losses, variances = [], []
    for step in range(120):
        bands, kept = crops(rng, recordings)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(2e-3, step, step / 120, warmup_steps=12)
        loss, facts = made(bands, kept, 16 * step + torch.arange(16))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(made.parameters(), 4.0)
        optimizer.step()
        made.after_step(step, 120)
        losses.append(float(loss.detach()))
        variances.append((float(facts["target_variance_between_bands"]), float(facts["prediction_variance"])))
    assert np.mean(losses[-10:]) < losses[0] / 3
    assert np.min(variances[-10:]) > 0.2


def crops(rng: np.random.Generator, recordings: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Draw 16 bands of 96 frames, each masked four times."""
    bands = []
    for index in rng.integers(len(recordings), size=16):
        recording = recordings[index]
        start = rng.integers(recording.shape[1] - 96 + 1)
        bands.append(recording[rng.integers(len(recording)), start : start + 96])
    kept = np.stack([kept_patches(rng, 6, 3, 4) for _ in range(16)])
    return torch.from_numpy(np.stack(bands)), torch.from_numpy(kept)
