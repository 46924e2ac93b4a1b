"""A person's own loss and yaml, outside the package; and the wheel, away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from losslab.commands.resume import resume
from losslab.errors import UserError
from runs import TINY, losslab, only_run

OWN_LOSS = '''
from losslab.losses.base import Loss


class Poly1(Loss):
    """Cross-entropy + epsilon * (1 - p_y) (Leng et al. 2022, arXiv:2204.12511)."""

    def __init__(self, *, epsilon: float = 1.0):
        super().__init__()
        self.epsilon = epsilon

    def position_loss(self, logits, target):
        log_p_y = logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]
        return -log_p_y + self.epsilon * (1 - log_p_y.exp())
'''
OWN = ["--config-dir", "my_conf", "loss=own_poly1", "loss.epsilon=2", "trainer.max_steps=2"]


def write_own_loss(folder: Path) -> None:
    (folder / "my_conf/loss").mkdir(parents=True)
    (folder / "my_conf/loss/own_poly1.yaml").write_text("_target_: my_losses.Poly1\nepsilon: 1.0\n")
    (folder / "my_losses.py").write_text(OWN_LOSS)


def test_an_own_loss_trains_by_name_and_its_folder_is_not_trusted(
    run_tiny: Callable[..., int], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "my_losses", raising=False)
    write_own_loss(workplace)
    assert run_tiny(*OWN) == 0
    run, record = only_run(Path("outputs/runs"))
    assert run.name.startswith("own_poly1-seed1-epsilon=2")
    assert record.provenance["choices"]["loss"] == "own_poly1"
    with pytest.raises(UserError, match=r"--trust my_losses\.Poly1"):
        resume(run, [], [])
    assert resume(run, ["my_losses.Poly1"], []) == 0


def test_an_own_file_with_a_shipped_name_is_refused_by_name(workplace: Path) -> None:
    (workplace / "my_conf/loss").mkdir(parents=True)
    (workplace / "my_conf/loss/square.yaml").write_text("_target_: my_losses.Poly1\n")
    process = losslab("train", "--config-dir", "my_conf", cwd=workplace)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "square.yaml" in output and "rename it" in output


def test_the_wheel_writes_a_project_and_trains_its_loss(workplace: Path) -> None:
    checkout = Path(__file__).parents[2]
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(workplace / "dist")]
    subprocess.run([*build, str(checkout)], check=True, capture_output=True, timeout=120)
    (wheel,) = (workplace / "dist").glob("losslab-*.whl")
    site = workplace / "site"
    zipfile.ZipFile(wheel).extractall(site)
    shipped = {path.relative_to(site / "losslab/conf") for path in (site / "losslab/conf").rglob("*.yaml")}
    assert shipped == {path.relative_to(checkout / "conf") for path in (checkout / "conf").rglob("*.yaml")}
    package = checkout / "src/losslab"
    sources = {path.relative_to(package) for path in package.rglob("*.*") if "__pycache__" not in path.parts}
    assert {path.suffix for path in sources} >= {".py", ".css", ".js", ".in", ".typed"}
    assert {path for path in sources if not (site / "losslab" / path).is_file()} == set()
    environment = os.environ | {"PYTHONPATH": str(site)}
    made, trained = (
        subprocess.run(
            [sys.executable, "-m", "losslab", *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        for folder, words in (
            (workplace, ["new", "mine"]),
            (workplace / "mine", ["train", *TINY, "data.path=../book.txt", "--config-dir=conf", "loss=taylor"]),
        )
    )
    assert made.returncode == trained.returncode == 0, made.stderr + trained.stdout + trained.stderr
    run, _ = only_run(workplace / "mine/outputs/runs")
    assert "mine.losses.Taylor" in (run / "config.yaml").read_text()
