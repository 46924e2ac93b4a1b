"""The program losslab, by its name and as python -m losslab."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # -m puts the current folder first, where a person's own yaml.py would replace a library; `train` appends it last.
    del sys.path[0]

from losslab.sweeps.interrupts import end_by_code, ending_at_once


def main() -> None:
    """Import the command line, which takes a moment, and run it."""
    end_by_code()
    with ending_at_once():
        from losslab.cli import main as run
    run()


if __name__ == "__main__":
    main()
