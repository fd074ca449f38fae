"""The shipped bundle on 64-bit ARM, under qemu: Debian's Python and the published wheels, no ARM machine."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fisher_edge.dsp.grid import pieces_of
from fisher_edge.encoder.bundle import DEFAULT_BUNDLE, load_bundle
from fisher_edge.example_files import find_examples
from fisher_edge.sources.recording import read_recording

pytestmark = [pytest.mark.slow, pytest.mark.extras]

ROOT = Path(__file__).parents[1]
QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
WHEELS = ("numpy", "onnxruntime")
FILES = ("gearbox/healthy-load*.flac", "bearing/healthy-*.flac", "motor/healthy-*.flac")

PROGRAM = """
import sys
sys.path[:0] = sys.argv[1:3]
import numpy as np, onnxruntime, platform
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.ort import OrtEncoder
bundle = load_bundle()
encoder = OrtEncoder(bundle)
session = onnxruntime.InferenceSession(
    str(bundle.path / "s8s8.onnx"), providers=["CPUExecutionProvider"], disabled_optimizers=["SkipLayerNormFusion"]
)
given = np.load(sys.argv[3])
found = {}
for name in given.files:
    found["plain " + name] = encoder.embed([given[name]])[0]
    found["s8s8 " + name] = session.run(None, {"bands": given[name]})[0]
np.savez(sys.argv[4], **found)
print(platform.machine(), onnxruntime.__version__)
"""


def tried(*command: str, reason: str) -> str:
    """Run a command that may be impossible here; skip the test with the reason when it is."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    if done.returncode:
        pytest.skip(f"{reason}: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    return done.stdout


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a folder with an ARM Python and its libraries, and one with the wheels; nothing is installed."""
    if QEMU is None or shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("qemu-aarch64-static and apt are not installed; run: apt-get install qemu-user-static")
    made = tmp_path_factory.mktemp("arm")
    for name in ("state/lists/partial", "cache/archives/partial", "root", "site", "wheels"):
        (made / name).mkdir(parents=True)
    (made / "state" / "status").touch()
    apt = [
        "apt-get", "--quiet", "--yes", "-o", "APT::Architecture=arm64", "-o", "APT::Architectures::=arm64",
        "-o", f"Dir::State={made / 'state'}", "-o", f"Dir::State::status={made / 'state' / 'status'}",
        "-o", f"Dir::Cache={made / 'cache'}", "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=",
    ]  # fmt: skip
    tried(*apt, "update", reason="no list of packages for arm64")
    tried(*apt, "install", "--download-only", "--no-install-recommends", "python3", "libstdc++6", reason="no packages")
    for package in (made / "cache" / "archives").glob("*.deb"):
        tried("dpkg-deb", "-x", str(package), str(made / "root"), reason="a package cannot be unpacked")
    (python,) = (made / "root" / "usr" / "bin").glob("python3.[0-9]*[0-9]")
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    wanted = [next(line for line in pins if line.startswith(f"{name}==") and ">=" in line) for name in WHEELS]
    platforms = [f"--platform=manylinux{kind}_aarch64" for kind in ("2014", "_2_27", "_2_28")]
    tried(
        sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", *platforms,
        f"--python-version={python.name.removeprefix('python')}", f"--dest={made / 'wheels'}",
        *(line.partition(";")[0] for line in wanted),
        reason="no wheels for arm64",
    )  # fmt: skip
    for wheel in (made / "wheels").glob("*.whl"):
        shutil.unpack_archive(wheel, made / "site", "zip")
    # The package itself runs from the checkout, but asks for its version.
    facts = made / "site" / "fisher_edge-0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: fisher-edge\nVersion: 0\n")
    return python, made / "site"


def test_shipped_bundle_gives_the_same_on_arm(arm: tuple[Path, Path], tmp_path: Path) -> None:
    """The model file passes its self-test, and it and its form for ARM embed as on x86, by rate and band."""
    python, site = arm
    front_end = load_bundle().front_end
    given: dict[str, Any] = {}
    for pattern in FILES:
        for path in sorted(find_examples().glob(pattern))[:3]:
            recording = read_recording(path)
            bands = pieces_of(front_end, recording.samples, recording.rate_hz)[0]
            given[f"{path.parent.name} {path.stem}"] = np.ascontiguousarray(bands)
    np.savez(tmp_path / "given.npz", **given)
    here = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT), str(ROOT), str(tmp_path / "given.npz"), str(tmp_path / "here.npz")],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    there = subprocess.run(
        [
            str(QEMU), "-L", str(python.parents[2]), str(python), "-c", PROGRAM, str(ROOT), str(site),
            str(tmp_path / "given.npz"), str(tmp_path / "there.npz"),
        ],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert there.returncode == 0, there.stderr[-2000:]
    assert there.stdout.startswith("aarch64 ")
    assert not here.stdout.startswith("aarch64 ")
    assert DEFAULT_BUNDLE.is_dir()
    left, right = np.load(tmp_path / "here.npz"), np.load(tmp_path / "there.npz")
    compared = 0
    for form in ("plain", "s8s8"):
        for machine in ("gearbox", "bearing", "motor"):
            names = [name for name in left.files if name.startswith(f"{form} {machine} ")]
            a, b = (np.stack([rows[name] for name in names]).astype(np.float64) for rows in (left, right))
            a, b = a - a.mean(axis=0), b - b.mean(axis=0)
            cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
            print(f"{form} {machine}: least centred cosine of {cosine.size} sub-bands {cosine.min():.6f}")
            assert cosine.min() > 0.99
            compared += cosine.size
    assert compared > 50
