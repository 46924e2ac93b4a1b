"""The entry of every job that gets a process of its own: python -m losslab.training.worker RUN_DIR/config.yaml."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from losslab.config.trust import check_trusted
from losslab.console import complain
from losslab.errors import UserError
from losslab.records import read_config
from losslab.training.ranks import CAUSE
from losslab.training.run import execute


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 for a result (completed, diverged), 1 for a failed or interrupted run, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="losslab.training.worker", description=__doc__)
    parser.add_argument("config", type=Path, help="config.yaml in a run's folder")
    parser.add_argument("--trust", action="append", default=[], help="a class outside losslab that may be imported")
    parsed = parser.parse_args(arguments)
    try:
        check_trusted(read_config(parsed.config.parent), parsed.trust)
        record = execute(parsed.config.parent)
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":  # the others found the same
            complain(str(error))
        return 2
    if record.status == "failed" and os.environ.get("RANK", "0") != "0":
        sys.stderr.write(f"{CAUSE}{os.environ['RANK']}: {record.error}\n")
    return 0 if record.status in ("completed", "diverged") else 1


if __name__ == "__main__":
    sys.exit(main())
