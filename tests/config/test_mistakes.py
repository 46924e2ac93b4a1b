"""Every mistake is one sentence that names the nearest right word, before any data is read."""

import re
from pathlib import Path
from typing import Literal

import pytest
import yaml

from losslab.config.binding import bind_components, convert, import_target
from losslab.config.check import check_run
from losslab.config.compose import compose_plain, group_choices
from losslab.config.foreign import _INSTEAD
from losslab.config.jobs import is_multirun, job_overrides, open_multirun
from losslab.config.mistakes import flat_keys, nearest_key
from losslab.config.nearest import nearest
from losslab.config.words import ready
from losslab.errors import UserError

TYPED = [
    # a key that there is not
    ("seeed=3", "there is no key 'seeed': did you mean 'seed'?"),
    ("trainer.max_step=5", "there is no key 'trainer.max_step': did you mean 'trainer.max_steps'?"),
    ("optimiser.lr=1", "there is no key 'optimiser.lr': did you mean 'optimizer.lr'?"),
    ("loss.label_smothing=0.1", "there is no key 'loss.label_smothing': did you mean 'loss.label_smoothing'?"),
    ("+seeed=3", "there is no key 'seeed': did you mean 'seed'?"),
    ("+trainer.max_step=5", "there is no key 'trainer.max_step': did you mean 'trainer.max_steps'?"),
    ("+trainer.foo=1", "there is no key 'trainer.foo': trainer has accelerator, "),
    ("+checkpoints.every=1", "there is no key 'checkpoints.every': checkpoints has every_n_steps"),
    ("~seed", "seed"),
    ("~trainer.precision", "trainer.precision"),
    # the last part of a key alone, and a key of another choice
    ("lr=1", "there is no key 'lr': did you mean 'optimizer.lr'?"),
    ("loss.z_loss=0.01", "there is no key 'loss.z_loss': did you mean 'regularizers.z_loss'?"),
    ("trainer.lr=1", "there is no key 'trainer.lr': did you mean 'optimizer.lr'?"),
    ("context=64", "there is no key 'context': did you mean 'data.context' or 'model.context'?"),
    ("loss.gamma=2", "; focal has loss.gamma"),
    ("+model/size=small", "adds keys of another model to the chosen one"),
    # what other tools call it
    (
        "trainer.min_epochs=3",
        "there is no key 'trainer.min_epochs': a run trains its whole budget: trainer.max_steps=N",
    ),
    ("max_epochs=3", "did you mean 'trainer.max_epochs'?"),
    ("epochs=3", "trainer.max_epochs=N"),
    ("ckpt_path=last.ckpt", "losslab resume RUN_DIR"),
    ("debug=default", "there is no debug named 'default': write debug=fdr"),
    ("callbacks.early_stopping.patience=3", "early_stopping has callbacks.early_stopping.patience"),
    ("callbacks=[erly_stopping]", "did you mean 'early_stopping'"),
    ("trainer.patience=3", "callbacks=early_stopping"),
    ("logger=wandb", "there is no key 'logger': write loggers=tensorboard"),
    ("logger.enabled=false", "there is no key 'logger.enabled': write loggers=tensorboard"),
    ("loggers=comet", "there is no loggers named 'comet': write +loggers.comet._target_=lightning"),
    ("loggers=[csv,tensorbord]", "there is no loggers named 'tensorbord': did you mean 'tensorboard'?"),
    ("loggers.tensorboad._target_=x", "did you mean 'loggers.tensorboard'?"),
    ("gradient_clip_val=1", "did you mean 'trainer.gradient_clip_val'?"),
    ("learning_rate=1e-3", "write optimizer.lr=X"),
    ("per_device_train_batch_size=8", "write data.batch_size=N"),
    ("block_size=64", "write model.context=N"),
    ("model.n_embd=64", "write model.width=N"),
    # Hydra's own folders
    ("hydra.run.dir=here", "hydra.run.dir cannot be changed"),
    # values that the grammar cannot hold
    ("data.path=a,b.txt", """one value with a comma in it is written 'data.path="a,b.txt"'"""),
    ("data.path=x(1).txt", """write 'data.path="x(1).txt"'"""),
    # a file that a group has not
    ("loss=cross_entrpy", "there is no loss named 'cross_entrpy': did you mean 'cross_entropy'?"),
    ("model/size=nanoo", "there is no model/size named 'nanoo': did you mean 'nano'?"),
    ("data=txt", "there is no data named 'txt': did you mean 'text'?"),
    ("experiment=quickstrt", "there is no experiment named 'quickstrt': did you mean 'quickstart'?"),
    ("task=pottery", "there is no task named 'pottery': there are "),
    # a group that there is not
    ("los=square", "there is no key 'los': did you mean 'loss'?"),
    ("modle=decoder", "there is no key 'modle': did you mean 'model'?"),
    ("modle/size=nano", "did you mean 'model/size'?"),
    # a value of another kind
    ("trainer.max_steps=many", "trainer.max_steps must be a whole number, not 'many'"),
    ("seed=1.5", "seed must be a whole number, not '1.5'"),
    ("seed=", "seed must be a whole number, not ''"),
    ("seed=null", "seed must be a whole number"),
    ("trainer.devices=null", "trainer.devices must be a whole number"),
    ("trainer.gradient_clip_val=big", "trainer.gradient_clip_val must be a number, not 'big'"),
    ("fresh=perhaps", "fresh must be true or false, not 'perhaps'"),
    ("trainer.deterministic=7.5", "trainer.deterministic must be true or false, not '7.5'"),
    ("loss=null", "loss"),
    # a value out of its range
    ("trainer.max_steps=-5", "trainer.max_steps must be above 0, not -5"),
    ("trainer.max_steps=0", "trainer.max_steps must be above 0, not 0"),
    ("trainer.max_tokens=-1", "trainer.max_tokens must be above 0, not -1"),
    ("trainer.val_check_interval=0", "trainer.val_check_interval must be above 0, not 0"),
    ("trainer.gradient_clip_val=-1", "trainer.gradient_clip_val must be above 0, not -1"),
    ("trainer.gradient_clip_val=nan", "trainer.gradient_clip_val must be above 0, not nan"),
    ("trainer.r_drop=-1", "trainer.r_drop must be 0 or above and finite, not -1"),
    ("trainer.devices=0", "trainer.devices must be above 0, not 0"),
    ("checkpoints.every_n_steps=0", "checkpoints.every_n_steps must be above 0, not 0"),
    ("seed=-1", "seed must be 0 or above, not -1"),
    ("name=a/b", "name must be a plain folder name, not 'a/b'"),
    ("name=..", "name must be a plain folder name, not '..'"),
    ("name=''", "name must be a plain folder name, not ''"),
    ("name=-m", "name must be a plain folder name, not '-m'"),
    # what Hydra reads as a list, or as a reference
    ("seed=1,2", "seed=1,2 is a list of values: add -m to run them all"),
    ("loss=square,kl_divergence", "loss=square,kl_divergence is a list of values: add -m to run them all"),
    ("loss.label_smoothing=${nothing.here}", "loss.label_smoothing refers to 'nothing.here', and there is no such key"),
    # a component's own keys
    ("+loss.label_smothing=0.1", "there is no key 'loss.label_smothing': did you mean 'loss.label_smoothing'?"),
    ("+optimizer.weight_decya=0.1", "there is no key 'optimizer.weight_decya': did you mean 'optimizer.weight_decay'?"),
    ("+model.vocab_size=9", "there is no key 'model.vocab_size': "),
    ("+optimizer.params=[]", "there is no key 'optimizer.params': "),
    ("model.mlp=gelo", "model.mlp cannot be 'gelo': did you mean 'gelu'?"),
    ("model.mlp=7", "model.mlp must be 'gelu' or 'relu' or 'swiglu', not 7"),
    ("data.documents=auot", "data.documents cannot be 'auot': did you mean 'auto'?"),
    ("model.width=big", "model.width must be a whole number, not 'big'"),
    ("model.width=64.5", "model.width must be a whole number, not 64.5"),
    ("model.width=1e-3", "model.width must be a whole number, not 0.001"),
    ("trainer.max_steps=1e-3", "trainer.max_steps must be a whole number, not '0.001'"),
    ("model.width=true", "model.width must be a whole number, not True"),
    ("model.width=null", "model.width must be a whole number, not "),
    ("loss.label_smoothing=lots", "loss.label_smoothing must be a number, not 'lots'"),
    ("loss.label_smoothing=true", "loss.label_smoothing must be a number, not True"),
    (f"optimizer.lr=1{'0' * 400}", "optimizer.lr must be a number, not 1000"),
    ("loss.class_weights=[1,heavy]", "loss.class_weights must be a list of a number or null, not "),
    ("optimizer.betas=0.9", "optimizer.betas must be a list of a number, not 0.9"),
    ("optimizer.betas=[0.9]", "optimizer.betas must be a list of a number, not [0.9]"),
    ("model.tie_embeddings=perhaps", "model.tie_embeddings must be true or false, not 'perhaps'"),
    ("data.tokenizer=5", "data.tokenizer must be text, not 5"),
    ("~model.width", "model.width is missing: Decoder needs it"),
    # its class
    ("~loss", "loss has no _target_: choose one with loss=…"),
    ("loss._target_=null", "loss has no _target_: choose one with loss=…"),
    ("loss._target_=nowhere.Loss", "loss._target_ 'nowhere.Loss' cannot be imported: No module named 'nowhere'"),
    ("loss._target_=Loss", "loss._target_ must be a dotted path such as my_package.MyLoss, not 'Loss'"),
    ("loss._target_=.mine.Loss", "loss._target_"),
    ("loss._target_=losslab.losses.square.Sqare", "losslab.losses.square has no 'Sqare': did you mean 'Square'?"),
    ("loss._target_=os.getcwd", "loss._target_ 'os.getcwd' is not a class"),
    ("loss._target_=losslab.data", "is not a class"),
]


