"""The identity of a run, and the name of its folder."""

import copy
import functools
import re
import shlex
from typing import Any

import pytest

from losslab.config.binding import bind_components, resolve_tied
from losslab.config.check import check_run
from losslab.config.compose import compose_job, compose_plain
from losslab.config.identity import NOT_IDENTITY, USUAL, fingerprint, flatten, folder_name

INPUTS = {"data.corpus": "c" * 64}
TEXT = ["data=text", "data.path=book.txt"]
TOKENS = 16 * 128
"""Tokens of one optimizer step under the defaults."""
MANY_CHANGES = """
data.vocab_size=512 data.batch_size=64 data.documents=block model.num_layers=3 model.width=32 model.dropout=0.25
model.mlp=swiglu model.norm=layer model.init_std=0.01 optimizer.lr=1e-5 trainer.max_steps=20 trainer.precision=bf16
"""


@pytest.fixture(scope="module")
def identity(settle):
    return lambda *typed, inputs=INPUTS: fingerprint(settle(*typed), inputs)


@pytest.fixture(scope="module")
def default(identity) -> str:
    return identity()


def test_the_identity_is_a_sha256(default) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", default)


def test_spelling_out_the_defaults_is_the_same_run(identity, default) -> None:
    assert default == identity(
        "seed=1",
        "loss=cross_entropy",
        "loss.label_smoothing=0",
        "loss.temperature=1",
        "loss.class_weights=null",
        "model/size=nano",
        "model.dropout=0",
        "optimizer.lr=0.003",
        "optimizer.betas=[0.9,0.95]",
        "+optimizer.amsgrad=false",
        "data.context=128",
        "trainer.precision=32",
        "trainer.gradient_clip_val=1",
    )


@pytest.mark.parametrize(
    "typed",
    [
        ["~loss.label_smoothing"],
        ["trainer.max_steps=1000"],
        ["trainer.val_check_interval=100"],
        [f"trainer.max_tokens={1000 * TOKENS}"],
        [f"trainer.max_tokens={999 * TOKENS + 1}", "trainer.val_check_interval=100"],
    ],
    ids=" ".join,
)
def test_another_spelling_of_a_default_is_the_same_run(typed: list[str], identity, default) -> None:
    assert identity(*typed) == default


@pytest.mark.parametrize(
    "typed",
    [
        ["seed=2"],
        ["loss=square"],
        ["loss=kl_divergence"],
        ["loss.label_smoothing=0.1"],
        ["data.batch_size=8"],
        ["data.vocab_size=2048"],
        ["data.documents=block"],
        ["trainer.precision=bf16-mixed"],
        ["trainer.max_steps=999"],
        [f"trainer.max_tokens={1000 * TOKENS + 1}"],
        ["trainer.val_check_interval=99"],
        ["trainer.gradient_clip_val=0.5"],
        ["trainer.gradient_clip_val=null"],
        ["trainer.deterministic=true"],
        ["optimizer.lr=0.001"],
        ["scheduler=constant"],
        ["scheduler.warmup_steps=21"],
        ["model.dropout=0.1"],
        ["model.context=64"],
        ["model/size=micro"],
    ],
    ids=" ".join,
)
def test_what_changes_the_numbers_is_another_run(typed: list[str], identity, default) -> None:
    assert identity(*typed) != default


@pytest.mark.parametrize("key", NOT_IDENTITY)
def test_what_changes_no_number_is_the_same_run(key: str, settle, default) -> None:
    config = copy.deepcopy(settle())
    section, _, last = key.rpartition(".")
    (config[section] if section else config)[last] = "something else"
    assert fingerprint(config, INPUTS) == default


@pytest.mark.parametrize(
    "typed",
    [
        [
            "name=other",
            "output_dir=/elsewhere",
            "fresh=true",
            "loggers=[tensorboard,csv]",
            "loggers.csv.flush_logs_every_n_steps=2",
        ],
        ["data.num_workers=2", "data.val_batch_size=7", "trainer.micro_batch_size=4"],
        ["trainer.log_every_n_steps=3", "trainer.enable_progress_bar=false", "trainer.threads=1"],
        ["trainer.devices=2", "trainer.num_nodes=2", "trainer.accelerator=gpu", "trainer.strategy=ddp"],
        ["trainer=ddp", "trainer.precision=32-true", "trainer.accumulate_grad_batches=8"],
    ],
    ids=" ".join,
)
def test_where_and_how_fast_it_runs_is_typed_freely(typed: list[str], identity, default) -> None:
    assert identity(*typed) == default


def test_precision_aliases_are_one_precision(identity) -> None:
    assert identity("trainer.precision=bf16") == identity("trainer.precision=bf16-mixed")
    assert identity("trainer.precision=bf16") != identity("trainer.precision=16")


