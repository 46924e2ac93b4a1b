"""Sentences of the report about how the runs were made."""

from pathlib import Path

from made_runs import Sweep, comparison_of, edit_record

from losslab.comparison.output.prose import question
from losslab.comparison.output.protocol import protocol


def test_the_protocol_has_the_vocabulary_the_sizes_and_the_optimizer_that_were_used(sweep: Sweep) -> None:
    for seed in (1, 2):
        changes = {"data.vocab_size": 4096, "scheduler.warmup_steps": 20, "optimizer.weight_decay": 0.1}
        changes |= {"optimizer.amsgrad": False, "model.num_layers": 1}
        folder = sweep.add("cross_entropy", seed, 3.0, changes=changes)
        edit_record(folder, provenance={"choices": {"loss": "cross_entropy"}, "vocab_size": 1000, "parameters": 98765})
    told = " ".join(protocol(comparison_of(sweep)))
    assert "vocabulary 1,000)" in told and "4,096" not in told and "4096" not in told
    assert "Decoder (98,765 parameters: 1 layer, 64 wide, 32 tokens of context)" in told
    assert "Optimizer: AdamW (learning rate 0.003, weight_decay 0.1)" in told
    assert "learning rate schedule: Constant (warmup_steps 20)" in told


def test_a_vocabulary_that_no_record_says_is_not_claimed(sweep: Sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0, changes={"data.vocab_size": 4096})
    assert "(bpe, vocabulary at most 4,096)" in " ".join(protocol(comparison_of(sweep)))


def test_rows_have_no_number_of_tokens_and_the_vocabulary_of_their_text(sweep: Sweep) -> None:
    folder = sweep.add("cross_entropy", 1, 3.0)
    rows = {"rows": {"train": 150, "val": 75, "test": 75}}
    sizes = {"vocab_size": 257, "outputs": 3}
    edit_record(folder, provenance={"choices": {"loss": "cross_entropy"}, **sizes, "text": rows})
    said = " ".join(protocol(comparison_of(sweep)))
    assert "M tokens" not in said and "vocabulary 257)" in said


def test_models_of_several_classes_are_all_named(sweep: Sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    sweep.add("cross_entropy", 1, 3.1, changes={"model._target_": "my_models.GRU"})
    assert " ".join(protocol(comparison_of(sweep))).count("Decoder or GRU (") == 1


def test_a_tokenizer_of_ones_own_has_no_vocabulary_of_losslabs(sweep: Sweep) -> None:
    changes = {"data.vocab_size": 4096, "data.tokenizer": "mine.json"}
    sweep.add("cross_entropy", 1, 3.0, changes=changes, hashes={"tokenizer": "t" * 64})
    told = " ".join(protocol(comparison_of(sweep)))
    assert "(a tokenizer of one's own)" in told and "096" not in told


def test_learning_rates_of_a_sweep_are_all_named(sweep: Sweep) -> None:
    sweep.add_grid("cross_entropy", {0.001: 3.2, 0.01: 3.1, 0.003: 3.0})
    assert "learning rate 0.001 or 0.003 or 0.01" in " ".join(protocol(comparison_of(sweep)))


def test_a_metric_without_another_name_is_named_once(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    table.write_text("loss,seed,accuracy\ncross_entropy,1,0.5\nsquare,1,0.6\n")
    assert question(comparison_of(table, metric="accuracy")) == "Which final loss gives the largest accuracy?"


def test_steps_of_a_budget_of_tokens_have_at_most_so_many_sequences(sweep: Sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0, changes={"data.batch_size": 64, "data.batch_tokens": 768})
    assert "optimizer steps of at most 64 sequences" in " ".join(protocol(comparison_of(sweep)))
