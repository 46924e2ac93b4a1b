"""scripts/faults, in small."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

FAULTS = Path(__file__).parent


def test_killed_runs_lose_nothing() -> None:
    process = subprocess.run(
        [sys.executable, str(FAULTS / "kill_many.py"), "--kills", "4", "--seed", "1"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(FAULTS.parent), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert len(re.findall(r"^kill +\d+  run-", process.stdout, re.MULTILINE)) == 4
    assert process.stdout.endswith("\nkills 4  survived 4  lost 0\n")
    assert "bit for bit" in process.stdout
