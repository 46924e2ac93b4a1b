"""docs/own_optimizer.md, walked through: its files are written, its commands run."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path

from losslab.commands.train import train
from losslab.records import read, read_config
from runs import TINY, find_runs

PAGE = (Path(__file__).parents[2] / "docs/own_optimizer.md").read_text(encoding="utf-8")
QUICK = [*(option for option in TINY if not option.startswith("scheduler.")), "model.num_layers=2"]


def test_the_page_leads_to_runs_with_groups_with_an_optimizer_and_with_a_schedule(workplace: Path) -> None:
    for block in re.findall(r"```(?:yaml|python)\n(.*?)```", PAGE, re.DOTALL):
        file = workplace / block.partition("\n")[0].removeprefix("# ")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(block))
    commands = re.findall(r"```bash\nlosslab train (.*)\n```", PAGE)
    assert len(commands) == 4
    for number, command in enumerate(commands):
        own = [] if "name=" in command else [f"name={number}"]
        assert train([*QUICK, "trainer.max_steps=4", *shlex.split(command), *own]) == 0

    assert len(find_runs(Path("outputs/optimizers"))) == 4
    (layered,) = find_runs(Path("outputs/1"))
    header, first = (layered / "metrics.csv").read_text().splitlines()[:2]
    row = dict(zip(header.split(","), first.split(","), strict=True))
    rates = {name: float(value) for name, value in row.items() if name.startswith("train/lr")}
    assert rates.keys() == {"train/lr", "train/lr/embedding", "train/lr/first", "train/lr/matrix"}
    assert rates["train/lr"] == rates["train/lr/matrix"] == 1.5 * rates["train/lr/embedding"]
    (lion,) = find_runs(Path("outputs/2"))
    assert read(lion).status == "completed"
    assert read_config(lion)["optimizer"]["betas"] == [0.9, 0.99]
    (one_cycle,) = find_runs(Path("outputs/3"))
    assert read_config(one_cycle)["scheduler"]["total_steps"] == 50
