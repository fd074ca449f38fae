"""The commands `fisher-edge rmis`: the benchmark of the FISHER paper, from download to report."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fisher_edge.cli.options import AsJson, print_json
from fisher_edge.errors import BadInputError, UsageError, require

if TYPE_CHECKING:
    from fisher_bench.rmis.report.rows import Row

__all__ = ["register"]

group = typer.Typer(help="RMIS: benchmark any encoder on machine signals of 19 public sets.", no_args_is_help=True)
PACKAGES = ("h5py", "matplotlib", "pyarrow", "scipy", "sklearn", "soxr", "torch")

Workers = Annotated[int, typer.Option("--workers", min=1, max=1024, help="Number of processes.")]
Cache = Annotated[
    Path | None, typer.Option("--cache", help="Folder that keeps all embeddings (default: next to the result).")
]
ModelSpec = Annotated[
    str,
    typer.Option(
        "--model",
        help='"default", a bundle, a checkpoint, cheap:NAME, random:PRESET[:SEED], birdnet, speech-embedding, or '
        "audiomae:FILE, beats:FILE, eat:FILE, ced:FILE, dasheng:FILE.",
    ),
]
RuleName = Annotated[
    str, typer.Option("--rule", help="Integration rule of the area: simpson (released code) or trapezoid (paper).")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file; called by the entry point."""
    group.command("list")(list_sets)
    for command in (prepare, embed, score, report, mini):
        group.command()(command)
    app.add_typer(group, name="rmis")


def list_sets(as_json: AsJson = False) -> None:
    """List the sets: modality, rate, hours, classes, publisher and licence.

    Example: fisher-edge rmis list
    """
    from dataclasses import asdict

    from fisher_bench.rmis.catalogue import SETS

    if as_json:
        print_json([asdict(known) for known in SETS])
        return
    for known in SETS:
        task = "detection" if known.detects else f"{len(known.classes)} classes"
        print(f"{known.name:17} {known.title:15} {known.modality:9} {known.rate_hz:6} Hz {known.hours:4} h  {task}")
        print(f"{'':17} {known.get}")
        print(f"{'':17} licence: {known.licence}")


