"""Commands about components, this installation and runs that are yet to be made. They only dispatch, as those of cli.py
do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from losslab.console import say

tools = typer.Typer()
data = typer.Typer()
tools.add_typer(data, name="data")


@data.callback(invoke_without_command=True)
def data_root(context: typer.Context) -> None:
    """Look at data before anything is trained on it."""
    if context.invoked_subcommand is None:
        say(context.get_help())


@tools.command()
def clean(
    folder: Annotated[Path, typer.Argument(help="A run's folder, a sweep's, or outputs.")],
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Also the best ones of completed runs, and those of pruned ones.")
    ] = False,
    cache: Annotated[bool, typer.Option("--cache", help="Also tokenised texts; the next run rebuilds them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Free the space of what no run needs any more, and say how much."""
    from losslab.commands.clean import clean as run

    raise typer.Exit(run(folder, checkpoints=checkpoints, cache=cache, dry_run=dry_run))


@tools.command()
def plan(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FOLDER | KEY=VALUE…",
            help="A pilot, such as runs of eight seeds; or, before any run, words of losslab train.",
        ),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="A preset of the noise figures, instead of its words.")] = None,
    detect: Annotated[
        float | None, typer.Option(help="The difference to find; default: the metric's margin, such as 0.01 nats.")
    ] = None,
    power: Annotated[float, typer.Option(help="The probability to find it where it is there.")] = 0.8,
    metric: Annotated[str | None, typer.Option(help="Such as test/top1; default: the primary one of test.")] = None,
    baseline: Annotated[str, typer.Option(help="The loss that the others are compared with.")] = "cross_entropy",
    tune: Annotated[str, typer.Option(help="Over what each loss took its best setting, as in compare.")] = "auto",
    where: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only runs with this setting; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """How many seeds? Plan seeds and hours for each loss from a pilot, and print the command."""
    from losslab.commands.plan import plan as run

    code = run(
        words or [], preset=preset, detect=detect, power=power, metric=metric, baseline=baseline, tune=tune,
        where=where or [], as_json=as_json,
    )  # fmt: skip
    raise typer.Exit(code)


@tools.command()
def losses(
    name: Annotated[
        str | None, typer.Argument(help="A name of conf/loss, or a class of yours: my_losses.MyLoss; none: all.")
    ] = None,
    config_dir: Annotated[Path | None, typer.Option(help="The folder of your own yaml files.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List the losses, or show all about one: formula, gradient, when to use it, weaknesses, options."""
    from losslab.commands.trusted import append_current_folder
    from losslab.conformance.cards import run

    append_current_folder()
    raise typer.Exit(run(name, config_dir, as_json=as_json))


@tools.command()
def check(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[loss|model|data|task] NAME",
            help="A name of conf/, or a class of yours: model my_models.MyModel; without the first, a loss.",
        ),
    ],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]…", help="Its options, and what it goes with: task=lm.")
    ] = None,
    config_dir: Annotated[Path | None, typer.Option(help="The folder of your own yaml files.")] = None,
) -> None:
    """Name what is wrong with a loss, model, data set or task, yours or ours: a table of checks; exit code 1 if any
    failed."""
    from losslab.commands.trusted import append_current_folder
    from losslab.conformance.configure import KINDS
    from losslab.conformance.kit import run

    append_current_folder()
    kind, given = (what, words or []) if what in KINDS else ("loss", [what, *(words or [])])
    raise typer.Exit(run(kind, given, config_dir))


@data.command()
def inspect(
    overrides: Annotated[
        list[str], typer.Argument(metavar="data=… [KEY=VALUE]…", help="The data, and the task that it is for.")
    ],
    split: Annotated[str, typer.Option(help="Whose examples are shown.")] = "train",
    examples: Annotated[int, typer.Option(help="How many are shown, of one batch.")] = 3,
    step: Annotated[int, typer.Option(help="The optimizer step, or the batch of another split, from 0.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    config_dir: Annotated[Path | None, typer.Option(help="The folder of your own yaml files.")] = None,
) -> None:
    """Show counts, lengths, labels, duplicates, leaks between splits, and examples as a model reads them."""
    from losslab.commands.inspect_data import inspect_data as run
    from losslab.commands.trusted import append_current_folder

    append_current_folder()
    raise typer.Exit(run(overrides, split=split, examples=examples, step=step, as_json=as_json, config_dir=config_dir))


@tools.command()
def bench(
    overrides: Annotated[
        list[str], typer.Argument(metavar="loss=A,B,… [KEY=VALUE]…", help="The losses, and the shape of a run.")
    ],
    rounds: Annotated[int, typer.Option(help="The losses take turns; medians count.")] = 3,
    config_dir: Annotated[Path | None, typer.Option(help="The folder of your own yaml files.")] = None,
) -> None:
    """Time and memory of losses at the shape of a run: batch_size × context positions, model.width, data.vocab_size."""
    from losslab.commands.trusted import append_current_folder
    from losslab.conformance.bench import bench as run

    append_current_folder()
    raise typer.Exit(run(overrides, rounds=rounds, config_dir=config_dir))


@tools.command()
def doctor(
    folder: Annotated[Path, typer.Argument(help="The folder that runs are to be written to.")] = Path("outputs"),
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show versions, devices, threads, what is optional and missing, and whether bfloat16 and processes work here."""
    from losslab.commands.doctor import doctor as run

    raise typer.Exit(run(folder, as_json=as_json))


@tools.command()
def new(project: Annotated[Path, typer.Argument(help="The folder to make; its package has the same name.")]) -> None:
    """Write a small research project: a loss and a model of its own, an experiment, and tests."""
    from losslab.commands.new import new as run

    raise typer.Exit(run(project))
