"""Shards: tar files in the WebDataset convention (members that share a key are one sample), read at any place.

Start at `recordings_of`. A sample is `KEY.json` (what the numbers mean) and `KEY.flac` or `KEY.npy`. The webdataset
library reads these files too; here they are not streamed through it, because the order it gives depends on the
number of workers and on all that was read before, while a resumed run must see the batches it would have seen.
"""

import io
import json
import tarfile
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import soundfile

from fisher_edge.errors import BadInputError
from fisher_train.recordings.recording import Recording, refusing

__all__ = ["INDEX", "SHARD", "facts_of", "keys_of", "recordings_of"]

SHARD = ".tar"
INDEX = "index.json"
SOUND = ("flac", "wav", "ogg", "mp3")
ARRAY = "npy"
FACTS = ("name", "dataset", "unit", "channel", "rate_hz", "samples", "scale", "encoding", "label", "first")
"""Fields of a recording that its JSON member holds."""


def recordings_of(shard: Path) -> list[Recording]:
    """Return the recordings of a shard, from the index in its folder if that lists the file, else from its members.

    Raises BadInputError when it is not a tar file or holds a sample without a rate.
    """
    index = shard.with_name(INDEX)
    if index.is_file():
        known = _index(index, index.stat().st_mtime_ns).get(shard.name)
        if known and known["bytes"] == shard.stat().st_size:
            try:
                return [Recording(path=shard, **row) for row in known["recordings"]]
            except TypeError as error:
                raise BadInputError(f"{index} does not describe recordings ({error}); delete it") from error
    return _scan(shard)


def _scan(shard: Path) -> list[Recording]:
    """Return the recordings of a shard from its members."""
    samples: dict[str, dict[str, tarfile.TarInfo]] = defaultdict(dict)
    recordings: list[Recording] = []
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if member.isfile():
                    folder, _, base = member.name.rpartition("/")
                    key, _, kind = base.partition(".")
                    samples[f"{folder}/{key}"][kind.lower()] = member
            for key, members in samples.items():
                recordings += _sample(tar, shard, key.strip("/"), members)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BadInputError(f"{shard} is not a complete tar file ({error}); write it again") from error
    return recordings


def keys_of(shard: Path) -> dict[str, dict[str, Any]]:
    """Return what the JSON members of a shard say, by key."""
    found: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    found[member.name.removesuffix(".json")] = _json(tar, shard, member)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BadInputError(f"{shard} is not a complete tar file ({error}); delete it") from error
    return found


def facts_of(recording: Recording) -> dict[str, Any]:
    """Return what the JSON member of a recording says."""
    return {name: getattr(recording, name) for name in FACTS}


def _sample(tar: tarfile.TarFile, shard: Path, key: str, members: dict[str, tarfile.TarInfo]) -> list[Recording]:
    """Return the recordings of one sample: its channels."""
    kind = next((kind for kind in (ARRAY, *SOUND) if kind in members), None)
    if kind is None:
        return []
    facts = _json(tar, shard, members["json"]) if "json" in members else {}
    place: dict[str, Any] = {"path": shard, "offset": members[kind].offset_data, "size": members[kind].size}
    if facts.keys() >= set(FACTS):
        return [Recording(**place, **{name: facts[name] for name in FACTS})]
    if kind == ARRAY:
        raise BadInputError(f"{shard} holds {key}.npy without a JSON that gives its rate; pack the recordings again")
    return _foreign(tar, shard, key, members[kind], place)


def _foreign(
    tar: tarfile.TarFile, shard: Path, key: str, member: tarfile.TarInfo, place: dict[str, Any]
) -> list[Recording]:
    """Return the channels of a sound whose JSON is not ours, from its header."""
    file = tar.extractfile(member)
    assert file is not None  # what is listed is a plain file
    with refusing(shard), soundfile.SoundFile(io.BytesIO(file.read())) as sound:
        rate_hz, samples, channels = int(sound.samplerate), int(sound.frames), int(sound.channels)
    name = f"{shard.parent.name}/{key}"
    return [
        Recording(name, shard.parent.name, name, channel, rate_hz, samples, 1.0, encoding="sound", **place)
        for channel in range(channels)
    ]


def _json(tar: tarfile.TarFile, shard: Path, member: tarfile.TarInfo) -> dict[str, Any]:
    file = tar.extractfile(member)
    assert file is not None  # what is listed is a plain file
    try:
        facts = json.loads(file.read())
    except ValueError as error:
        raise BadInputError(f"{shard} holds {member.name}, which is not JSON; write it again") from error
    return facts if isinstance(facts, dict) else {}


@lru_cache(maxsize=64)
def _index(path: Path, _changed_ns: int) -> dict[str, dict[str, Any]]:
    """Read an index: shard name to its bytes and recordings."""
    try:
        shards = json.loads(path.read_text("utf-8"))["shards"]
        return {shard["name"]: {"bytes": shard["bytes"], "recordings": shard["recordings"]} for shard in shards}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BadInputError(f"{path} is not an index of shards ({type(error).__name__}); delete it") from error
