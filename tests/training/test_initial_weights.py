"""`init_from`: which weights are taken, which are not, and that both are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_network import V, make_batch, make_network
from torch import Tensor

import losslab
from losslab.commands.export import export
from losslab.commands.resume import resume
from losslab.data.tokenizer import ByteTokenizer
from losslab.errors import UserError
from losslab.records import read
from losslab.training.origins.initial import Weights, read_weights, take
from losslab.training.origins.origin import hash_tensors
from losslab.training.random import hash_weights
from runs import find_runs, only_run, stopping_after

BYTES = ByteTokenizer().digest()
EMBEDDING, PROJECTION = "backbone.embedding.weight", "projection.weight"


def weights_of(network: torch.nn.Module, *without: str, tokenizer: str | None = BYTES) -> Weights:
    tensors = {name: value.clone() for name, value in network.state_dict().items() if name not in without}
    return Weights(Path("made.safetensors"), tensors, tokenizer)


def test_equal_networks_take_everything() -> None:
    source, network = make_network(seed=7), make_network(seed=0)
    taken = take(network, weights_of(source, PROJECTION), BYTES)
    assert (len(taken.taken), taken.left) == (taken.total, [])
    batch = make_batch()
    assert torch.equal(network.eval()(batch).total, source.eval()(batch).total)


def test_what_differs_in_shape_or_name_is_named_and_stays() -> None:
    source, network = make_network(seed=7, num_layers=1, mlp_width=4), make_network(seed=0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    taken = take(network, weights_of(source, PROJECTION), BYTES)
    kept = {line.partition(" ")[0] for line in taken.left}
    assert "backbone.layers.0.mlp.input.weight [4, 8], here [32, 8]" in taken.left
    assert "backbone.layers.1.mlp.input.weight [32, 8], which is not there" in taken.left
    for name, value in network.state_dict().items():
        expected = before[name] if name in kept else source.state_dict()[name]
        assert torch.equal(value, expected), name


def test_rows_of_tokens_need_the_same_tokenizer() -> None:
    source, network = make_network(seed=7), make_network(seed=0)
    taken = take(network, weights_of(source, PROJECTION, tokenizer="another"), BYTES)
    assert taken.left == [f"{EMBEDDING} [{V}, 8], whose rows are another tokenizer's tokens"]
    assert not torch.equal(network.backbone.embedding.weight, source.backbone.embedding.weight)
    assert not take(network, weights_of(source, PROJECTION, tokenizer=None), BYTES).left


def test_a_projection_of_its_own_begins_as_the_embedding_that_it_was() -> None:
    source, network = make_network(seed=7), make_network(seed=0, tie_embeddings=False)
    assert not take(network, weights_of(source, PROJECTION), BYTES).left
    assert torch.equal(network.projection.weight, source.backbone.embedding.weight)
    batch = make_batch()
    assert torch.equal(network.eval()(batch).total, source.eval()(batch).total)


def test_a_tied_projection_stays_the_embedding() -> None:
    source, network = make_network(seed=7, tie_embeddings=False), make_network(seed=0)
    taken = take(network, weights_of(source), BYTES)
    assert taken.left == [f"{PROJECTION} [{V}, 8], which is tied to the embedding here"]
    assert torch.equal(network.backbone.embedding.weight, source.backbone.embedding.weight)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"transformer.wte.weight": torch.zeros(V, 8)}, "has no weight that fits: it holds transformer.wte.weight"),
        ({EMBEDDING: torch.zeros(V, 9)}, rf"{EMBEDDING} \[{V}, 9\], here \[{V}, 8\]"),
        ({EMBEDDING: torch.full((V, 8), torch.nan)}, f"holds NaN or infinity in {EMBEDDING}"),
    ],
)
def test_weights_that_cannot_serve_are_refused(tensors: dict[str, Tensor], said: str) -> None:
    with pytest.raises(UserError, match=said):
        take(make_network(), Weights(Path("made.safetensors"), tensors, None), BYTES)


def test_a_run_an_export_and_its_file_hold_the_same(
    run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tiny("name=source", "trainer.max_steps=4", "loss=square") == 0
    source, record = only_run(Path("outputs/source"))
    assert export(source, checkpoint="best", output=None, trust=[]) == 0
    places = [source, source / "export", source / "export/model.safetensors", source / "checkpoints/best.ckpt"]
    assert len({hash_tensors(read_weights(str(place)).tensors) for place in places}) == 1
    for place in places:
        assert run_tiny("name=taught", "trainer.max_steps=4", f"init_from={place}") == 0
    folder, taught = only_run(Path("outputs/taught"))
    assert taught.identity != record.identity
    assert taught.hashes["backbone_init"] == hash_weights(losslab.load(source).network.backbone)
    assert taught.provenance["init_from"]["not_taken"] == []
    assert "begins with 8 of its 8 weights from" in capsys.readouterr().out
    assert f"taken: {EMBEDDING} [257, 16]" in (folder / "train.log").read_text()


def test_a_run_that_is_stopped_before_its_first_checkpoint_begins_with_them_again(run_tiny: Callable[..., int]) -> None:
    assert run_tiny("name=source", "trainer.max_steps=4") == 0
    source, _ = only_run(Path("outputs/source"))
    options = ["trainer.max_steps=8", f"init_from={source}", "model.dropout=0.1"]
    assert run_tiny("name=whole", *options) == 0
    with stopping_after(4):
        assert run_tiny("name=stopped", *options) == 1
    stopped, _ = only_run(Path("outputs/stopped"))
    for path in (stopped / "checkpoints").iterdir():
        path.unlink()
    source.rename("elsewhere")
    with pytest.raises(UserError, match="is not there"):
        resume(stopped, [], [])
    assert resume(stopped, [], ["init_from=elsewhere"]) == 0
    assert read(stopped).metrics == only_run(Path("outputs/whole"))[1].metrics
    assert run_tiny("name=whole", *options) == 0, "it is done, and needs them no more"


NO_WEIGHTS = {
    "nowhere": "init_from=nowhere is not there",
    "outputs/source": "holds 1 runs: name one of them",
    "outputs": "is neither a run's folder nor an export",
    "book.txt": "book.txt is neither a .safetensors file nor a checkpoint that can be read",
    "torn.safetensors": "cannot be read as safetensors",
    "other.safetensors": "has no weight that fits: it holds wte [3, 4]; this model has backbone.embedding.weight",
}


def test_a_place_without_weights_is_refused_before_anything_is_planned(
    run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tiny("name=source", "trainer.max_steps=2") == 0
    Path("torn.safetensors").write_bytes(b"xx")
    save_file({"wte": torch.zeros(3, 4)}, "other.safetensors")
    for place, said in NO_WEIGHTS.items():
        capsys.readouterr()
        assert run_tiny("name=taught", f"init_from={place}") == 2
        assert said in capsys.readouterr().err
    assert find_runs(Path("outputs/taught")) == []
