"""Writes docs/configuration.md from the models of the configuration file; `--check` only compares.

Run: python scripts/configuration_reference.py
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fisher_edge.config import Config
from fisher_edge.config.channel import ChannelAlarmConfig, OperatingStateConfig
from fisher_edge.config.plugins import keys_schema, source_function, source_types
from fisher_edge.config.schema import TABLES

TARGET = Path(__file__).parents[1] / "docs" / "configuration.md"
HEAD = """# The configuration file

Written by `make docs` from the descriptions that editors show, too; `make check` compares.

One TOML file describes a gateway. Its smallest form is one channel:

```toml
[[channel]]
asset = "pump-1"
name = "vib-de"
unit = "g"
source = { type = "recording", files = ["healthy.flac", "faulty.flac"], loop = true }
```

- `fisher-edge config check gateway.toml` lists the mistakes with file, table and key. With `--json` it shows the whole
  configuration, defaults filled in and secrets hidden.
- `fisher-edge config schema > fisher-edge.schema.json` writes a JSON schema. Editors that know schemas for TOML
  complete keys and show what they mean; for many of them the first line `#:schema fisher-edge.schema.json` is enough.
- Relative paths count from the folder of the file.
- Numbers have no quotes; a key that does not exist is an error.
"""
CHANNEL = """
Asset and name of a channel are unique. A channel inherits `window_s`, `hop_s` and the alarm settings of the gateway:

```toml
[alarm]
alarm_per_day = 0.1

[[channel]]
asset = "press-7"
name = "motor"
window_s = 2.56
alarm = { alarm_per_day = 0.01, hold_s = 60 }
source = { type = "serial", port = "/dev/serial/by-id/usb-board", channel = 1 }
```
"""
OPERATING_STATE = """
### operating_state of a channel

Where the operating state of the machine comes from. A window in which it changes is not judged.

```toml
operating_state = { topic = "plant/press-7/drive", field = "rpm", states = { slow = [300, 900], fast = [900, 3000] } }
```
"""
SOURCES = """
## Sources

`source` is a table with a `type` and the keys of that type. A rate in Hz may be a fraction: `rate_hz = 3906.25`.

Packages bring types of their own through the entry-point group `fisher_edge.sources`:

```toml
# pyproject.toml of the package
[project.entry-points."fisher_edge.sources"]
ramp = "rampmaker:open_ramp"
```

```python
def open_ramp(
    context: SourceContext,
    *,
    rate_hz: Annotated[float, Field(gt=0, description="Sampling rate in Hz.")],
    calibration: Path | None = None,
) -> Source: ...
```

The parameters after the `*` are the keys of the table. Their annotations are checked when the file is loaded, and
editors show their descriptions. `SourceContext` and `Source` are in `fisher_edge.sources.source`:

- The context gives the folder of the file, the unit, the scale and the clock.
- A source is a context manager that yields blocks of samples.
- `fisher_edge.sources.shared` helps where several channels read one device.
- A value whose key looks like a secret (`password`, `token`, `api_key`, ...) and a password in a URL are never shown.
"""


def reference() -> str:
    """Return the whole document."""
    schema = Config.model_json_schema()
    parts = [HEAD]
    for name, model in TABLES.items():
        if name in schema["properties"]:
            parts.append(f"\n## {_heading(name)}\n\n{schema['properties'][name]['description']}\n")
            parts += [CHANNEL] if name == "channel" else []
            parts += _table(schema["$defs"][model.__name__])
    parts.append("\n### alarm of a channel\n\nWhat differs from `[alarm]`; every key may be left out.\n")
    parts += [*_table(schema["$defs"][ChannelAlarmConfig.__name__]), OPERATING_STATE]
    parts += [*_table(schema["$defs"][OperatingStateConfig.__name__]), SOURCES]
    for name, entry in source_types().items():
        if entry.dist is not None and entry.dist.name == "fisher-edge":
            keys = keys_schema(source_function(name))
            parts += [f"\n### {name}\n", *_table(keys)]
    return "".join(parts)


def _heading(name: str) -> str:
    return "[[channel]]" if name == "channel" else f"[{name}]"


def _table(table: dict[str, Any]) -> Iterator[str]:
    yield "\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n"
    for key, facts in table["properties"].items():
        needed = key in table.get("required", ())
        yield f"| `{key}` | {_kind(facts)} | {'required' if needed else _default(facts)} | {facts['description']} |\n"


def _kind(facts: dict[str, Any]) -> str:
    """Name the type of a key as a user of TOML does."""
    facts = facts | next((one for one in facts.get("anyOf", ()) if one.get("type") not in {None, "null"}), {})
    if facts.get("format") == "path":
        return "path"
    kinds = {"number": "number", "integer": "whole number", "string": "text", "boolean": "true or false"}
    return kinds.get(facts.get("type", ""), "list" if facts.get("type") == "array" else "table")


def _default(facts: dict[str, Any]) -> str:
    """Show a default as it would be written."""
    default = facts.get("default")
    if default is None or isinstance(default, dict):
        return ""
    shown = {True: "true", False: "false"}.get(default) if isinstance(default, bool) else None
    return f"`{shown or (f'{default:g}' if isinstance(default, float) else repr(default))}`".replace("'", '"')


def main() -> None:
    """Write the document or compare it."""
    text = reference()
    if "--check" not in sys.argv:
        TARGET.write_text(text, encoding="utf-8")
    elif not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != text:
        sys.exit(f"{TARGET} is not what the configuration says; run: make docs")


if __name__ == "__main__":
    main()
