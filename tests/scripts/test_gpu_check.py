"""scripts/gpu_check --dry-run: two of its sections, as a command; each of them is a section of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def gpu_check(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [ROOT / "scripts/gpu_check", *arguments]
    environment = os.environ | {"PYTHON": sys.executable}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_a_dry_run_writes_its_tables(tmp_path: Path) -> None:
    ended = gpu_check("--dry-run", "--only", "float64", "--only", "resume", "--out", str(tmp_path))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1].endswith("passed")
    content = json.loads((tmp_path / "gpu_check.json").read_text())
    assert content["card"].startswith("CPU")
    losses, resume = content["sections"]
    shipped = {path.stem for path in (ROOT / "conf/loss").glob("*.yaml")}
    assert {row[0] for row in losses["tables"][0]["rows"]} == shipped
    assert all(answer == "yes" for _, answer in resume["tables"][0]["rows"])
    assert "| cross_entropy | " in (tmp_path / "gpu_check.md").read_text()


def test_a_machine_without_a_gpu_and_a_wrong_section_are_answered_in_a_sentence(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        assert "torch finds no GPU here; --dry-run" in gpu_check("--out", str(tmp_path)).stderr
    ended = gpu_check("--dry-run", "--only", "speeed", "--out", str(tmp_path))
    assert ended.returncode == 2
    assert "no section is named so" in ended.stderr
