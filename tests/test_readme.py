"""What the README shows is run here, word for word, in a folder that looks like a checkout."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import COMMAND, run_here

from fisher_edge.config import load_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the commands of the README refer to."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copytree(ROOT / "train" / "checkpoints", folder / "train" / "checkpoints")
    (configuration,) = blocks("toml")
    (folder / "gateway.toml").write_text(configuration, encoding="utf-8")
    return folder


def commands() -> list[str]:
    """Return the lines of the shell blocks that call the program."""
    return [line for block in blocks("sh") for line in block.splitlines() if line.startswith("fisher-edge")]


def words(command: str, folder: Path) -> Iterator[str]:
    """Yield the arguments of a command as a shell would give them."""
    for word in shlex.split(command)[1:]:
        yield from sorted(str(path) for path in folder.glob(word)) if "*" in word else [word]


def test_readme_commands_run_in_their_order(checkout: Path) -> None:
    """Every command that ends by itself exits 0; the daemon is run by its own test below."""
    shown = [command for command in commands() if not command.startswith("fisher-edge run")]
    assert len(shown) >= 8
    for command in shown:
        done = run_here(*words(command, checkout), cwd=checkout)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert done.stdout, command


def test_readme_configuration_runs(checkout: Path) -> None:
    """The configuration is valid, and the daemon starts with it and stops on a signal."""
    assert load_config(checkout / "gateway.toml").gateway.name == "line-3"
    text = (checkout / "gateway.toml").read_text(encoding="utf-8")
    free = text.replace('url = "embedded"', 'url = "embedded"\nembedded_port = 0')
    (checkout / "free-port.toml").write_text(free, encoding="utf-8")
    process = subprocess.Popen(
        [*COMMAND, "run", "free-port.toml"],
        cwd=checkout,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "connected" in line:
            break
    process.terminate()
    process.stderr.read()
    process.stderr.close()
    assert process.wait(10) == 0


def test_readme_make_targets_exist() -> None:
    """The two commands of the README are targets of the Makefile."""
    shown = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("make")]
    assert shown == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE) for line in shown)


@pytest.mark.parametrize("document", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md")), ids=str)
def test_documents_link_to_what_exists(document: Path) -> None:
    """Relative links of every document lead to files of the repository."""
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert missing == []


def test_every_command_is_documented() -> None:
    """Each command of the README is one of the command reference."""
    reference = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for command in commands():
        name = [word for word in command.split()[:3] if re.fullmatch(r"[a-z-]+", word)]
        assert f"## {' '.join(name[:2])}" in reference, command