def prepare(
    name: Annotated[str, typer.Argument(help="Name of the set; `fisher-edge rmis list` shows all.")],
    raw_dir: Annotated[Path, typer.Argument(help="Folder of the unpacked download.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write the segments and their index into.")],
    workers: Workers = 1,
    allow_incomplete: Annotated[
        bool, typer.Option("--allow-incomplete", help="Continue without missing or damaged files.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Cut a download into labelled segments with an index (Parquet). After an interruption the same command continues.

    Example: fisher-edge rmis prepare sdust_bearing downloads/SDUST-Dataset-main --out sets/sdust_bearing
    """
    require("rmis", *PACKAGES)
    from fisher_bench.rmis.prepare import prepare_set

    with _progress() as follow:
        index = prepare_set(name, raw_dir, out, workers=workers, allow_incomplete=allow_incomplete, report=follow)
    keys = len({segment.key for segment in index.segments if segment.key})
    if as_json:
        print_json({"segments": len(index.segments), "keys": keys} | index.facts)
        return
    hours = sum(segment.samples / segment.rate_hz for segment in index.segments) / 3600
    print(f"{name}: {len(index.segments)} segments, {hours:.1f} h, {keys} units of the sealed split, in {out}")
    for skipped in index.facts.get("skipped", ()):
        print(f"  left out {skipped['file']}: {skipped['reason']}")


def embed(
    set_dir: Annotated[Path, typer.Argument(help="Folder written by `fisher-edge rmis prepare`.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write the embeddings into; `rmis report` expects RUNS/MODEL/SET.")
    ],
    model: ModelSpec = "default",
    workers: Workers = 1,
    cache: Cache = None,
    ray: Annotated[str, typer.Option("--ray", help='Address of a Ray cluster, or "local" (default: no Ray).')] = "",
    as_json: AsJson = False,
) -> None:
    """Embed every segment of a prepared set with one encoder. After an interruption the same command continues.

    Example: fisher-edge rmis embed sets/sdust_bearing --model default --out runs/default/sdust_bearing
    """
    require("rmis", *PACKAGES)
    if ray:
        require("ray", "ray")
    from dataclasses import asdict

    from fisher_bench.rmis.catalogue import find
    from fisher_bench.rmis.embed.run import embed_set
    from fisher_bench.rmis.index import read_index

    known = find(str(read_index(set_dir).facts.get("name", "")))
    with _progress() as follow:
        facts = embed_set(
            known, set_dir, model, out, cache=cache or out.parent / "cache", workers=workers, ray=ray,
            report=lambda done, total: follow("embedding", done, total),
        )  # fmt: skip
    if as_json:
        print_json(asdict(facts) | {"hours_per_hour": facts.hours_per_hour})
        return
    print(f"{facts.model}: {facts.clips} clips of {known.title}, {facts.dim} numbers each, in {out}")
    print(
        f"  {facts.new_clips} embedded now, {facts.hours_per_hour:.0f} hours of signal an hour; the others were cached"
    )


def score(
    dataset: Annotated[str, typer.Option("--dataset", help="Name of the set; `fisher-edge rmis list` shows all.")],
    files: Annotated[Path, typer.Option("--files", help="CSV with one row for each file.")],
    embeddings: Annotated[Path, typer.Option("--embeddings", help="NPY (files, dimensions), in the order of the CSV.")],
    curve: Annotated[
        bool, typer.Option("--curve", help="Add the accuracy over the enrolled share, and its area.")
    ] = False,
    rule: RuleName = "simpson",
    as_json: AsJson = False,
) -> None:
    """Score embeddings as the released benchmark does.

    Example: fisher-edge rmis score --dataset pu_vib --files run/files.csv --embeddings run/embeddings.npy
    """
    require("rmis", *PACKAGES)
    from fisher_bench.rmis.catalogue import find
    from fisher_bench.rmis.scoring.files import read_scored
    from fisher_bench.rmis.scoring.score import headline, score, with_curve

    known = find(dataset)
    scored = read_scored(known, files, embeddings)
    result = score(known, scored)
    if curve:
        result |= with_curve(known, scored, _rule(rule))
    if as_json:
        print_json(result)
        return
    print(f"{known.title}: {headline(result):.2f}")
    for subset, value in result.get("subset_score", {}).items():
        print(f"  {subset} {value:.2f}")
    for k, value in result.get("macro_accuracy_by_k", {}).items():
        print(f"  k = {k}: {value:.2f}")
    if "runs" in result:
        accuracies = [run["macro_accuracy"] for run in result["runs"]]
        print(f"  {len(accuracies)} splits, {min(accuracies):.2f} to {max(accuracies):.2f}, k = {result['k']}")
    if curve:
        print(f"  area over the train share {result['area']:.2f} ({result['rule']})")


def report(
    runs: Annotated[Path, typer.Argument(help="Folder of runs MODEL/SET, written by `fisher-edge rmis embed`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write the report into: HTML, Markdown and plots.")],
    rule: RuleName = "simpson",
    as_json: AsJson = False,
) -> None:
    """Score every run and write the RMIS table with its means, the published rows, and plots.

    Example: fisher-edge rmis report runs --out report
    """
    require("rmis", *PACKAGES)
    from fisher_bench.rmis.report.full import write_full_report

    with _progress() as follow:
        rows, markdown, page = write_full_report(runs, out, _rule(rule), lambda name: follow(f"scoring {name}", 0, 1))
    _print_rows(rows, markdown, page, as_json=as_json)


def mini(
    data_dir: Annotated[Path, typer.Argument(help="Folder of datasets, each with its recordings and a meta.csv.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the report, the segments and the embeddings.")],
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Encoder to add to the usual ones; may be repeated.")
    ] = None,
    only: Annotated[bool, typer.Option("--only", help="Compare only the encoders given by --model.")] = False,
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", help="Dataset; may be repeated (default: all).")
    ] = None,
    workers: Workers = 1,
    as_json: AsJson = False,
) -> None:
    """Run the same protocol on small sets of other machines, with every encoder that runs here, and write the report.

    Example: fisher-edge rmis mini recordings/ --model train/checkpoints/nano --out mini
    """
    require("rmis", *PACKAGES)
    from fisher_bench.rmis.mini import MODALITIES, MODELS, run_mini

    models = [*(() if only else MODELS), *(model or ())]
    if not models:
        raise UsageError("--only needs at least one --model; name the encoders to compare")
    unknown = [name for name in dataset or () if name not in MODALITIES]
    if unknown:
        raise UsageError(f"--dataset {unknown[0]} is not known; use {', '.join(MODALITIES)}")
    if not data_dir.is_dir():
        raise BadInputError(f"{data_dir} is not a folder; give the folder that holds the datasets")
    with _progress() as follow:
        rows, markdown, page = run_mini(
            data_dir, out, models, datasets=dataset or tuple(MODALITIES), workers=workers, report=follow
        )
    _print_rows(rows, markdown, page, as_json=as_json)


def _rule(name: str) -> Any:
    if name not in {"simpson", "trapezoid"}:
        raise UsageError(f"--rule {name} is not known; use simpson or trapezoid")
    return name


def _print_rows(rows: "list[Row]", markdown: Path, page: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "rows": [
                    {"model": row.model, "source": row.source, "parameters": row.parameters, "scores": row.scores}
                    | {"means": row.means, "cpu_ms_per_signal_s": row.cpu_ms}
                    for row in rows
                ],
                "markdown": str(markdown),
                "html": str(page),
            }
        )
        return
    for row in rows:
        means = ", ".join(f"{name} {value:.2f}" for name, value in row.means.items())
        print(f"{row.model} ({row.source}): {means}")
    print(f"{page}\n{markdown}")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar if standard error is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), disable=not sys.stderr.isatty()) as bar:
        tasks: dict[str, Any] = {}

        def follow(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield follow
