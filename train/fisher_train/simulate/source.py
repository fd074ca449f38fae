"""A simulated machine as a source of the gateway: it runs healthy, develops a fault and never ends.

Registered under the entry-point group `fisher_edge.sources` as `simulator`; `open_simulator` lists the keys.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from fisher_edge.dsp.blocks import Block
from fisher_edge.errors import UsageError
from fisher_train.simulate.catalogue import machine_of, state_of
from fisher_train.simulate.machine import Machine, OperatingPoint, State
from fisher_train.simulate.stream import MachineStream

__all__ = ["SimulatorSource", "open_simulator"]

BLOCK_S = 0.1


@dataclass(frozen=True)
class SimulatorSource:
    """Blocks of a machine whose fault begins at `onset_s`; begun anew, it is the same machine from its first day."""

    machine: Machine
    state: State
    point: OperatingPoint
    rate_hz: int
    seed: int
    onset_s: float
    growth_s: float
    speed: float
    scale: float

    @property
    def patient(self) -> bool:
        """Whether blocks may wait for whoever takes them: at speed 0 nothing is lost."""
        return self.speed == 0

    def blocks(self, stop: threading.Event) -> Iterator[Block]:
        """Yield blocks of a tenth of a second until `stop` is set."""
        stream = MachineStream(
            self.machine,
            self.state,
            self.point,
            self.rate_hz,
            self.seed,
            onset_s=self.onset_s,
            growth_s=self.growth_s,
        )
        start_s, clock, index = time.time(), time.monotonic(), 0
        step = round(BLOCK_S * self.rate_hz)
        while True:
            second = stream.read() * self.scale
            for first in range(0, len(second), step):
                samples = second[first : first + step]
                yield Block(samples, self.rate_hz, index, start_s + index / self.rate_hz)
                index += len(samples)
                due = clock + index / self.rate_hz / self.speed if self.speed > 0 else clock
                if stop.wait(max(0.0, due - time.monotonic())):
                    return


def open_simulator(
    *,
    machine: str,
    rate_hz: int,
    fault: str = "",
    severity: float = 1.0,
    onset_s: float = 0.0,
    growth_s: float = 0.0,
    seed: int = 0,
    specimen: int = 0,
    modality: str | None = None,
    speed_hz: float | None = None,
    load: float = 0.7,
    speed: float = 1.0,
    scale: float = 1.0,
) -> SimulatorSource:
    """Open the source `{ type = "simulator", machine = "bearing", fault = "outer", onset_s = 30, rate_hz = 16000 }`.

    `machine` and `fault` as `fisher-edge simulate --list` names them; `severity` 1 is plain to see; the fault begins
    `onset_s` after the start and grows for `growth_s`; `speed` 1 is real time, 0 as fast as windows are judged.
    Raises UsageError for what there is not.
    """
    for name, value in {
        "onset_s": onset_s,
        "growth_s": growth_s,
        "seed": seed,
        "specimen": specimen,
        "speed": speed,
    }.items():
        if value < 0:
            raise UsageError(f"{name}={value:g} is negative; choose 0 or more")
    if not 0 <= load <= 1:
        raise UsageError(f"load={load:g} is outside 0 to 1; it is a share of the rated load")
    return SimulatorSource(
        machine=machine_of(machine, rate_hz, seed, modality=modality, speed_hz=speed_hz),
        state=state_of(machine, fault, severity, specimen),
        point=OperatingPoint(load=load),
        rate_hz=rate_hz,
        seed=seed,
        onset_s=onset_s,
        growth_s=growth_s,
        speed=speed,
        scale=scale,
    )
