"""Seeds of single streams: what is typed, what is refused, and which runs are one run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from losslab.config.identity import fingerprint, folder_name
from losslab.config.jobs import open_multirun, study_spaces
from losslab.config.streams import STREAMS, seed_of
from losslab.errors import UserError

Settle = Callable[..., dict]


def test_a_stream_has_its_own_seed_and_all_others_the_runs(settle: Settle) -> None:
    config = settle("seed=3", "seeds.data_order=7")
    assert {stream: seed_of(config, stream) for stream in STREAMS} == {
        "backbone_init": 3, "head_init": 3, "data_order": 7, "dropout": 3, "loss": 3, "callbacks": 3,
    }  # fmt: skip


def test_two_ways_to_type_one_run_are_one_run_and_other_seeds_are_others(settle: Settle) -> None:
    plain = fingerprint(settle("seed=3"), {})
    assert fingerprint(settle("seed=3", *(f"seeds.{stream}=3" for stream in STREAMS)), {}) == plain
    others = [fingerprint(settle("seed=3", f"seeds.{key}=7"), {}) for key in (*STREAMS, "twin")]
    assert len({plain, *others}) == 1 + len(others)
    assert fingerprint(settle("seed=3", "seeds.twin=3"), {}) != plain


def test_the_folder_names_the_stream(settle: Settle) -> None:
    name = folder_name(settle("seed=3", "seeds.dropout=7"), settle(), {"loss": "focal"}, "0" * 64)
    assert name.startswith("focal-seed3-seeds.dropout=7-")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("seeds.data_ordr=7", "there is no key 'seeds.data_ordr': did you mean 'seeds.data_order'?"),
        ("seeds.shuffling=7", "there is no key 'seeds.shuffling': seeds has backbone_init, callbacks, data_order, dro"),
        ("seeds.dropout=x", "seeds.dropout must be a whole number, not 'x'"),
        ("seeds.dropout=-1", "seeds.dropout must be 0 or above, not -1"),
        ("seed=-1", "seed must be 0 or above, not -1"),
        ("seeds.twin=0", "seeds.twin is the number of a twin, and must be 1 or above, not 0"),
        ("seeds.twin=1 trainer.precision=bf16-true", "seeds.twin changes weights by a millionth, which trainer.precis"),
    ],
)
def test_mistakes_are_told_in_a_sentence(settle: Settle, typed: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        settle(*typed.split())
    assert str(caught.value).startswith(told)


def test_a_search_is_the_mean_over_values_of_seed_alone() -> None:
    searched = ["hydra/sweeper=optuna", "optimizer.lr=interval(1e-4,1e-2)"]
    (space,) = study_spaces(open_multirun([*searched, "seed=1,2", "seeds.dropout=7"]))
    assert (space.fixed, space.seeds) == (("seeds.dropout=7",), ("seed=1", "seed=2"))
    with pytest.raises(UserError, match=r"seeds\.dropout: a trial of a search"):
        study_spaces(open_multirun([*searched, "seeds.dropout=7,8"]))
    with pytest.raises(UserError, match="a seed is nothing to choose"):
        study_spaces(open_multirun([*searched, "seeds.dropout=range(1,8)"]))
