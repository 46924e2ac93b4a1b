"""The command line. It only dispatches, and imports what a command needs when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import losslab
from losslab.cli_tools import tools
from losslab.commands.usage import Commands, sentence, stopped, told
from losslab.console import complain, say
from losslab.errors import UserError, error_sentence
from losslab.sweeps.interrupts import NOTHING_STARTED, raising
from losslab.threads import wait_asleep

app = typer.Typer(
    cls=Commands,
    help="Find out, honestly, which final loss a Transformer should be trained on.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_UsageError: Any = typer.BadParameter.__base__  # click's, which typer carries under changing names
RunDir = Annotated[Path, typer.Argument(help="A run's folder.")]
Trust = Annotated[list[str] | None, typer.Option(help="A class outside losslab that this run may import.")]
Checkpoint = Annotated[str, typer.Option(help="best, last or a checkpoint's path.")]
Weights = Annotated[str, typer.Option(help="raw, or ema: the averages that callbacks=ema kept.")]
_PASS_THROUGH: dict[str, Any] = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        say(losslab.__version__)
    elif context.invoked_subcommand is None:
        say(context.get_help())


@app.command(context_settings=_PASS_THROUGH, add_help_option=False)
def train(context: typer.Context) -> None:
    """Train one run, or with -m a multirun: losslab train [-m] [GROUP=CHOICE] [KEY=VALUE] …"""
    with told(NOTHING_STARTED):  # Hydra takes its time
        from losslab.commands.train import train as run

    raise typer.Exit(run(context.args))


@app.command()
def resume(
    run_dir: RunDir,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]…", help="Devices, workers, or where the text lies now: data.path=…"),
    ] = None,
    trust: Trust = None,
) -> None:
    """Continue a run in place, from its last checkpoint."""
    from losslab.commands.resume import resume as run

    raise typer.Exit(run(run_dir, trust or [], overrides or []))


@app.command()
def evaluate(
    run_dir: RunDir,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]…", help="Another text, say: data.path=other.txt")
    ] = None,
    checkpoint: Checkpoint = "best",
    split: Annotated[
        str | None, typer.Option(help="val or test; default: test, and of another text the whole.")
    ] = None,
    trust: Trust = None,
) -> None:
    """Print and record the metrics of a checkpoint, on its own text or on another."""
    from losslab.commands.evaluate import evaluate as run

    code = run(run_dir, checkpoint=checkpoint, split=split, overrides=overrides or [], trust=trust or [])
    raise typer.Exit(code)


@app.command()
def export(
    run_dir: RunDir,
    format: Annotated[str, typer.Option(help="safetensors (losslab's own), transformers or onnx.")] = "safetensors",
    checkpoint: Checkpoint = "best",
    output: Annotated[Path | None, typer.Option(help="Where to write; default: in the run's folder.")] = None,
    weights: Weights = "raw",
    trust: Trust = None,
) -> None:
    """Write a trained network for other programs, with its tokenizer."""
    from losslab.commands.export import export as run

    raise typer.Exit(
        run(run_dir, format=format, checkpoint=checkpoint, output=output, trust=trust or [], weights=weights)
    )


@app.command()
def generate(
    run_dir: RunDir,
    prompt: Annotated[
        str | None, typer.Option(help="The text to continue; default: each line of standard input.")
    ] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="A UTF-8 file with the text to continue.")] = None,
    max_tokens: Annotated[int, typer.Option(help="The longest continuation.")] = 200,
    temperature: Annotated[float, typer.Option(help="0: always the most probable token.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Keep the k most probable tokens; default: all.")] = None,
    top_p: Annotated[float, typer.Option(help="Keep the most probable tokens that have p of the probability.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same samples, however many.")] = 0,
    num_samples: Annotated[int, typer.Option(help="Continuations of each prompt.")] = 1,
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Predict by the temperature of nll_scaled, instead of the loss's way.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
    checkpoint: Checkpoint = "best",
    weights: Weights = "raw",
    trust: Trust = None,
) -> None:
    """Continue a text with a trained language model, or, without one, each line that is typed."""
    from losslab.commands.generate import generate as run

    code = run(
        run_dir, prompt=prompt, prompt_file=prompt_file, max_tokens=max_tokens, temperature=temperature, top_k=top_k,
        top_p=top_p, seed=seed, num_samples=num_samples, calibrated=calibrated, device=device, checkpoint=checkpoint,
        weights=weights, trust=trust or [],
    )  # fmt: skip
    raise typer.Exit(code)


@app.command()
def translate(
    run_dir: RunDir,
    source: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A text, a source a line; none: standard input.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Instead: train, val or test of the run's own data.")] = None,
    to: Annotated[Path | None, typer.Option(help="A file; .jsonl: sources and translations. Default: printed.")] = None,
    beams: Annotated[
        int | None, typer.Option(help="Hypotheses kept at each step, 1: greedy; default: the run's task.beams.")
    ] = None,
    length_penalty: Annotated[
        float | None,
        typer.Option(help="a: a hypothesis of n tokens scores log p / n^a; default: the run's task.length_penalty."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Lines translated at once; changes no line.")] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
    checkpoint: Checkpoint = "best",
    weights: Weights = "raw",
    trust: Trust = None,
) -> None:
    """Translate with a trained model: a line out for each line of a file, a split, standard input, or what is typed."""
    from losslab.commands.translate import Given
    from losslab.commands.translate import translate as run

    code = run(
        run_dir, Given(source, split, to), beams=beams, length_penalty=length_penalty, batch=batch, device=device,
        checkpoint=checkpoint, weights=weights, trust=trust or [],
    )  # fmt: skip
    raise typer.Exit(code)


@app.command()
def predict(
    run_dir: RunDir,
    table: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="Rows, with or without the target's column; none: what is typed, or JSON lines on standard input.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="A .jsonl or .csv; default: JSON lines, printed.")] = None,
    temperature: Annotated[
        str, typer.Option(help="none: the loss's own probabilities; fitted: under the temperature that val fitted.")
    ] = "none",
    top: Annotated[int | None, typer.Option(help="Give the k most probable labels alone; default: all.")] = None,
    checkpoint: Checkpoint = "best",
    weights: Weights = "raw",
    trust: Trust = None,
) -> None:
    """Predict labels, values or texts with a trained model: of a file, of standard input, or of what is typed."""
    from losslab.commands.predict import predict as run

    code = run(
        run_dir, table, output=output, checkpoint=checkpoint, trust=trust or [], temperature=temperature, top=top,
        weights=weights,
    )  # fmt: skip
    raise typer.Exit(code)


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(help="A sweep's folder, such as outputs/first, or outputs.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="On a terminal: look again and again while something runs.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """The ledger: each run's state, step, metric, speed and time left."""
    from losslab.commands.status import status as run

    raise typer.Exit(run(folder, watch=watch, as_json=as_json))