def check(*typed: str) -> None:
    is_multirun(list(typed))
    bind_components(check_run(compose_plain(list(typed))))


@pytest.mark.parametrize(("typed", "answer"), TYPED, ids=[typed[:40] for typed, _ in TYPED])
def test_a_mistake_is_answered_in_one_sentence(typed: str, answer: str) -> None:
    with pytest.raises(UserError) as caught:
        check(typed)
    message = str(caught.value)
    assert answer in message
    assert "\n" not in message
    assert not re.search(r"hydra\.cc|full_key|object_type|Traceback|Exception|OmegaConf|ConfigAttribute", message)


def test_the_shipped_defaults_have_no_mistake() -> None:
    check()


def test_two_budgets_are_one_too_many() -> None:
    with pytest.raises(UserError, match=r"^give trainer.max_steps or trainer.max_tokens, not both$"):
        check("trainer.max_steps=5", "trainer.max_tokens=500")


def test_a_run_begins_from_one_place() -> None:
    with pytest.raises(UserError, match=r"^give continue_from \(.*\) or init_from \(weights alone\), not both$"):
        check("continue_from=a", "init_from=b")
    for key in ("continue_from", "init_from"):
        with pytest.raises(UserError, match=f"^{key} must be a path, not an empty one$"):
            check(f"{key}=")


