"""Fingerprints of yesterday: a run is found again by them, so no change of the code may change one."""

import pytest

from losslab.config.identity import ADDED_LATER, LATER_OF_CLASS, fingerprint, with_later

INPUTS = {"data.corpus": "c" * 64}
AS_BEFORE: list[str] = ["trainer.interim_eval_tokens=0", "data.rules=1"]
"""Overrides that give back the results of before, for keys whose default has changed since."""
TEXT_INPUTS = {"data.path": "d" * 64}
PINNED = {
    "seed=1": "27f8590d58aca3fd72b43ba7",
    "seed=2 loss=square": "82780acadbe1bee60c485d44",
    "loss=focal loss.gamma=1.5": "de49924cd2787e1dcbfe31dd",
    "loss=kl_divergence loss.label_smoothing=0.2": "de934f661a92fd190201563a",
    "loss=gaussian_nll": "fb591c7cd40895a3d98a4773",
    "loss=sum loss@loss.first=cross_entropy loss@loss.second=focal": "ca546b32f7a91dddde4380a5",
    "loss=cross_entropy regularizers.z_loss=1e-4": "c5731917dad82cdd40705ae1",
    "model/size=micro model.dropout=0.1 optimizer.lr=1e-3": "d9807bca7120695e85748b65",
    "data=text data.path=book.txt": "7cea43b981d1def333e3e58f",
    "data=text data.path=book.txt data.documents=block data.tokenizer=bytes": "8dda48581833ca3470a7014d",
    "trainer.max_tokens=1000000 scheduler=constant": "e10c5a910b505892768abf23",
    "trainer.precision=bf16-mixed trainer.gradient_clip_val=null": "c459d40d609be3bacd7c615d",
    "trainer=ddp trainer.devices=2 trainer.max_steps=7": "76947cdd5498f72430fb884f",
    "loss=distillation loss.teacher=outputs/runs/a": "6d07d8d25161b724ed9e7d1b",
    "loss=distillation loss.teacher=outputs/runs/a loss.temperature=4 seed=3": "255ab310ddc9c1d84b7f7b91",
    "checkpoints.every_n_steps=20": "27f8590d58aca3fd72b43ba7",
    "task=classification data=csv data.path=a.csv": "3517f9ed3d85177c967d6281",
    "task=classification data=jsonl data.path=a.jsonl data.val_path=b.jsonl data.tokenizer=bpe": (
        "79ac592f8e08b15f53cba8dc"
    ),
    "loss=entmax data.vocab_size=512 data.batch_size=64": "0010c64edb3659b46d349fca",
    "loss=sum loss@loss.first=cross_entropy loss@loss.second=entmax": "d856bb35e1a1f1ec95ca6188",
    "loss=class_balanced loss@loss.inner=entmax": "e7cfdfa97538b237ff89fe7a",
}


@pytest.mark.parametrize("typed", PINNED)
def test_a_fingerprint_stays_as_it_is(typed: str, settle) -> None:
    inputs = TEXT_INPUTS if "data.path" in typed else INPUTS
    if "data.val_path" in typed:
        inputs = {**inputs, "data.val_path": "e" * 64}
    if "loss.teacher" in typed:
        inputs = {**inputs, "loss.teacher": "e" * 64}
    assert fingerprint(settle(*typed.split(), *AS_BEFORE), inputs).startswith(PINNED[typed])


@pytest.mark.parametrize("section", ["model", "task"])
def test_a_key_of_ones_own_class_always_counts(section: str, settle) -> None:
    """It may be older than the key of that name that our class has got since."""
    config = settle(*AS_BEFORE)
    config[section] = {"_target_": "own.Class", "window": None, "pooling": "mean"}
    without = {**config, section: {"_target_": "own.Class"}}
    assert fingerprint(config, INPUTS) != fingerprint(without, INPUTS)


@pytest.mark.parametrize("key", ADDED_LATER)
def test_a_key_added_later_counts_once_it_holds_another_value(key: str, settle) -> None:
    config = settle(*AS_BEFORE)
    before = fingerprint(config, INPUTS)
    *sections, last = key.split(".")
    holder = config
    for section in sections:
        holder[section] = holder.get(section) or {}
        holder = holder[section]
    holder[last] = "another value"
    assert fingerprint(config, INPUTS) != before


@pytest.mark.parametrize("target", LATER_OF_CLASS)
def test_a_key_that_a_class_got_later_counts_with_another_value_and_is_filled_in(target: str, settle) -> None:
    config, keys = settle(*AS_BEFORE), LATER_OF_CLASS[target]
    before = fingerprint({**config, "loss": {"_target_": target}}, INPUTS)
    assert fingerprint({**config, "loss": {"_target_": target, **keys}}, INPUTS) == before
    assert with_later({"first": {"_target_": target}}) == {"first": {"_target_": target, **keys}}
    for key in keys:
        node = {"_target_": target, **keys, key: "another value"}
        assert fingerprint({**config, "loss": node}, INPUTS) != before
        assert with_later({"loss": node})["loss"] == node
    others = [{"_target_": "own.Class"}, {"_target_": "own.Class", **keys}]
    assert len({fingerprint({**config, "loss": node}, INPUTS) for node in others}) == 2


def test_a_section_added_later_counts_for_nothing_while_all_of_it_is_off(settle) -> None:
    config = settle("task=classification", "data=csv", "data.path=rows.csv", "data.context=64")
    found = {fingerprint(config, TEXT_INPUTS)}
    for augment in (None, {}, {"deletion": 0.0}):
        found.add(fingerprint({**config, "data": {**config["data"], "augment": augment}}, TEXT_INPUTS))
    found.add(fingerprint({**config, "data": {k: v for k, v in config["data"].items() if k != "augment"}}, TEXT_INPUTS))
    assert len(found) == 1
