"""A stream with a seed of its own changes what it draws and nothing else; a twin changes weights by a millionth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_network import INFO
from torch import Tensor

from losslab.config.binding import bind_components
from losslab.config.check import check_run, resolve_budget, resolve_split
from losslab.config.compose import compose_plain
from losslab.run_folder import RunFolder
from losslab.training.factory import build_network, open_data
from losslab.training.origins.twin import SIZE, make_twin
from runs import only_run

SMALL = ["model.num_layers=1", "model.width=16", "model.context=16"]
UNTIED = ["model.tie_embeddings=false", "loss=harmonic"]


def config_of(*words: str) -> dict:
    return resolve_split(resolve_budget(bind_components(check_run(compose_plain([*SMALL, *words])))))


def weights(*words: str) -> dict[str, Tensor]:
    config = config_of(*words)
    network = build_network(config, INFO)
    make_twin(network, config)
    return {name: value.clone() for name, value in network.named_parameters()}


@pytest.mark.parametrize(
    ("stream", "parts"),
    [
        ("backbone_init", {"backbone"}),
        ("head_init", {"projection"}),
        *((stream, set()) for stream in ("data_order", "dropout", "loss", "callbacks")),
    ],
)
def test_initial_weights_follow_their_stream_alone(stream: str, parts: set[str]) -> None:
    plain, apart, other = (weights(*UNTIED, *own) for own in (["seed=1"], [f"seeds.{stream}=2"], ["seed=2"]))
    changed = {name for name in plain if not torch.equal(plain[name], apart[name])}
    assert {name.partition(".")[0] for name in changed} == parts
    assert all(torch.equal(apart[name], other[name]) for name in changed)


def test_a_twin_has_every_weight_changed_by_a_millionth_and_another_twin_by_another() -> None:
    plain, *twins = (weights(*own) for own in ([], ["seeds.twin=1"], ["seeds.twin=2"], ["seed=1", "seeds.twin=1"]))
    assert all(torch.equal(twins[0][name], twins[2][name]) for name in plain)
    drawn = torch.cat([((twins[0][name] - weight) / weight)[weight != 0].double() for name, weight in plain.items()])
    assert drawn.std().item() == pytest.approx(SIZE, rel=0.1)
    assert abs(drawn.mean().item()) < 4 * SIZE / len(drawn) ** 0.5
    assert not any(torch.equal(twins[0][name], twins[1][name]) for name in plain)


def test_twins_of_all_losses_are_changed_alike() -> None:
    one, other = weights("seeds.twin=1"), weights("seeds.twin=1", "loss=square")
    common = {name for name in one if name.startswith("backbone.")}
    assert common == {name for name in other if name.startswith("backbone.")}
    assert all(torch.equal(one[name], other[name]) for name in common)


def test_runs_follow_their_streams_and_the_record_says_so(run_tiny: Callable[..., int]) -> None:
    found = {}
    for name, words in {"plain": [], "dropout": ["seeds.dropout=2"], "twin": ["seeds.twin=1"]}.items():
        assert run_tiny("model.dropout=0.1", *words, f"name={name}") == 0
        folder, record = only_run(Path("outputs") / name)
        found[name] = record.hashes, record.metrics["final"], (folder / "config.yaml").read_text()
    hashes = {name: (own["backbone_init"], own["batches"]) for name, (own, _, _) in found.items()}
    assert hashes["dropout"] == hashes["plain"]
    assert hashes["twin"][1] == hashes["plain"][1]
    assert hashes["twin"][0] != hashes["plain"][0]
    assert len({repr(final) for _, final, _ in found.values()}) == len(found)
    assert "dropout: 2" in found["dropout"][2]
    assert "twin: 1" in found["twin"][2]


def test_batches_follow_the_stream_of_the_data_order(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("".join(f"line {i} of a text\n\n" for i in range(4000)))
    data = [
        "data=text",
        "data.documents=block",
        f"data.path={tmp_path / 'text.txt'}",
        "data.tokenizer=bytes",
        f"output_dir={tmp_path}",
    ]

    def batches(*words: str) -> str:
        config = config_of(*data, *words)
        run = RunFolder(tmp_path / "sweep" / "run")
        return open_data(run, config).hash_batches(3)

    plain, apart, other = batches("seed=1"), batches("seeds.data_order=2"), batches("seed=2")
    assert apart == other != plain