@pytest.mark.parametrize(
    ("typed", "answers"),
    [
        (
            ["+seeed=1", "+trainer.foo=1", "seed=-1", "trainer.devices=0", "~task._target_", "name=.x"],
            [
                "'seeed'",
                "'trainer.foo'",
                "seed must be",
                "trainer.devices must be",
                "task has no _target_",
                "name must",
            ],
        ),
        (
            ["+loss.label_smothing=0.1", "model.mlp=gelo", "optimizer.lr=fast", "~model.width", "data.path=5"],
            [
                "'loss.label_smothing'",
                "model.mlp cannot be",
                "optimizer.lr must be",
                "model.width is",
                "data.path must",
            ],
        ),
    ],
    ids=["of the run", "of its components"],
)
def test_all_mistakes_are_told_at_once(typed: list[str], answers: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        check(*typed)
    assert [answer for answer in answers if answer not in str(caught.value)] == []
    assert str(caught.value).count("; ") >= len(answers) - 1


@pytest.mark.parametrize("read", [open_multirun, is_multirun, group_choices])
@pytest.mark.parametrize("typed", ["loss=[", "seed", "loss={a:", "loss='square"])
def test_what_cannot_be_read_is_named_wherever_it_is_read(read, typed: str) -> None:
    with pytest.raises(UserError) as caught:
        read(["seed=1", typed])
    assert typed in str(caught.value)
    assert "hydra.cc" not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("loss=square,sqare", "there is no loss named 'sqare': did you mean 'square'?"),
        ("seed=1,x", "seed must be a whole number, not 'x'"),
        ("sede=1,2", "there is no key 'sede': did you mean 'seed'?"),
    ],
)
def test_a_mistake_in_one_job_is_told_before_the_first(typed: str, answer: str) -> None:
    def compose_all() -> None:
        for job in job_overrides(open_multirun(["trainer.max_steps=2", typed])):
            compose_plain(job)

    with pytest.raises(UserError) as caught:
        compose_all()
    assert answer in str(caught.value)


@pytest.mark.parametrize(
    ("target", "answer"),
    [("os.", "os"), ("..x", "loss._target_"), ("losslab.losses", "losslab"), ("a b.C", "cannot be imported")],
)
def test_odd_targets_are_refused_too(target: str, answer: str) -> None:
    with pytest.raises(UserError) as caught:
        import_target(target, "loss")
    assert answer in str(caught.value)