@app.command()
def compare(
    folder: Annotated[
        Path, typer.Argument(help="A folder of runs, such as outputs/first, or a .csv table of results.")
    ],
    baseline: Annotated[
        str | None, typer.Option(help="What the others are compared with; default: cross_entropy, or as seed=auto did.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="A metric such as test/top1; several, each with --metric: one table.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="A difference below it counts as none; default: 0.01 nats, 0.005 of top1, …")
    ] = None,
    weights: Annotated[
        str, typer.Option(help="Of each run: best (its best checkpoint by validation), or last (after its last step).")
    ] = "best",
    tune: Annotated[
        str,
        typer.Option(help="Over what each loss takes its best setting: auto, all, none, or keys: optimizer.lr,…"),
    ] = "auto",
    where: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only runs with this setting; may be repeated.")
    ] = None,
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Several data, budgets, precisions: each on its own; pairs of unequal code.")
    ] = False,
    evaluations: Annotated[
        str | None, typer.Option(metavar="FILE|TEXT", help="What losslab evaluate recorded on another text.")
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option(metavar="LOSS=NAME,…", help="Other names for losses; may be repeated.")
    ] = None,
    order: Annotated[
        str, typer.Option(help="Of the rows: value (the best first), name, or losses with commas between.")
    ] = "value",
    costs: Annotated[
        bool, typer.Option("--costs", help="Measure side by side what a step of each loss costs, and keep it.")
    ] = False,
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="Also every loss beside every other one: a table of its own.")
    ] = False,
    tokens: Annotated[
        tuple[str, str] | None, typer.Option(metavar="LOSS_A LOSS_B", help="Also: on which tokens do these two differ?")
    ] = None,
    layer: Annotated[
        int | None, typer.Option(help="With --tokens: whose attention to show, from 1; default: the last.")
    ] = None,
    trust: Trust = None,
) -> None:
    """Compare losses: a table with intervals, a report, and figures for a paper."""
    from losslab.commands.compare import compare as run

    code = run(
        folder, baseline=baseline, metric=metric or [], margin=margin, tune=tune, where=where or [], mixed=mixed,
        all_pairs=all_pairs, evaluations=evaluations, labels=labels or [], order=order, costs=costs,
        weights=weights, tokens=tokens, layer=layer, trust=trust or [],
    )  # fmt: skip
    raise typer.Exit(code)


app.add_typer(tools)


def main() -> None:
    """Exit code 0, 1 for a failed run, 2 for bad input, which is answered in one sentence."""
    try:
        with raising():
            wait_asleep()
            sys.exit(app(standalone_mode=False))
    except UserError as error:
        complain(str(error))
        sys.exit(2)
    except _UsageError as error:
        complain(sentence(error))
        sys.exit(2)
    except OSError as error:
        complain(error_sentence(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(stopped("interrupted"))
    finally:
        # After a Ctrl-C inside an exec of text, as of a dataclass that is imported, `python -m` ends by SIGINT whatever
        # the exit code, even where it was caught; the next exec resets that.
        exec("")
