"""`fisher-edge bench`: what it measures, how two measurements are compared, and what it says of the machine."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import run_here

from fisher_bench.speed import machine, stages
from fisher_bench.speed.channels import run_channels
from fisher_bench.speed.compare import ratios
from fisher_bench.speed.machine import describe, watched
from fisher_bench.speed.report import operations
from fisher_edge.dsp.blocks import as_rate
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import grid_of
from fisher_edge.encoder.bundle import Bundle, load_bundle
from fisher_edge.encoder.select import open_encoder

STAGES = ["read", "spectra", "views", "health", "encoder", "distance", "publish", "deliver"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, Path]:
    """Return what the command measured at 1 kHz, the file of it and a picture of its stages."""
    folder = tmp_path_factory.mktemp("bench")
    picture = folder / "stages.svg"
    done = run_here("bench", "--rate-hz", 1000, "--seconds", 1, "--acceptance", "--plot", picture, "--json")
    assert done.returncode == 0, done.stderr
    (folder / "a.json").write_text(done.stdout)
    return json.loads(done.stdout), folder / "a.json", picture


def test_rate_need_not_be_whole(tmp_path: Path) -> None:
    """A board that divides its clock sends 3906.25 samples a second: the stages and the channels run at that rate."""
    encoder = open_encoder(load_bundle())
    rate_hz = as_rate("3906.25")
    found = stages.measure(encoder, grid_of(encoder.bundle.front_end, 1.0, 0.5, rate_hz), rate_hz)
    assert [stage.name for stage in found] == STAGES
    run = run_channels("default", 1, rate_hz, window_s=1.0, hop_s=0.5, minutes=0.05)
    assert (run.rate_hz, run.skipped_windows) == (3906.25, 0)
    assert run.results > 0


@pytest.mark.parametrize("name", ["x.foo", "nowhere/x.png"])
def test_picture_that_cannot_be_written_is_refused_at_once(tmp_path: Path, name: str) -> None:
    """Nothing is measured for a picture that nobody will get."""
    done = run_here("bench", "--plot", tmp_path / name)
    assert done.returncode == 2
    assert "ends in .png or .svg, in a folder that exists" in done.stderr
    assert done.stdout == ""


def test_every_stage_has_percentiles(measured: tuple[dict[str, Any], Path, Path]) -> None:
    """Each stage says what is counted, and its percentiles go up; what waits for others has no CPU time of its own."""
    found, _, picture = measured
    assert list(found["stages"]) == STAGES
    for name, stage in found["stages"].items():
        assert 0 < stage["wall_ms"]["p50"] <= stage["wall_ms"]["p90"] <= stage["wall_ms"]["p99"]
        assert (stage["cpu_ms"] is None) == (name == "deliver")
        assert stage["what"].startswith("a ")
    assert "<svg" in picture.read_text()


def test_report_says_what_it_was_measured_on(measured: tuple[dict[str, Any], Path, Path]) -> None:
    """Window, provider, machine, first score and the share of the peak stand in it; no channels were asked for."""
    found, _, _ = measured
    assert (found["bundle"], found["rate_hz"], found["channels"]) == ("nano-int8", 1000, None)
    assert "onnxruntime" in found["machine"]["libraries"]
    assert found["machine"]["cores"] >= 1
    assert 0 < found["start"]["cpu_s"] < 60
    assert 20 < found["start"]["memory_mb"] < 2000
    assert 0 < found["peak"]["fraction"] < 2
    assert found["conditions"]["seconds"] > 0


def test_acceptance_says_of_every_provider_whether_it_is_there_and_faithful(
    measured: tuple[dict[str, Any], Path, Path],
) -> None:
    """The CPU passes the self-test; a provider that cannot be used says why."""
    providers = measured[0]["providers"]
    assert list(providers) == ["cpu", "openvino", "cuda", "ort-tensorrt", "tensorrt"]
    assert providers["cpu"]["there"]
    assert providers["cpu"]["self_test_cosine"] >= providers["cpu"]["least_cosine"]
    assert providers["cpu"]["encoder"]["wall_ms"]["p50"] > 0
    assert not providers["tensorrt"]["there"]
    assert "tensorrt" in providers["tensorrt"]["why"]


def test_two_measurements_are_compared_as_ratios(measured: tuple[dict[str, Any], Path, Path], tmp_path: Path) -> None:
    """Every figure that both have, by its path, the second over the first."""
    found, path, _ = measured
    found = json.loads(json.dumps(found))
    encoder_ms = found["stages"]["encoder"]["cpu_ms"]
    encoder_ms |= {share: 2 * value for share, value in encoder_ms.items()}
    del found["total_ms"]
    other = tmp_path / "b.json"
    other.write_text(json.dumps(found))
    done = run_here("bench", "--compare", path, other, "--plot", tmp_path / "both.png", "--json")
    compared = json.loads(done.stdout)
    assert compared["stages.encoder.cpu_ms.p50"]["ratio"] == pytest.approx(2)
    assert compared["stages.encoder.wall_ms.p50"]["ratio"] == 1
    assert "total_ms" not in compared
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")
    assert "stages.encoder.cpu_ms.p50" in run_here("bench", "--compare", path, other).stdout


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "cannot read"),
        ("{", "is no JSON"),
        ("[1]", "holds no stages"),
        ('{"stages": 3}', "holds no stages"),
        ('{"stages": {"encoder": 1}}', "holds no stages"),
    ],
)
def test_what_cannot_be_compared_is_named(
    measured: tuple[dict[str, Any], Path, Path], tmp_path: Path, content: str | None, text: str
) -> None:
    """A file that is missing, no JSON or something else is bad input, in one line."""
    other = tmp_path / "b.json"
    if content is not None:
        other.write_text(content)
    done = run_here("bench", "--compare", measured[1], other)
    assert done.returncode == 4
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_ratio_of_nothing_to_something_is_infinite() -> None:
    """What took no time before cannot be compared by a finite number; truth values and texts are no figures."""
    found = ratios({"a": 0, "b": 0, "c": True, "d": "x"}, {"a": 3, "b": 0, "c": False, "d": "y"})
    assert [(each.name, each.ratio) for each in found] == [("a", float("inf")), ("b", 1.0)]


def test_operations_are_those_counted_elsewhere() -> None:
    """Tiny needs 5.095 billion operations for a band of 1024 frames, with a last block for [CLS] alone."""
    front_end = FrontEnd(band_width=100)
    facts = {"dim": 192, "depth": 12}
    tiny = Bundle(Path(), "tiny", "1", "fp32", "", 192, front_end, b"", None, facts)  # type: ignore[arg-type]
    assert operations(tiny, 1024) == pytest.approx(5.095e9, rel=0.01)


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a tree like /sys of a board with sensors."""
    monkeypatch.setattr(machine, "SYS", tmp_path)

    def write(name: str, value: object) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")

    write("class/thermal/thermal_zone0/temp", 41_500)
    write("class/thermal/thermal_zone1/temp", 63_250)
    write("devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", 1_510_400)
    write("devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", 729_600)
    return tmp_path


