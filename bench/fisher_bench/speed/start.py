"""The first score after a start, in a process of its own, ours and that of PyTorch. Start at `first_score`."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fisher_edge.dsp.blocks import FloatArray, Rate
from fisher_edge.errors import UsageError

__all__ = ["FirstScore", "first_score"]

OURS = """
from fisher_edge.decision.bank import MemoryBank
from fisher_edge.dsp.blocks import as_rate
from fisher_edge.dsp.grid import pieces_of
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.select import open_encoder
from fisher_edge.encoder.windows import embed_window
encoder = open_encoder(load_bundle(sys.argv[2]), sys.argv[3])
front_end = encoder.bundle.front_end
embedding = embed_window(encoder, front_end, pieces_of(front_end, wave, as_rate(sys.argv[4])))
MemoryBank.of(embedding[None]).nearest(embedding)
"""
OFFICIAL = """
import torch
torch.set_num_threads(1)
from fisher_bench.speed.official import embed_officially
from fisher_edge.dsp.blocks import as_rate
from fisher_edge.encoder.bundle import load_bundle
from fisher_train.encoder import Encoder, EncoderConfig
bundle = load_bundle(sys.argv[2])
shape = EncoderConfig(embed_dim=bundle.manifest["dim"], depth=bundle.manifest["depth"],
                      num_heads=bundle.manifest["heads"], band_width=bundle.front_end.band_width)
row = embed_officially(Encoder(shape).eval(), bundle.front_end, wave, as_rate(sys.argv[4])).ravel()
float(row @ row)
"""
FRAME = """
import json, sys, time
import numpy as np
wave = np.load(sys.argv[1])
{body}
with open("/proc/self/status") as status:  # the largest memory that getrusage knows may be that of the parent
    highest_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps([time.process_time(), highest_kib / 1024]))
"""


@dataclass(frozen=True)
class FirstScore:
    """From the start of a process to its first score: CPU seconds of it all, and its largest memory."""

    cpu_s: float
    memory_mb: float


def first_score(
    bundle: str, rate_hz: Rate, wave: FloatArray, *, provider: str = "auto", official: bool = False
) -> FirstScore:
    """Start Python, load the encoder, embed a signal (n,) and compare it; `official`: PyTorch with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "wave.npy", wave)
        code = FRAME.format(body=OFFICIAL if official else OURS)
        command = [sys.executable, "-c", code, str(Path(folder) / "wave.npy"), bundle, provider, str(rate_hz)]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"a first score cannot be measured: {(done.stderr.strip() or 'no text').splitlines()[-1]}")
    cpu_s, memory_mb = json.loads(done.stdout.splitlines()[-1])
    return FirstScore(cpu_s, memory_mb)
