"""The wheel where JetPack 6 is: Python 3.10 and ONNX Runtime 1.23.2, the last for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.ort import OrtEncoder

pytestmark = [pytest.mark.slow, pytest.mark.extras]

ROOT = Path(__file__).parents[1]
PROGRAM = """
import sys
import numpy as np, onnxruntime
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.ort import OrtEncoder
bundle = load_bundle()
encoder = OrtEncoder(bundle)
bands = np.load(sys.argv[1])
session = onnxruntime.InferenceSession(str(bundle.path / "s8s8.onnx"), providers=["CPUExecutionProvider"])
np.savez(sys.argv[2], plain=encoder.embed([bands])[0], s8s8=session.run(None, {"bands": bands})[0])
print(sys.version_info[:2], onnxruntime.__version__)
"""


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that sees no folder of ours."""
    hidden = {"PYTHONPATH", "VIRTUAL_ENV"}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name not in hidden},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.fixture(scope="module")
def python310() -> Path:
    """Return a Python 3.10 that works."""
    places = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions", Path("/opt/python")]
    found = [path for place in places for path in sorted(place.glob("*3.10*/bin/python3.10"))]
    on_path = shutil.which("python3.10")
    for path in [*([Path(on_path)] if on_path else []), *found]:
        if run(path, "-c", "import ensurepip", cwd=ROOT).returncode == 0:
            return path
    pytest.skip("there is no Python 3.10 here; install one as python3.10 or with pyenv")


def test_wheel_runs_on_python_310_and_onnxruntime_123(python310: Path, tmp_path: Path) -> None:
    """Installed with our constraints it loads the shipped bundle, and embeds as the newest runtime does."""
    built = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert run(python310, "-m", "venv", tmp_path / "venv", cwd=tmp_path).returncode == 0
    python = tmp_path / "venv" / "bin" / "python"
    installed = run(python, "-m", "pip", "install", "--constraint", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr[-2000:]

    bundle = load_bundle()
    bands = bundle.selftest.bands
    np.save(tmp_path / "bands.npy", bands)
    done = run(python, "-c", PROGRAM, tmp_path / "bands.npy", tmp_path / "out.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "(3, 10) 1.23.2\n"
    found: Any = np.load(tmp_path / "out.npz")
    expected = OrtEncoder(bundle).embed([bands])[0]
    centre = bundle.selftest.embeddings.mean(axis=0)
    for form in ("plain", "s8s8"):
        a, b = found[form] - centre, expected - centre
        cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        print(f"{form}: least centred cosine {cosine.min():.6f}")
        assert cosine.min() > 0.99
    shown = run(tmp_path / "venv" / "bin" / "fisher-edge", "--version", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
