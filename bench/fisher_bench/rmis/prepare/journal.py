"""The finished part of a preparation, a JSON line a source, so that a killed one continues. Start at `open_journal`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fisher_bench.rmis.index import Segment
from fisher_bench.rmis.prepare.source import Source
from fisher_edge.errors import BadInputError

__all__ = ["Journal", "open_journal"]

JOURNAL_NAME = "progress.jsonl"


class Journal:
    """Peaks and segments by source, as far as they are known; appended to as sources get done."""

    def __init__(self, path: Path, lines: list[dict[str, Any]]) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._peaks = {line["stamp"]: line for line in lines if "peak" in line}
        self._segments = {(line["stamp"], line["scale"]): line for line in lines if "segments" in line}

    def peak(self, source: Source) -> float | None:
        """Return the peak of a source, if it was measured."""
        line = self._peaks.get(_stamp(source))
        return None if line is None else float(line["peak"])

    def segments(self, source: Source, scale: float) -> list[Segment] | None:
        """Return the segments of a source, if they were written with this scale."""
        line = self._segments.get((_stamp(source), scale))
        return None if line is None else [Segment(**segment) for segment in line["segments"]]

    def measured(self, source: Source, peak: float) -> None:
        """Remember a peak."""
        self._append({"stamp": _stamp(source), "peak": peak})

    def written(self, source: Source, scale: float, segments: list[Segment]) -> None:
        """Remember the segments of a source; their files are closed."""
        rows = [asdict(segment) for segment in segments]
        self._append({"stamp": _stamp(source), "scale": scale, "segments": rows})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, line: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise BadInputError(
                f"cannot write {self._path} ({error.strerror}); make room: the same command continues"
            ) from None


def open_journal(folder: Path, set_name: str) -> Journal:
    """Open the journal of a folder; a line that a killed process left unfinished is dropped.

    Raises BadInputError when the folder belongs to another set.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / JOURNAL_NAME
    lines = _lines(path) if path.is_file() else []
    if not lines:
        path.write_text(json.dumps({"set": set_name}) + "\n", encoding="utf-8")
    elif lines[0].get("set") != set_name:
        raise BadInputError(f"{folder} holds {lines[0].get('set')}, not {set_name}; give each set a folder of its own")
    return Journal(path, lines)


def _lines(path: Path) -> list[dict[str, Any]]:
    """Read the complete lines and truncate the file after the last of them."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise BadInputError(f"{path} is damaged ({error}); delete the folder and prepare the set again") from None


def _stamp(source: Source) -> str:
    """Identify a source with its size and time of change, so that a replaced file is processed again."""
    info = source.path.stat()
    return f"{source.file}|{info.st_size}|{info.st_mtime_ns}"
