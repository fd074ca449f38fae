"""Writes docs/commands.md from the `--help` of every command; `--check` only compares.

Run: python scripts/command_reference.py
"""

import sys
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup
from typer.main import get_command

from fisher_edge.cli.app import app

TARGET = Path(__file__).parents[1] / "docs" / "commands.md"
HEAD = """# Commands

Written by `make docs` from the commands' own help; `make check` compares.

Exit codes: 0 done, 2 usage, 3 missing extra, 4 bad input, 5 bad artifact, 6 broker, 7 insensitive baseline (`enroll
--strict`).
"""


def reference() -> str:
    """Return the whole document."""
    return HEAD + "".join(_section("fisher-edge", get_command(app)))


def _section(path: str, command: Any) -> list[str]:
    """Describe one command and those below it."""
    if isinstance(command, TyperGroup):
        context = typer.Context(command)
        children = {name: command.get_command(context, name) for name in command.list_commands(context)}
        return [part for name, child in children.items() for part in _section(f"{path} {name}", child)]
    help_text = "\n".join(line.strip() for line in command.help.splitlines())
    lines = [f"\n## {path}\n\n{help_text}\n\n| argument | what it is |\n| --- | --- |\n"]
    lines += [_row(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)]
    return lines


def _row(parameter: Any) -> str:
    is_argument = isinstance(parameter, TyperArgument)
    name = parameter.name.upper() if is_argument else " / ".join((*parameter.opts, *parameter.secondary_opts))
    text = getattr(parameter, "help", None) or ""
    default = parameter.default
    shown = f" Default: {default}." if default not in {None, False, True, (), ""} and not parameter.required else ""
    return f"| `{name}` | {text}{' Required.' if parameter.required else ''}{shown} |\n"


def main() -> None:
    """Write the document or compare it."""
    text = reference()
    if "--check" not in sys.argv:
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(text, encoding="utf-8")
    elif not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != text:
        sys.exit(f"{TARGET} is not what the commands say; run: make docs")


if __name__ == "__main__":
    main()
