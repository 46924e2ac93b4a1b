"""The program of scripts/gpu_check: checks that need a device, then costs, as Markdown and JSON with the card's
name."""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from gpu_checks.heads import heads
from gpu_checks.losses import losses_equal_float64
from gpu_checks.runs import compiled_equals_eager, fsdp_equals_one_process, half_precision_trains, resumes_bit_for_bit
from gpu_checks.speed import throughput
from gpu_checks.tools import Section, Sizes, Table
from gpu_checks.waiting import waits_for_no_number
from losslab import __version__

SECTIONS: dict[str, Callable[[Sizes], list[Table]]] = {
    "losses against float64": losses_equal_float64,
    "16-mixed with every loss family": half_precision_trains,
    "resume bit for bit": resumes_bit_for_bit,
    "waiting for numbers": waits_for_no_number,
    "torch.compile": compiled_equals_eager,
    "FSDP2 on one rank": fsdp_equals_one_process,
    "cost of the final loss": heads,
    "training speed": throughput,
}


@dataclass(frozen=True)
class Card:
    name: str
    device: str
    memory_gib: float


def card(dry_run: bool) -> Card:
    if dry_run:
        return Card("CPU (dry run: small sizes, no speeds to quote)", "cpu", 0.0)
    if not torch.cuda.is_available():
        sys.exit("scripts/gpu_check: torch finds no GPU here; --dry-run tries the same, small, on the CPU")
    return Card(torch.cuda.get_device_name(), "cuda", torch.cuda.get_device_properties(0).total_memory / 2**30)


def run(name: str, check: Callable[[Sizes], list[Table]], sizes: Sizes) -> Section:
    """A section; one that fails leaves its traceback, and the others go on."""
    began = time.monotonic()
    try:
        tables, error = check(sizes), ""
    except Exception as found:  # every section is to be tried
        tables, error = [], f"{type(found).__name__}: {found}"
        traceback.print_exc()
    section = Section(name, tables, error, time.monotonic() - began)
    print(section.line(), flush=True)
    return section


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/gpu_check", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="small sizes on the CPU")
    parser.add_argument("--only", action="append", metavar="WORD", help="sections whose name holds WORD")
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu_check"))
    arguments = parser.parse_args()
    chosen = [name for name in SECTIONS if not arguments.only or any(word in name for word in arguments.only)]
    if not chosen:
        parser.error(f"no section is named so: there are {', '.join(SECTIONS)}")
    found = card(arguments.dry_run)
    sizes = Sizes.small() if arguments.dry_run else Sizes.full()
    print(f"{found.name}, torch {torch.__version__}, losslab {__version__}", flush=True)
    sections = [run(name, SECTIONS[name], sizes) for name in chosen]
    arguments.out.mkdir(parents=True, exist_ok=True)
    head = {"card": found.name, "memory_gib": round(found.memory_gib, 1), "torch": torch.__version__}
    head |= {"cuda": torch.version.cuda, "losslab": __version__, "seconds": round(sum(s.seconds for s in sections))}
    content = head | {"sections": [section.plain() for section in sections]}
    (arguments.out / "gpu_check.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    lines = [f"# {found.name}", "", ", ".join(f"{key} {value}" for key, value in head.items() if key != "card"), ""]
    lines += [line for section in sections for line in section.markdown()]
    (arguments.out / "gpu_check.md").write_text("\n".join(lines), encoding="utf-8")
    failed = [section.name for section in sections if section.failed]
    print(
        f"written: {arguments.out}/gpu_check.md and .json; " + (f"FAILED: {', '.join(failed)}" if failed else "passed")
    )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
