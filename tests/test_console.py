"""Output whose reader has gone."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

SAYS = (
    "import sys; from losslab import console; input(); console.say('a'); console.say('b'); sys.stderr.write('goes on')"
)


def test_a_program_whose_terminal_was_closed_goes_on_in_silence() -> None:
    terminal, output = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SAYS], stdin=subprocess.PIPE, stdout=output, stderr=subprocess.PIPE, text=True
    )
    os.close(output)
    os.close(terminal)
    _, told = process.communicate("\n", timeout=60)
    assert (process.returncode, told) == (0, "goes on")
