"""Splits that a data set brings along are found by the names of its files and folders."""

from pathlib import Path

import pytest

from losslab.data.own_splits import own_splits


def found(*names: str, root: bool = True) -> dict[str, list[str]]:
    base = Path("/data")
    parts = own_splits([base / name for name in names], base if root else None)
    return {split: [path.relative_to(base).as_posix() for path in paths] for split, paths in parts.items()}


@pytest.mark.parametrize("val", ["valid", "val", "validation", "dev", "VALID"])
@pytest.mark.parametrize(
    "form",
    ["{}.txt", "wiki.{}.tokens", "Stories-{}.txt", "ptb.{}.txt.gz", "{}/a.txt", "set/{}.md", "{}-00001-of-2.txt"],
)
def test_files_and_folders_are_recognised(form: str, val: str) -> None:
    names = {split: form.format(name) for split, name in (("train", "train"), ("val", val), ("test", "test"))}
    assert found(*names.values(), "README.md") == {split: [name] for split, name in names.items()}
    two = {split: names[split] for split in ("train", "val")}
    assert found(*two.values(), "README.md") == {split: [name] for split, name in two.items()}


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["train.txt"],
        ["valid.txt", "test.txt"],
        ["midnight-train.txt", "the-test.txt"],
        ["train-journey.txt", "test-of-faith.txt"],
        ["a/train.txt", "b/test.txt"],
        ["train/a.txt", "other/b.txt"],
        ["constrain.txt", "contest.txt"],
    ],
)
def test_other_names_are_no_splits(names: list[str]) -> None:
    assert found(*names) == {}


def test_parts_and_several_sets_are_joined() -> None:
    names = ["a/train_1.txt", "a/train_2.txt", "a/dev.txt", "b/train.txt", "b/test.txt", "c.txt"]
    assert found(*names) == {
        "train": ["a/train_1.txt", "a/train_2.txt", "b/train.txt"],
        "val": ["a/dev.txt"],
        "test": ["b/test.txt"],
    }


def test_without_a_folder_names_count_below_the_common_one() -> None:
    assert found("train/x/train/a.txt", "train/x/valid/b.txt", root=False) == {
        "train": ["train/x/train/a.txt"],
        "val": ["train/x/valid/b.txt"],
    }
    assert found("train/x/a.txt", "train/x/b.txt", root=False) == {}