def test_temperature_and_frequency_are_read(board: Path) -> None:
    """The hottest place and the slowest core count; what the board does not say is None."""
    with watched() as seen:
        pass
    assert (seen.hottest_c, seen.lowest_mhz) == (63.25, 729.6)
    assert (seen.throttled, seen.energy_j, seen.watts) == (None, None, None)


def test_energy_of_a_processor_is_counted_over_a_wrap(board: Path) -> None:
    """RAPL counts microjoules up to a limit; a part of the package is not counted twice."""
    package = board / "class/powercap/intel-rapl:0"
    part = board / "class/powercap/intel-rapl:0:0"
    for folder in (package, part):
        folder.mkdir(parents=True)
        (folder / "energy_uj").write_text("9000000")
        (folder / "max_energy_range_uj").write_text("10000000")
    throttle = board / "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    throttle.parent.mkdir()
    throttle.write_text("7")
    with watched() as seen:
        (package / "energy_uj").write_text("2000000")
        throttle.write_text("9")
    assert seen.energy_j == pytest.approx(3.0)
    assert seen.throttled == 2
    assert seen.watts == pytest.approx(3.0 / seen.seconds)


def test_power_of_a_board_is_that_of_its_supply(board: Path) -> None:
    """A power monitor of the INA3221 kind gives millivolts and milliamperes."""
    monitor = board / "class/hwmon/hwmon3"
    monitor.mkdir(parents=True)
    for name, value in {"name": "ina3221", "in1_input": 5000, "curr1_input": 1400}.items():
        (monitor / name).write_text(f"{value}\n")
    with watched() as seen:
        pass
    assert seen.watts == pytest.approx(7.0)
    assert seen.to_dict()["energy_j"] == pytest.approx(7.0 * seen.seconds)


def test_machine_is_described() -> None:
    """Processor, cores, memory and the libraries that there are."""
    found = describe()
    assert found["processor"]
    assert found["memory_gb"] > 0
    assert found["libraries"]["numpy"]
    assert json.loads(json.dumps(found)) == found


def test_channels_are_really_run() -> None:
    """Two channels of 1 kHz in a gateway on one core: every window arrives, none is lost."""
    told: list[str] = []
    found = run_channels("default", 2, 1000, window_s=1.0, hop_s=0.5, minutes=0.05, tell=told.append)
    assert (found.channels, found.skipped_windows, found.rate_hz) == (2, 0, 1000.0)
    assert 0.5 * found.expected_results <= found.results <= 2 * found.expected_results
    assert 0 < found.cpu_ms_per_s < 1000
    assert found.memory_mb > 30
    assert told == ["the enrollment of 10 takes", "the first windows", "2 channels for 0.05 minutes"]
    late = replace(found, results=found.expected_results, late_s={"p99": 0.4})
    assert [replace(late, **change).carried for change in ({}, {"skipped_windows": 1}, {"late_s": {"p99": 0.6}})] == [
        True,
        False,
        False,
    ]
    assert not replace(late, results=0, late_s={"p99": None}).carried
