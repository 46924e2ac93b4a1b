"""The group of callbacks: how several are chosen, which belong to a run's identity, what is refused and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from losslab.choices import conf_dir
from losslab.config.binding import bind_components
from losslab.config.callbacks import deciding
from losslab.config.check import check_run, resolve_budget, resolve_split
from losslab.config.compose import compose_plain
from losslab.config.identity import fingerprint, folder_name
from losslab.config.jobs import job_overrides, open_multirun
from losslab.config.trust import allowed, check_trusted, foreign_targets
from losslab.errors import UserError
from losslab.records import Record
from losslab.tasks.lm import LanguageModeling
from losslab.training.callbacks.configured import build_callbacks, note_callbacks
from losslab.training.ema import with_averaged

SHIPPED = sorted(path.stem for path in (conf_dir() / "callbacks").glob("*.yaml"))


class Observer(pl.Callback):
    observes_only = True


class Changer(pl.Callback):
    def __init__(self, *, monitor: str = "val/mine", often: int = 1) -> None:
        self.monitor = monitor
        self.often = often


OWN = f"+callbacks.mine._target_={__name__}"


def settled(*overrides: str) -> dict[str, Any]:
    config = bind_components(check_run(compose_plain(["data=text", "data.path=x.txt", *overrides])))
    return resolve_split(resolve_budget(config))


def identity(*overrides: str) -> str:
    return fingerprint(settled(*overrides), {})


def build(*overrides: str) -> dict[str, Any]:
    config = settled(*overrides)
    metrics = with_averaged(LanguageModeling.metrics, LanguageModeling.primary, config["callbacks"])
    return build_callbacks(config, metrics, LanguageModeling.primary)


def test_every_shipped_callback_is_built_and_may_stand_in_a_stored_configuration() -> None:
    names = [name for name in SHIPPED if name != "none"]
    built = build(f"callbacks=[{','.join(names)}]")
    assert sorted(built) == names
    config = settled(f"callbacks=[{','.join(names)}]")
    check_trusted(config, [])
    assert foreign_targets(config) == []
    record = Record(identity="", name="")
    note_callbacks(record, built, None)
    assert record.provenance == {
        "monitors": {"early_stopping": "val/nll_scaled, min"},
        "not_repeatable": ["timer"],
    }


def test_several_are_a_list_and_commas_are_an_axis() -> None:
    assert set(settled("callbacks=[early_stopping,ema]", "callbacks.ema.decay=0.5")["callbacks"]) == {
        "early_stopping",
        "ema",
    }
    jobs = {
        "callbacks=early_stopping,ema": ["callbacks=early_stopping", "callbacks=ema"],
        "callbacks=[early_stopping,ema]": ["callbacks=[early_stopping,ema]"],
        "callbacks=[ema],[early_stopping,ema],none": [
            "callbacks=[ema]",
            "callbacks=[early_stopping,ema]",
            "callbacks=none",
        ],
    }
    for typed, expected in jobs.items():
        assert [" ".join(job) for job in job_overrides(open_multirun([typed]))] == expected
    settings = job_overrides(open_multirun(["callbacks=early_stopping(patience=2),ema:decay=0.9"]))
    assert settings == [
        ["callbacks=early_stopping", "callbacks.early_stopping.patience=2"],
        ["callbacks=ema", "callbacks.ema.decay=0.9"],
    ]
    limited = job_overrides(open_multirun(["callbacks=none,ema", "callbacks.ema.decay=0.9,0.99"]))
    assert limited == [["callbacks=none"], *(["callbacks=ema", f"callbacks.ema.decay={d}"] for d in (0.9, 0.99))]


def test_null_takes_one_away() -> None:
    assert settled("callbacks=[ema,timer]", "callbacks.timer=null")["callbacks"].keys() == {"ema"}


def test_a_file_of_ones_own_is_found(tmp_path: Path) -> None:
    (tmp_path / "callbacks").mkdir()
    (tmp_path / "callbacks/mine.yaml").write_text(f"mine:\n  _target_: {__name__}.Changer\n", encoding="utf-8")
    config = check_run(compose_plain(["callbacks=[ema,mine]", "+callbacks.mine.often=3"], tmp_path))
    assert bind_components(config)["callbacks"]["mine"] == {
        "_target_": f"{__name__}.Changer",
        "monitor": "val/mine",
        "often": 3,
    }


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["callbacks=early_stopping", "callbacks.early_stopping.patience=x"], "must be a whole number"),
        (["callbacks=early_stopping", "+callbacks.early_stopping.patiense=3"], "did you mean 'callbacks.early_"),
        (["callbacks=early_stopping", "callbacks.early_stopping.patiense=3"], "did you mean 'callbacks.early_"),
        (["callbacks=ema", "callbacks.ema.decay=1"], "decay must be at least 0 and below 1, not 1"),
        (["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/nll_scald"], "did you mean 'val/nll_sc"),
        (["callbacks=early_stopping", "callbacks.early_stopping.monitor=nll_scaled"], "did you mean 'val/nll_scaled"),
        (["callbacks=early_stopping", "callbacks.early_stopping.monitor=val_acc"], "did you mean 'val/top1'"),
        (["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/entropy"], "mode must be min or max"),
        (["callbacks=early_stopping", "callbacks.early_stopping.mode=less"], "refuses its settings"),
        (["callbacks=early_stopping", "+callbacks.early_stopping.check_on_train_epoch_end=true"], "never stops a run"),
        (["callbacks=timer", "+callbacks.timer.interval=epoch"], "never stops a run"),
        (["callbacks=timer", "callbacks.timer.duration=soon"], "is not a valid duration"),
        (["callbacks=model_checkpoint", "+callbacks.model_checkpoint.every_n_epochs=2"], "every_n_train_steps=N"),
        (["+callbacks.mine.decay=3"], "callbacks.mine has no _target_"),
        ([f"{OWN}.Nothing"], "has no 'Nothing'"),
        (["+callbacks.mine._target_=losslab.losses.focal.Focal"], "does not derive from"),
        (["+callbacks.mine._target_=lightning.pytorch.callbacks.StochasticWeightAveraging",
          "+callbacks.mine.swa_lrs=0.1"], "take callbacks=ema"),
        (["callbacks=ema", "+callbacks.mine._target_=losslab.training.ema.EMA"], "a run keeps one average"),
        (["callbacks=early_stopping", "+callbacks.mine._target_=lightning.pytorch.callbacks.EarlyStopping",
          "+callbacks.mine.monitor=null"], "the same state_key"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(typed: list[str], told: str) -> None:
    with pytest.raises(UserError) as error:
        build(*typed)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_monitor_left_open_is_the_primary_metric_at_its_better_side() -> None:
    stopping = build("callbacks=early_stopping")["early_stopping"]
    assert (stopping.monitor, stopping.mode) == ("val/nll_scaled", "min")
    stopping = build("callbacks=[early_stopping,ema]", "callbacks.early_stopping.monitor=val/ema/top1")[
        "early_stopping"
    ]
    assert (stopping.monitor, stopping.mode) == ("val/ema/top1", "max")
    saving = build("callbacks=model_checkpoint")["model_checkpoint"]
    assert (saving.monitor, saving.mode) == (None, "min")
    assert build("callbacks=early_stopping", "callbacks.early_stopping.monitor=train/objective",
                 "callbacks.early_stopping.mode=min")  # fmt: skip
    own = build("callbacks=early_stopping", f"{OWN}.Changer", "callbacks.early_stopping.monitor=mine/x",
                "callbacks.early_stopping.mode=max")  # fmt: skip
    assert own["early_stopping"].monitor == "mine/x", "a callback of one's own may log it"


def test_callbacks_that_only_observe_change_no_identity() -> None:
    plain = identity()
    assert identity("callbacks=[lr_monitor,device_stats,model_checkpoint,model_summary]") == plain
    assert identity(f"{OWN}.Observer") == plain
    others = [identity(f"callbacks={name}") for name in ("early_stopping", "timer", "ema")] + [
        identity(f"{OWN}.Changer")
    ]
    assert len({plain, *others}) == 5
    assert identity("callbacks=[early_stopping,lr_monitor]") == others[0]
    assert identity("callbacks=early_stopping", "callbacks.early_stopping.patience=4") != others[0]


def test_a_folders_name_shows_the_callbacks_that_count() -> None:
    config = settled("callbacks=[early_stopping,ema,lr_monitor]", "callbacks.ema.decay=0.5")
    defaults = compose_plain(["data=text", "data.path=x.txt", "callbacks=[early_stopping,ema,lr_monitor]"])
    name = folder_name(config, defaults, {"loss": "square"}, "f" * 64)
    assert name.startswith("square-seed1-callbacks=early_stopping+ema-decay=0.5-")
    assert list(deciding(config)) == ["early_stopping", "ema"]


def test_a_stored_configuration_writes_in_its_runs_folder_unless_somebody_vouches_for_it() -> None:
    kind = "lightning.pytorch.callbacks.ModelCheckpoint"
    assert kind in allowed()
    for folder, inside in (("kept", True), ("/elsewhere", False), ("../elsewhere", False), ("~", False)):
        config = settled("callbacks=model_checkpoint", f"callbacks.model_checkpoint.dirpath='{folder}'")
        assert foreign_targets(config) == ([] if inside else [kind])
        check_trusted(config, [kind])
        if not inside:
            with pytest.raises(UserError, match=f"{kind} writes outside its folder.*--trust {kind}"):
                check_trusted(config, [])


def test_a_class_of_ones_own_must_be_vouched_for() -> None:
    config = settled(f"{OWN}.Changer")
    with pytest.raises(UserError, match=rf"--trust {__name__}\.Changer"):
        check_trusted(config, [])
    check_trusted(config, [f"{__name__}.Changer"])
    config["callbacks"]["mine"]["_target_"] = "lightning.pytorch.callbacks.LambdaCallback"
    with pytest.raises(UserError, match="uses code outside losslab"):
        check_trusted(config, [])
    config["callbacks"]["mine"]["_target_"] = "lightning.pytorch.utilities.rank_zero.rank_zero_only"
    with pytest.raises(UserError, match="can be no component"):
        check_trusted(config, ["lightning.pytorch.utilities.rank_zero.rank_zero_only"])
