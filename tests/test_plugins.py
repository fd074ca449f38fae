"""Commands that other packages bring: found by their entry point, loaded when asked for, alone in their failures."""

import sys
from pathlib import Path

import pytest
from command import COMMAND, run_program

from fisher_edge.cli import main

MODULE = """
import typer

def register(app: typer.Typer) -> None:
    @app.command("hello")
    def hello(name: str) -> None:
        "Greet somebody."
        print("hello", name)

    @app.command("unasked")
    def unasked() -> None:
        "A command that has no entry point."

def register_run(app: typer.Typer) -> None:
    app.command("run")(lambda: print("not the gateway"))

def register_nothing(app: typer.Typer) -> None:
    pass

def register_badly(app: typer.Typer) -> None:
    raise RuntimeError("no licence")
"""
ENTRY_POINTS = """[fisher_edge.commands]
hello = acme.cli:register
run = acme.cli:register_run
empty = acme.cli:register_nothing
raises = acme.cli:register_badly
exits = acme_exits:register
needs = acme_needs:register [pro]
bare = acme_needs:register
lost = acme.nowhere:register
"""
BROKEN = ("bare", "empty", "exits", "lost", "needs", "raises")


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a package with one good command and several broken ones; return its site folder."""
    site = tmp_path / "site"
    info = site / "acme_tools-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "acme").mkdir()
    (site / "acme" / "__init__.py").touch()
    (site / "acme" / "cli.py").write_text(MODULE)
    (site / "acme_exits.py").write_text("import sys\nsys.exit('go away')\n")
    (site / "acme_needs.py").write_text("import a_module_nobody_has\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-tools\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    loaded = [name for name in sys.modules if name.partition(".")[0].startswith("acme")]
    for name in loaded:
        monkeypatch.delitem(sys.modules, name)
    return site


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """Run a command within this process; return what it prints, or its error."""
    with pytest.raises(SystemExit) as left:
        main(list(words))
    printed = capsys.readouterr()
    assert (left.value.code or 0) == code, printed.err
    return printed.err if code else printed.out


@pytest.mark.usefixtures("acme")
def test_command_of_another_package_runs_and_helps(capsys: pytest.CaptureFixture[str]) -> None:
    """It takes its arguments, knows `-h` like every command, and is in the list; what has no entry point is not."""
    assert said(capsys, "hello", "world") == "hello world\n"
    assert "Greet somebody." in said(capsys, "hello", "-h")
    assert "Greet somebody." in said(capsys, "--help")
    assert "No such command 'unasked'" in said(capsys, "unasked", code=2)


@pytest.mark.usefixtures("acme")
def test_misspelt_command_of_another_package_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    """The guess knows the commands of all packages."""
    assert "Did you mean 'hello'?" in said(capsys, "helo", code=2)
    assert "Did you mean 'simulate'?" in said(capsys, "simulat", code=2)


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    ("name", "code", "why"),
    [
        ("needs", 3, "a_module_nobody_has is not installed; run: pip install 'acme-tools[pro]'"),
        ("bare", 3, "a_module_nobody_has is not installed; run: pip install --force-reinstall acme-tools"),
        ("lost", 3, "acme.nowhere is not installed; run: pip install --force-reinstall acme-tools"),
        ("raises", 1, "RuntimeError('no licence'); update or uninstall acme-tools"),
        ("exits", 1, "SystemExit('go away'); update or uninstall acme-tools"),
        ("empty", 1, "acme.cli:register_nothing does not add it; update or uninstall acme-tools"),
    ],
)
@pytest.mark.parametrize("words", [(), ("--help",), ("some", "--option", "value")])
def test_broken_command_is_one_line(
    name: str, code: int, why: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its arguments, a command that cannot be loaded says which package it is of, why, and what to do."""
    assert said(capsys, name, *words, code=code) == f"error: command '{name}' of acme-tools cannot be loaded: {why}\n"


def test_broken_commands_leave_the_others_alone(acme: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The list shows them, and all others as before: the runtime's own in their order, then the rest by name."""
    names = [
        line.split()[1] for line in said(capsys, "--help").splitlines() if line.startswith("│ ") and line[2] != " "
    ]
    listed = names[names.index("demo") :]
    own, others = listed[: listed.index("config") + 1], listed[listed.index("config") + 1 :]
    assert own == [
        "demo",
        "run",
        "enroll",
        "score",
        "embed",
        "export",
        "bench",
        "baseline",
        "alarms",
        "outbox",
        "config",
    ]
    assert others == sorted(["bridge", "hello", "rmis", "simulate", "train-data", *BROKEN])
    assert "outer" in said(capsys, "simulate", "--list")


def test_runtime_keeps_its_commands_and_loads_no_other_package_for_them(acme: Path) -> None:
    """No package takes the place of `run`, and none is imported where it is not asked for."""
    code = (
        "import sys\nfrom fisher_edge.cli import main\ntry:\n    main(sys.argv[1:])\nfinally:\n"
        "    print([name for name in sys.modules if name.startswith(('acme', 'fisher_train', 'fisher_bridge'))])"
    )
    program = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(acme)!r})\n{code}"]
    ended = run_program([*program, "run", "--help"])
    assert "Monitor the channels of a configuration" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "[]"
    listed = run_program([*program, "--help"])
    assert listed.returncode == 0
    assert "command 'run' of acme-tools is ignored" in listed.stderr


def test_help_imports_only_what_it_shows() -> None:
    """The list of all commands loads the extras of none."""
    heavy = ("numpy", "torch", "onnx", "onnxruntime", "scipy", "serial", "pyarrow", "soundfile", "matplotlib")
    code = (
        "import sys\nfrom fisher_edge.cli import main\ntry:\n    main(['--help'])\nfinally:\n"
        f"    print(sorted(set({heavy!r}) & set(sys.modules)), 'fisher_bench.rmis.cli' in sys.modules)"
    )
    assert run_program([sys.executable, "-c", code]).stdout.splitlines()[-1] == "[] True"


def test_command_whose_package_is_gone_is_one_line() -> None:
    """Without the package of a command the others work, and this one says what to install."""
    block = "import sys; sys.modules['fisher_bench'] = None; from fisher_edge.cli import main; main()"
    gone = run_program([sys.executable, "-c", block, "rmis", "list"])
    expected = "fisher_bench.rmis is not installed; run: pip install --force-reinstall fisher-edge"
    assert (gone.returncode, gone.stderr) == (3, f"error: command 'rmis' of fisher-edge cannot be loaded: {expected}\n")
    assert run_program([sys.executable, "-c", block, "simulate", "--list"]).returncode == 0
    assert run_program([*COMMAND, "rmis", "list"]).returncode == 0
