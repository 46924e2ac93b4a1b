"""The program of scripts/benchmark: the same multirun under our launcher and under Hydra's basic one, in turns; or,
asked for

    compare       the time that losslab compare takes (benchmark_compare.py)
    scoring       the time of scoring beside the product of hidden states and projection (benchmark_scoring.py)
    warm_cache    the start of a run on a large text (benchmark_warm_cache.py)
    tokenise      the first preparation of one (benchmark_tokenise.py)
    padding       rows a second in steps by length (benchmark_padding.py)
    statistics    how often the comparison errs (benchmark_statistics.py)
    sequential    errors and seeds of sweeps that stop by themselves (benchmark_sequential.py)
    plan          how often the seeds that losslab plan asks for suffice (benchmark_plan.py)
    noise         where the noise of runs comes from, and what a claim costs (benchmark_noise.py)
    other_loops   memory and time of our losses in models of transformers (benchmark_other_loops.py)
    step          training steps beside those of peers (benchmark_step.py)
    heads         every loss beside its matrix products (benchmark_heads.py)
    loop          drift, start-up and busy cores (benchmark_loop.py)
    scaling       costs against tokens, vocabulary, width and length (benchmark_scaling.py)

Wall time is that of the whole command, imports included. The basic launcher trains one run after the other, with all
cores, in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import benchmark_compare
import benchmark_noise
import benchmark_padding
import benchmark_plan
import benchmark_scoring
import benchmark_sequential
import benchmark_statistics
import benchmark_tokenise
import benchmark_warm_cache

from losslab.data.python_docs import read_texts

LAUNCHERS = ("basic", "local")
CHARACTERS = 400_000
"""Characters of the built-in corpus: enough to train on, little enough to validate on at every size."""


@dataclass(frozen=True)
class Sweep:
    """A multirun of one model size."""

    size: str
    losses: str
    seeds: str
    steps: int
    batch_size: int = 16

    @property
    def runs(self) -> int:
        return len(self.losses.split(",")) * len(self.seeds.split(","))

    def overrides(self, name: str) -> list[str]:
        return [
            "data=text",
            "data.path=text.txt",
            "data.vocab_size=2048",
            f"data.batch_size={self.batch_size}",
            f"model/size={self.size}",
            f"loss={self.losses}",
            f"seed={self.seeds}",
            f"trainer.max_steps={self.steps}",
            f"trainer.val_check_interval={self.steps}",
            f"name={name}",
        ]


THREE = "cross_entropy,kl_divergence,square"
SWEEPS = [
    Sweep("nano", THREE, "1,2,3", steps=100),
    Sweep("micro", THREE, "1,2", steps=10),
    Sweep("small", "cross_entropy,square", "1,2", steps=3),
]


def run(sweep: Sweep, launcher: str, folder: Path, name: str) -> float:
    """Seconds that the command takes."""
    command = [sys.executable, "-m", "losslab", "train", "-m", f"hydra/launcher={launcher}", *sweep.overrides(name)]
    started = time.monotonic()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def first_steps(folder: Path) -> list[float]:
    """Seconds from each run's start to its first optimizer step, in the order of their starts; not of the first."""
    timings = [json.loads(path.read_text())["timing"] for path in folder.glob("*/run.json")]
    return [timing["first_step"] for timing in sorted(timings, key=lambda timing: timing["started"])[1:]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/benchmark", description=__doc__)
    kinds = [
        "sweeps",
        "compare",
        "scoring",
        "statistics",
        "sequential",
        "plan",
        "noise",
        "warm_cache",
        "other_loops",
        "padding",
        "tokenise",
    ]
    kinds += ["step", "heads", "loop", "scaling"]
    parser.add_argument("what", nargs="?", choices=kinds, default="sweeps")
    parser.add_argument("--rounds", type=int, default=2, help="of each size; the median ratio counts")
    parser.add_argument("--sizes", default="nano,micro,small")
    parser.add_argument(
        "--megabytes", type=int, default=benchmark_warm_cache.DEFAULT, help="of text, for warm_cache and tokenise"
    )
    parser.add_argument("--rows", action="store_true", help="of tokenise: tables instead of a text")
    parser.add_argument(
        "--families", type=int, default=benchmark_statistics.ENOUGH, help="of losses, for statistics and sequential"
    )
    parser.add_argument("--pilots", type=int, default=benchmark_plan.PILOTS, help="of each setting, for plan")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of step, heads, scaling, loop and scoring")
    parser.add_argument("--vocab", default="8192,50304", help="of step and heads: numbers of outputs")
    parser.add_argument("--only", default="", help="of step, heads, loop and scaling: parts whose names hold a word")
    parser.add_argument("--json", type=Path, help="of those: a file to write the figures to")
    parser.add_argument("--data", nargs="*", default=[], help="of padding: words of losslab train, with batch_tokens")
    parser.add_argument("--folder", type=Path, help="of noise: where its multiruns live")
    parser.add_argument("--seeds", type=int, default=12, help="of noise: for each source, and each loss of a text")
    parser.add_argument("--texts", nargs="*", type=Path, default=[], help="of noise: files beside the built-in corpus")
    parser.add_argument("--dropout", type=float, default=0.1, help="of noise: of the runs by stream; 0: without it")
    parser.add_argument("--with", nargs="*", default=[], dest="words", help="of noise: further words of losslab train")
    parser.add_argument("--publish", action="store_true", help="of noise: write quickstart's figures for losslab plan")
    arguments = parser.parse_args()
    if arguments.what == "noise":
        if arguments.folder is None:
            parser.error("noise needs --folder FOLDER, where its multiruns live and go on")
        options = {"dropout": arguments.dropout, "more": arguments.words, "publish": arguments.publish}
        sys.exit(benchmark_noise.main(arguments.folder, arguments.seeds, arguments.texts, **options))
    if arguments.what == "compare":
        benchmark_compare.main()
        return
    if arguments.what == "padding":
        benchmark_padding.main(arguments.rounds, arguments.data)
        return
    if arguments.what == "scoring":
        benchmark_scoring.main(arguments.rounds, threads=arguments.threads, path=arguments.json)
        return
    if arguments.what == "warm_cache":
        sys.exit(benchmark_warm_cache.main(arguments.megabytes, arguments.rounds))
    if arguments.what == "tokenise":
        sys.exit(benchmark_tokenise.main(arguments.megabytes, rows=arguments.rows))
    if arguments.what == "other_loops":
        import benchmark_other_loops  # transformers takes seconds to import

        benchmark_other_loops.main(arguments.rounds)
        return
    if arguments.what == "plan":
        sys.exit(benchmark_plan.main(arguments.pilots))
    if arguments.what in ("step", "heads", "loop", "scaling"):
        _speed(arguments)
        return
    if arguments.what == "statistics":
        sys.exit(benchmark_statistics.main(arguments.families))
    if arguments.what == "sequential":
        sys.exit(benchmark_sequential.main(arguments.families))
    print(f"{os.cpu_count()} cores; {arguments.rounds} round(s); wall seconds of the same runs, and their ratio")
    print(f"{'size':<8}{'runs':>5}{'steps':>6}{'basic':>9}{'local':>9}{'local/basic':>13}", flush=True)
    waits: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        text = "\n\n".join(read_texts())[:CHARACTERS]
        (folder / "text.txt").write_text(text, encoding="utf-8")
        for sweep in (sweep for sweep in SWEEPS if sweep.size in arguments.sizes.split(",")):
            run(Sweep(sweep.size, "square", "1", steps=1), "basic", folder, "warm")  # the text is tokenised once
            seconds: dict[str, list[float]] = {launcher: [] for launcher in LAUNCHERS}
            for i in range(arguments.rounds):
                for launcher in LAUNCHERS if i % 2 else reversed(LAUNCHERS):
                    name = f"{sweep.size}-{launcher}-{i}"
                    seconds[launcher].append(run(sweep, launcher, folder, name))
                waits += first_steps(folder / "outputs" / f"{sweep.size}-local-{i}") if sweep.size == "nano" else []
            basic, local = (statistics.median(seconds[launcher]) for launcher in LAUNCHERS)
            ratio = statistics.median(b / a for a, b in zip(*seconds.values(), strict=True))
            print(f"{sweep.size:<8}{sweep.runs:>5}{sweep.steps:>6}{basic:>9.1f}{local:>9.1f}{ratio:>13.2f}", flush=True)
    if waits:
        print(
            f"first step of a job after the first (nano): median {statistics.median(waits):.2f} s, "
            f"slowest {max(waits):.2f} s after its start"
        )


def _speed(arguments: argparse.Namespace) -> None:
    """The parts that import torch, which takes seconds."""
    given = {"threads": arguments.threads, "only": arguments.only, "json": arguments.json}
    vocabularies = [int(size) for size in arguments.vocab.split(",")]
    if arguments.what == "step":
        import benchmark_step

        benchmark_step.main(arguments.rounds, vocabularies=vocabularies, **given)
    elif arguments.what == "heads":
        import benchmark_heads

        benchmark_heads.main(arguments.rounds, vocabularies=vocabularies, **given)
    elif arguments.what == "loop":
        import benchmark_loop

        benchmark_loop.main(arguments.rounds, **given)
    else:
        import benchmark_scaling

        benchmark_scaling.main(arguments.rounds, **given)


if __name__ == "__main__":
    main()
