"""python -m losslab: the same program as the console script."""

import sys

if not sys.flags.safe_path:
    # -m puts the current folder first, where a person's own yaml.py would replace a library; `train` appends it last.
    del sys.path[0]

from losslab.cli import main

main()
