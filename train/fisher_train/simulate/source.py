"""A simulated machine as a source of the gateway: it runs healthy, develops a fault and never ends.

Registered under the entry-point group `fisher_edge.sources` as `simulator`; the parameters of `open_simulator` are
the keys of its table.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fisher_edge.dsp.blocks import Block
from fisher_edge.errors import UsageError
from fisher_edge.sources.source import SourceContext
from fisher_train.simulate.catalogue import machine_of, state_of
from fisher_train.simulate.machine import Machine, OperatingPoint, State
from fisher_train.simulate.stream import MachineStream

__all__ = ["SimulatorSource", "open_simulator"]

BLOCK_S = 0.1


@dataclass(frozen=True)
class SimulatorSource:
    """Blocks of a machine whose fault begins at `onset_s`; opened again, the same machine starts over."""

    context: SourceContext
    machine: Machine
    state: State
    point: OperatingPoint
    rate_hz: int
    seed: int
    onset_s: float
    growth_s: float
    speed: float

    finite = False

    @property
    def patient(self) -> bool:
        """Whether blocks may wait for whoever takes them: at speed 0 nothing is lost."""
        return self.speed == 0

    def __enter__(self) -> "SimulatorSource":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind: the machine lives in the iterator of its blocks."""

    def blocks(self, stop: threading.Event) -> Iterator[Block]:
        """Yield blocks of a tenth of a second until `stop` is set; time stamps start at the clock of the context."""
        stream = MachineStream(
            self.machine,
            self.state,
            self.point,
            self.rate_hz,
            self.seed,
            onset_s=self.onset_s,
            growth_s=self.growth_s,
        )
        start_s, began_s, index = self.context.clock(), time.monotonic(), 0
        step = round(BLOCK_S * self.rate_hz)
        while True:
            second = stream.read() * self.context.scale
            for first in range(0, len(second), step):
                block = Block(second[first : first + step], self.rate_hz, index, start_s + index / self.rate_hz)
                index += len(block.samples)
                due_s = began_s + index / self.rate_hz / self.speed if self.speed else began_s
                if stop.wait(max(0.0, due_s - time.monotonic())):
                    return
                yield block


def open_simulator(
    context: SourceContext,
    *,
    machine: Annotated[str, Field(description="Kind of machine, as `fisher-edge simulate --list` names it.")],
    rate_hz: Annotated[int, Field(description="Sampling rate in Hz, 1000 to 200000.")],
    fault: Annotated[str, Field(description="Fault that develops; empty: the machine stays healthy.")] = "",
    severity: Annotated[float, Field(description="Size of the fault; 1 is plain to see.")] = 1.0,
    onset_s: Annotated[float, Field(description="Seconds from the start to the beginning of the fault.")] = 0.0,
    growth_s: Annotated[float, Field(description="Seconds in which the fault grows to its size.")] = 0.0,
    seed: Annotated[int, Field(description="Number of the machine: another one is another machine.")] = 0,
    specimen: Annotated[int, Field(description="Number of the fault: another one is another specimen of it.")] = 0,
    modality: Annotated[
        str | None, Field(description="What the sensor measures: vibration, sound, current or voltage.")
    ] = None,
    speed_hz: Annotated[float | None, Field(description="Speed of the shaft in Hz.")] = None,
    load: Annotated[float, Field(description="Share of the rated load, 0 to 1.")] = 0.7,
    speed: Annotated[
        float, Field(description="1 is real time, 10 ten times as fast, 0 as fast as windows are judged.")
    ] = 1.0,
) -> SimulatorSource:
    """Open the source `{ type = "simulator", machine = "bearing", fault = "outer", onset_s = 30, rate_hz = 16000 }`.

    Raises UsageError for a machine, a fault or a number that does not exist.
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
        context=context,
        machine=machine_of(machine, rate_hz, seed, modality=modality, speed_hz=speed_hz),
        state=state_of(machine, fault, severity, specimen),
        point=OperatingPoint(load=load),
        rate_hz=rate_hz,
        seed=seed,
        onset_s=onset_s,
        growth_s=growth_s,
        speed=speed,
    )
