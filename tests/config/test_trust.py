"""A configuration out of a folder imports nothing but what it is allowed to."""

import sys

import pytest

from losslab.config.components import build
from losslab.config.trust import allowed, check_trusted, foreign_components, foreign_targets, targets
from losslab.errors import UserError

LOSS = "losslab.losses.square.Square"


@pytest.fixture
def trap(tmp_path, monkeypatch) -> str:
    """A class in a module that leaves a mark when it is imported."""
    mark = tmp_path / "imported"
    (tmp_path / "trap_module.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Trap:\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "trap_module.Trap"
    assert not mark.exists()
    assert "trap_module" not in sys.modules


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "torch.hub.load",
        "torch.utils.collect_env.run",
        "torch.optim.AdamW.step",
        "torch.optim.adamw.AdamW",
        "losslab.losses.square",
        f"{LOSS}.forward",
        f" {LOSS}",
        LOSS.upper(),
        "losslab.training.process.start.start",
        "losslab.training.output.provenance.subprocess.Popen",
        "my_losses.__builtins__.eval",
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        lambda node: {"loss": node},
        lambda node: {"loss": {"_target_": LOSS, "inner": node}},
        lambda node: {"logger": {"deep": [{"list": [node]}]}},
    ],
    ids=["as a component", "inside one", "anywhere else"],
)
def test_only_exact_classes_of_the_list_are_trusted(target: str, place) -> None:
    with pytest.raises(UserError) as caught:
        check_trusted(place({"_target_": target}), [])
    assert target in str(caught.value)


def test_code_of_python_or_a_library_cannot_be_vouched_for() -> None:
    with pytest.raises(UserError, match="can be no component"):
        check_trusted({"loss": {"_target_": "os.system"}}, ["os.system"])
    with pytest.raises(UserError, match=r"--trust my_losses\.Poly1"):
        check_trusted({"loss": {"_target_": "my_losses.Poly1"}}, [])
    check_trusted({"optimizer": {"_target_": "torch.optim.RMSprop"}}, ["torch.optim.RMSprop"])


@pytest.mark.parametrize(
    "config",
    [
        {"loss": {"_target_": LOSS, "_partial_": True}},
        {"loss": {"_target_": LOSS, "_args_": ["x"]}},
        {"hydra": {"callbacks": {"c": {"_target_": "my_package.Callback"}}}},
        {"logger": {"enabled": {"_target_": "my_package.Logger"}}},
        {"loggers": {"_target_": "my_package.Logger"}},
        {"loggers": {"mine": {"_target_": "lightning.pytorch.loggers.logger.Logger"}}},
        {"trainer": {"strategy": {"_target_": LOSS}}},
        {"_target_": LOSS},
        {"loss": {"deep": [[[[[[[[[["x"]]]]]]]]]]}},
    ],
)
def test_what_losslab_does_not_write_is_refused_even_with_trust(config) -> None:
    with pytest.raises(UserError):
        check_trusted(config, [LOSS, "my_package.Callback", "my_package.Logger"])


def test_a_class_is_refused_without_being_imported(trap) -> None:
    with pytest.raises(UserError, match="code outside losslab"):
        check_trusted({"loss": {"_target_": trap}}, ["trap_module", "Trap", "trap_module.Other"])


def test_a_class_that_was_vouched_for_is_trusted_and_still_not_imported(trap) -> None:
    check_trusted({"loss": {"_target_": trap}, "model": {"_target_": LOSS}}, [trap])


def test_a_target_that_is_no_text_is_refused() -> None:
    for target in (None, 5, ["os.system"], {"_target_": LOSS}):
        with pytest.raises(UserError):
            check_trusted({"loss": {"_target_": target}}, [])


def test_what_losslab_writes_is_trusted(settle) -> None:
    config = settle()
    check_trusted(config, [])
    assert len(targets(config)) == 7
    assert foreign_targets(config) == []
    config = settle() | {"loss": {"_target_": "mine.Loss", "inner": {"_target_": "mine.Inner"}}}
    assert foreign_targets(config) == ["mine.Inner", "mine.Loss"]
    config["loggers"] = {"theirs": {"_target_": "mine.Logger"}}
    assert foreign_targets(config) == ["mine.Inner", "mine.Logger", "mine.Loss"]
    assert foreign_components(config) == ["mine.Inner", "mine.Loss"], "what is logged changes no result"


def test_build_makes_nested_components_with_what_came_late() -> None:
    node = {"_target_": "collections.OrderedDict", "inner": {"_target_": "builtins.dict", "a": 1}, "plain": {"b": 2}}
    assert build(node, "loss", late=3) == {"inner": {"a": 1}, "plain": {"b": 2}, "late": 3}


def test_build_calls_no_function() -> None:
    with pytest.raises(UserError, match="is not a class"):
        build({"_target_": "os.getcwd"}, "loss")


def test_the_list_holds_no_package() -> None:
    assert all(target.rpartition(".")[2][0].isupper() for target in allowed())