def test_a_nested_component_is_checked_by_its_own_signature(tmp_path, monkeypatch) -> None:
    (tmp_path / "nested_losses.py").write_text(
        "class Inner:\n    def __init__(self, *, power: int = 2) -> None: ...\n"
        "class Outer:\n    def __init__(self, *, inner: object, share: float) -> None: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = check_run(compose_plain([]))
    inner = {"_target_": "nested_losses.Inner"}
    config["loss"] = {"_target_": "nested_losses.Outer", "inner": inner, "share": 1}
    bound = bind_components(config)["loss"]
    assert bound["inner"] == inner | {"power": 2}
    assert bound["share"] == 1.0
    config["loss"]["inner"] = inner | {"pwoer": 3}
    with pytest.raises(UserError, match=r"there is no key 'loss.inner.pwoer': did you mean 'loss.inner.power'\?"):
        bind_components(config)


def test_a_class_with_open_keywords_or_foreign_types_takes_them(tmp_path, monkeypatch) -> None:
    (tmp_path / "open_losses.py").write_text(
        "from __future__ import annotations\n"
        "class Open:\n    def __init__(self, *, gamma: float = 2.0, **more) -> None: ...\n"
        "class Foreign:\n    def __init__(self, *, size: OnlyForTypeCheckers = 3) -> None: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = check_run(compose_plain([]))
    for node, expected in (
        ({"_target_": "open_losses.Open", "extra": "x"}, {"extra": "x", "gamma": 2.0}),
        ({"_target_": "open_losses.Foreign"}, {"size": 3}),
    ):
        config["loss"] = node
        assert bind_components(config)["loss"] == {"_target_": node["_target_"]} | expected


@pytest.mark.parametrize(
    ("word", "known", "answer"),
    [
        ("sqare", ["square", "hinge"], "did you mean 'square'?"),
        ("xyz", ["square", "hinge"], "there are hinge, square"),
        ("xyz", [], "there are none"),
    ],
)
def test_nearest_names_one_word_or_all(word: str, known: list[str], answer: str) -> None:
    assert nearest(word, known) == answer


@pytest.mark.parametrize(
    "key", ["run.dir=x", "sweep.dir=x", "sweep.subdir=x", "job.chdir=true", "output_subdir=x", "run.dir=${name}"]
)
def test_hydras_own_folders_are_refused_wherever_they_are_set(key: str, tmp_path: Path) -> None:
    name, _, value = key.partition("=")
    for read in (is_multirun, open_multirun):
        with pytest.raises(UserError, match=rf"hydra\.{name} cannot be changed: .* set output_dir=… and name=…"):
            read([f"hydra.{key}"])
    (tmp_path / "experiment").mkdir()
    *sections, last = ["hydra", *name.split(".")]
    content = {last: value == "true" or value}
    for section in reversed(sections):
        content = {section: content}
    (tmp_path / "experiment/own.yaml").write_text("# @package _global_\n" + yaml.safe_dump(content))
    with pytest.raises(UserError, match=rf"hydra\.{name} cannot be changed"):
        is_multirun(["experiment=own"], tmp_path)


def test_true_is_none_of_the_numbers_to_choose_from() -> None:
    mistakes: list[str] = []
    assert convert("loss.order", 2, Literal[1, 2], mistakes) == 2 and not mistakes
    convert("loss.order", True, Literal[1, 2], mistakes)
    assert mistakes == ["loss.order must be 1 or 2, not True"]


def test_whole_numbers_may_be_written_with_an_exponent() -> None:
    typed = [ready(word) for word in ("trainer.max_steps=1e3", "seed=1_000", "model.width=1.28e2")]
    config = bind_components(check_run(compose_plain(typed)))
    values = config["trainer"]["max_steps"], config["seed"], config["model"]["width"]
    assert values == (1000, 1000, 128)
    assert all(type(value) is int for value in values)


def test_what_other_tools_say_is_not_said_of_a_model_without_such_keys() -> None:
    known = {"model", "model.n_layers", "optimizer", "optimizer.lr"}
    assert nearest_key("model.n_layer", known) == "did you mean 'model.n_layers'?"
    assert nearest_key("learning_rate", known) == "write optimizer.lr=X"


def test_every_name_of_another_tool_leads_to_keys_that_there_are(settle) -> None:
    known = flat_keys(settle())
    for name in _INSTEAD:
        assert name not in known or name == "callbacks", "a group, and as trainer.callbacks no key"
        for key in re.findall(r"\b(?:trainer|data|model|optimizer|scheduler|checkpoints|loss)\.\w+", _INSTEAD[name]):
            assert key in known, f"{name} is told {key}"


def test_nearest_key_looks_among_the_keys_of_its_own_section() -> None:
    known = {"model", "model.width", "data", "data.width_of_all", "data.path"}
    assert nearest_key("data.widht", known | {"data.width"}) == "did you mean 'data.width'?"
    assert nearest_key("data.zzz", known) == "data has path, width_of_all"
    assert nearest_key("modell", known) == "did you mean 'model'?"
