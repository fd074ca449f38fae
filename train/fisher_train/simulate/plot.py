"""Pictures of simulated machines: waveform, log-STFT, spectrum and envelope spectrum, with theory's lines marked."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import signal

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.catalogue import FAULTS_TOLD, KINDS, machine_of, state_of
from fisher_train.simulate.lines import Line, lines_of
from fisher_train.simulate.machine import ELECTRICAL, FAULTS_OF, Machine, OperatingPoint, State
from fisher_train.simulate.stream import MachineStream

__all__ = ["draw_fault", "draw_page", "envelope_spectrum", "spectrum"]

FRAME_S, HOP_S = 0.025, 0.010
"""Frames of the front-end (FISHER, section II)."""
SECONDS = 5
FAULTY, HEALTHY, MARK = "tab:red", "0.6", "tab:blue"
SPEED_HZ = 30.0
PAGE = """<!doctype html><meta charset="utf-8"><title>Simulated faults</title>
<style>body {{ font-family: sans-serif; margin: 2em }} img {{ width: 100%; max-width: 75em }}</style>
<h1>Simulated faults</h1>
<p>Grey is the same machine when it is healthy, blue marks where theory puts the lines.</p>
{figures}
"""


def draw_fault(path: Path, machine: Machine, state: State, point: OperatingPoint, rate_hz: int, seed: int) -> None:
    """Record the machine with and without the fault and write the picture; its format is that of the file's name."""
    healthy, faulty = (_record(MachineStream(machine, each, point, rate_hz, seed)) for each in (State(), state))
    lines = lines_of(machine, state, point)
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    figure.suptitle(
        f"{state.part or 'healthy'} {state.fault}: {machine.modality} at {rate_hz / 1000:g} kHz, "
        f"severity {state.size:g}, shaft at {machine.rotor.speed_hz * point.speed:.2f} Hz"
    )
    wave_axes, stft_axes, spectrum_axes, envelope_axes = figure.subplots(2, 2).ravel()
    above_hz = 5.0 if machine.modality in ELECTRICAL else rate_hz / 8
    slowest_hz = min(
        [machine.rotor.speed_hz * point.speed / 2, *(line.hz for line in lines if line.seen_in == "envelope")]
    )
    _draw_wave(wave_axes, healthy, faulty, rate_hz, min(1.0, 3 / slowest_hz))
    _draw_stft(stft_axes, faulty, rate_hz)
    _draw_lines(spectrum_axes, "spectrum", [spectrum(wave, rate_hz) for wave in (healthy, faulty)], lines)
    _draw_lines(
        envelope_axes, "envelope", [envelope_spectrum(wave, rate_hz, above_hz) for wave in (healthy, faulty)], lines
    )
    envelope_axes.set(title=f"spectrum of the envelope above {above_hz:g} Hz")
    figure.savefig(path, dpi=80)


def draw_page(folder: Path, rate_hz: int, severity: float, seed: int) -> Iterator[Path]:
    """Draw every fault of every kind of machine into a folder, then an index of them; yield each file when done."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = []
    for kind in KINDS:
        machine = _plain(machine_of(kind, rate_hz, seed, speed_hz=SPEED_HZ))
        for fault, text in zip(FAULTS_OF[kind], FAULTS_TOLD[kind], strict=True):
            path = folder / f"{kind}-{fault}.png"
            draw_fault(path, machine, state_of(kind, fault, severity), OperatingPoint(), rate_hz, seed)
            figures.append(f'<h2>{kind}: {text}</h2>\n<img src="{path.name}" alt="{kind} {fault}">')
            yield path
    index = folder / "index.html"
    index.write_text(PAGE.format(figures="\n".join(figures)), encoding="utf-8")
    yield index


def _record(stream: MachineStream) -> FloatArray:
    return np.concatenate([stream.read() for _ in range(SECONDS)])


def _plain(machine: Machine) -> Machine:
    """Let the shaft turn steadily, so that the lines on the page are sharp."""
    return replace(machine, rotor=replace(machine.rotor, fluctuation=3e-4))


def spectrum(wave: FloatArray, rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and amplitudes (bins,) of the lines of a wave, by a Hann window over all of it."""
    window = signal.windows.hann(len(wave), sym=False)
    return np.fft.rfftfreq(len(wave), 1 / rate_hz), np.abs(np.fft.rfft(wave * window)) * 4 / len(wave)


def envelope_spectrum(wave: FloatArray, rate_hz: int, above_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Spectrum of the envelope of what a wave has above a frequency (Randall and Antoni, section 4)."""
    band = signal.butter(4, above_hz, "highpass", fs=rate_hz, output="sos")
    envelope = np.abs(signal.hilbert(signal.sosfiltfilt(band, wave)))
    return spectrum(envelope - envelope.mean(), rate_hz)


def _draw_wave(axes: Axes, healthy: FloatArray, faulty: FloatArray, rate_hz: int, seconds: float) -> None:
    count = round(seconds * rate_hz)
    time_ms = np.arange(count) / rate_hz * 1000
    axes.plot(time_ms, faulty[:count], color=FAULTY, linewidth=0.6)
    axes.plot(time_ms, healthy[:count], color=HEALTHY, linewidth=0.6)
    axes.set(xlabel="time in ms", ylabel="amplitude", title="waveform")


def _draw_stft(axes: Axes, wave: FloatArray, rate_hz: int) -> None:
    frame = round(FRAME_S * rate_hz)
    transform = signal.ShortTimeFFT(signal.windows.hann(frame, sym=False), round(HOP_S * rate_hz), rate_hz)
    level = 20 * np.log10(np.abs(transform.stft(wave[: 2 * rate_hz])) + 1e-9)
    top = float(level.max())
    extent = (0, 2, 0, rate_hz / 2000)
    axes.imshow(level, origin="lower", aspect="auto", extent=extent, vmin=top - 80, vmax=top, cmap="magma")
    axes.set(xlabel="time in s", ylabel="frequency in kHz", title="log-STFT with the fault, 80 dB")


def _draw_lines(axes: Axes, where: str, spectra: list[tuple[np.ndarray, np.ndarray]], lines: tuple[Line, ...]) -> None:
    """Draw two spectra in dB, as far as the lines to be seen there reach."""
    marked = [line for line in lines if line.seen_in == where]
    f = spectra[0][0]
    reach_hz = 1.5 * max((line.hz for line in marked), default=500.0 if where == "envelope" else float(f[-1]))
    top_hz = min(float(f[-1]), reach_hz if where == "envelope" else max(300.0, reach_hz))
    shown = (f > 0.5) & (f <= top_hz)
    for (_, amplitude), color in zip(spectra[::-1], (FAULTY, HEALTHY), strict=True):
        axes.plot(f[shown], 20 * np.log10(amplitude[shown] + 1e-9), color=color, linewidth=0.6)
    for line in marked:
        if line.hz <= top_hz:
            axes.axvline(line.hz, color=MARK, linewidth=0.6, linestyle=":")
            axes.text(
                line.hz,
                1.0,
                line.name,
                rotation=90,
                fontsize=7,
                color=MARK,
                va="top",
                ha="right",
                transform=axes.get_xaxis_transform(),
            )
    highest = max(20 * np.log10(amplitude[shown].max() + 1e-9) for _, amplitude in spectra)
    axes.set(xlabel="frequency in Hz", ylabel="dB", title=where, ylim=(highest - 90, highest + 8))
