"""The rank of a task of srun's."""

from __future__ import annotations

import os

import pytest

from losslab.errors import UserError
from losslab.training.process.dispatch import check_ranks
from losslab.training.process.slurm import become_rank, is_task_of_many

STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "2",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
    "SLURM_STEP_NODELIST": "gpu[07-09,12]",
}
RANK = {
    "RANK": "5",
    "WORLD_SIZE": "7",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "NODE_RANK": "2",
    "GROUP_RANK": "2",
    "MASTER_ADDR": "gpu07",
    "MASTER_PORT": str(15000 + (4711 * 7 + 2) % 17000),
}


@pytest.fixture(autouse=True)
def step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of STEP; those of RANK, which a test may set, are gone after it."""
    for name in RANK:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)


def ranks() -> dict[str, str]:
    return {name: os.environ[name] for name in RANK if name in os.environ}


def test_a_task_of_many_becomes_a_rank() -> None:
    assert is_task_of_many()
    become_rank()
    assert ranks() == RANK
    assert not is_task_of_many()


def test_a_port_and_an_address_of_ones_own_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "ib0-gpu07")
    monkeypatch.setenv("MASTER_PORT", "29500")
    become_rank()
    assert ranks() == RANK | {"MASTER_ADDR": "ib0-gpu07", "MASTER_PORT": "29500"}


@pytest.mark.parametrize("name", ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS"])
def test_a_batch_script_is_no_rank(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name)
    become_rank()
    assert ranks() == {}


def test_a_single_task_is_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    become_rank()
    assert ranks() == {}


def test_another_number_of_ranks_than_the_run_has_is_refused() -> None:
    become_rank()
    check_ranks({"trainer": {"devices": 7, "num_nodes": 1}})
    with pytest.raises(UserError, match=r"started 7 ranks .*devices=2 × .*num_nodes=3 is 6"):
        check_ranks({"trainer": {"devices": 2, "num_nodes": 3}})


def test_what_torchrun_started_keeps_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    become_rank()
    assert ranks() == {"RANK": "0"}


@pytest.mark.parametrize(
    ("name", "value"), [("SLURM_NODEID", "9"), ("SLURM_STEP_TASKS_PER_NODE", "two"), ("SLURM_JOB_ID", "")]
)
def test_half_of_a_step_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="srun started 7 tasks"):
        become_rank()
    assert ranks() == {}