def test_the_content_of_an_input_decides_and_not_its_path(identity) -> None:
    one = identity(*TEXT, inputs={"data.path": "a" * 64})
    assert identity("data=text", "data.path=/moved/book.md", inputs={"data.path": "a" * 64}) == one
    assert identity(*TEXT, inputs={"data.path": "b" * 64}) != one
    with_tokenizer = [
        identity(*TEXT, f"data.tokenizer={path}", inputs={"data.path": "a" * 64, "data.tokenizer": digest * 64})
        for path, digest in (("x.json", "1"), ("y.json", "1"), ("x.json", "2"))
    ]
    assert with_tokenizer[0] == with_tokenizer[1] != with_tokenizer[2]
    assert one not in with_tokenizer


def test_the_identity_leaves_the_configuration_as_it_was(settle) -> None:
    config = settle()
    before = copy.deepcopy(config)
    fingerprint(config, INPUTS)
    assert config == before


def test_the_order_of_keys_does_not_matter(settle, default) -> None:
    config = settle()
    turned = {key: dict(reversed(value.items())) if isinstance(value, dict) else value for key, value in config.items()}
    assert fingerprint(dict(reversed(turned.items())), INPUTS) == default


@functools.cache
def defaults_of(groups: tuple[str, ...]) -> dict[str, Any]:
    return compose_plain(list(groups))


def label(
    *typed: str, groups: tuple[str, ...] = (), loss: str = "cross_entropy", identity: str = "0123456789ab"
) -> str:
    config = bind_components(check_run(compose_plain([*groups, *typed])))
    choices = {"loss": loss} | dict(group.split("=") for group in groups)
    return folder_name(config, resolve_tied(defaults_of(groups)), choices, identity)


@pytest.mark.parametrize(
    ("typed", "groups", "expected"),
    [
        ([], (), "cross_entropy-seed1-0123456789"),
        (["seed=7"], (), "cross_entropy-seed7-0123456789"),
        (["optimizer.lr=0.001"], (), "cross_entropy-seed1-lr=0.001-0123456789"),
        (["optimizer.lr=3e-3"], (), "cross_entropy-seed1-0123456789"),
        (["trainer.max_steps=20"], (), "cross_entropy-seed1-max_steps=20-0123456789"),
        (["trainer.threads=1", "name=x", "loggers=none"], (), "cross_entropy-seed1-0123456789"),
        (["trainer.precision=bf16"], (), "cross_entropy-seed1-precision=bf16-mixed-0123456789"),
        (
            ["continue_from='outputs/a/square-seed1-lr=1-0a1b2c3d4e'"],
            (),
            "cross_entropy-seed1-continue_from=0a1b2c3d4e-0123456789",
        ),
        (["init_from='outputs/a/square-0a1b2c3d4e-2'"], (), "cross_entropy-seed1-init_from=0a1b2c3d4e-0123456789"),
        (
            ["init_from=there/model.safetensors", "seed=2"],
            (),
            "cross_entropy-seed2-init_from=model.safetensors-0123456789",
        ),
        (["loss.gamma=1"], ("loss=focal", "model/size=micro"), "focal-seed1-size=micro-gamma=1.0-0123456789"),
        (["seed=2"], ("task=classification",), "cross_entropy-seed2-task=classification-0123456789"),
        (["data.path='/a b/my $(text)*.txt'"], ("data=text",), "cross_entropy-seed1-path=my_text_.txt-0123456789"),
    ],
)
def test_a_folder_tells_the_differences(typed: list[str], groups: tuple[str, ...], expected: str) -> None:
    assert label(*typed, groups=groups) == expected


@pytest.mark.parametrize(
    "typed",
    [
        ["data.path='/tmp/a & b; rm -rf ~ `x` | y > z.txt'"],
        ["data.path='模型/🙂.txt'"],
        ["loss.class_weights=[0.1,0.2]"],
        ["optimizer.betas=[0.5,0.6]", "optimizer.lr=1e-5", "model.dropout=0.25", "data.batch_size=64"],
        [f"data.path={'very_long_name' * 40}.txt"],
        MANY_CHANGES.split(),
        [f"data.tokenizer={'deep/' * 30}tokenizer.json", "model.width=32", "model.num_layers=3", "model.mlp=swiglu"],
    ],
)
def test_a_folder_name_is_safe_in_a_shell_and_short(typed: list[str]) -> None:
    name = label("data.corpus=null", *typed, groups=("data=text",))
    assert shlex.quote(name) == name or set(re.sub(r"[\w@%+=:,./-]", "", name, flags=re.ASCII)) == set()
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=+-]*", name)
    assert len(name) <= 120
    assert name.startswith("cross_entropy-seed1-")
    assert name.endswith("-0123456789")


def test_the_usual_choices_are_those_of_train_yaml() -> None:
    _, choices = compose_job([])
    assert {group: choices[group] for group in USUAL} == USUAL


@pytest.mark.parametrize(("typed", "tied"), [([], True), (["task=classification", "data=csv", "data.path=a"], False)])
def test_the_task_decides_whether_the_projection_is_tied(typed: list[str], tied: bool, settle) -> None:
    assert settle(*typed)["model"]["tie_embeddings"] is tied
    assert settle(*typed, f"model.tie_embeddings={not tied}")["model"]["tie_embeddings"] is not tied


def test_flatten_gives_dotted_keys() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None, "f": {}}) == {"a.b.c": 1, "a.d": [1, 2], "e": None}
