"""Speed as ratios measured side by side, and how often the statistics err. Without KIND it is sweeps."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from importlib import import_module

from losslab.errors import UserError

KINDS = {
    "sweeps": "a multirun by our launcher and by Hydra's basic one",
    "compare": "time and memory of losslab compare",
    "scoring": "a validation's scores beside their matrix product",
    "warm_cache": "the start of a run on a text that was tokenised before",
    "tokenise": "a first preparation, and one that is killed and goes on",
    "padding": "steps of rows of similar length beside rows at random",
    "other_loops": "our losses in models of transformers: memory and time",
    "step": "a training step beside those of peers",
    "heads": "every loss beside its matrix products",
    "loop": "start-up, busy cores, and speed that drifts",
    "scaling": "costs against tokens, vocabulary, width, length and runs",
    "statistics": "how often the comparison errs",
    "sequential": "errors and seeds of sweeps that stop by themselves",
    "plan": "whether the seeds that losslab plan asks for suffice",
    "noise": "where the noise of runs comes from; the cost of a claim",
    "many": "many small runs on one device: slots, graphs, one batched model",
}
"""Kind, which is benchmarks/KIND.py → its line. Many of those files import torch, and take seconds."""


def make_parser(kinds: Collection[str]) -> argparse.ArgumentParser:
    """The parser that lists every kind, and has the options of these."""
    lines = "\n".join(f"  {kind:<13}{line}" for kind, line in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="scripts/benchmark",
        usage="scripts/benchmark [KIND] [options]",
        description=f"{__doc__}\n\nkinds:\n{lines}\n\nscripts/benchmark KIND --help: the options of a kind",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(
        dest="kind", prog="scripts/benchmark", metavar="KIND", help=argparse.SUPPRESS, required=True
    )
    for kind in KINDS:
        own = commands.add_parser(kind, formatter_class=argparse.RawDescriptionHelpFormatter)
        own.set_defaults(refuse=own.error)
        if kind in kinds:
            module = import_module(f"benchmarks.{kind}")
            own.description = module.__doc__
            module.add_arguments(own)
    return parser


def main(words: Sequence[str]) -> int:
    """The exit code of the kind that the words ask for."""
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words = ["sweeps", *words]
    arguments, unknown = make_parser(words[:1]).parse_known_args(words)
    if unknown:  # parse_args would show the usage of the whole
        arguments.refuse(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        code: int = import_module(f"benchmarks.{arguments.kind}").main(arguments)
    except UserError as error:
        print(f"scripts/benchmark {arguments.kind}: {error}", file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
