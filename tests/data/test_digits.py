"""The images of digits: patches that make up the image again, splits that hold each digit as often as all do."""

import pytest
import torch

import losslab
from losslab.commands.predict import predict
from losslab.commands.train import train
from losslab.contracts import Share
from losslab.data.digits import DigitsDataModule
from losslab.errors import UserError
from losslab.tasks.classification import Classification
from losslab.tasks.lm import LanguageModeling


def test_patches_make_up_the_image(tmp_path) -> None:
    from sklearn.datasets import load_digits

    data = DigitsDataModule(batch_size=8)
    task = Classification()
    data.check_task(task)
    info = data.prepare(tmp_path, task)
    assert (info.frame_width, info.num_classes, info.vocab_size, info.class_names) == (4, 10, None, tuple("0123456789"))
    assert {split: size.positions for split, size in info.splits.items()} == {"train": 1258, "val": 180, "test": 359}
    batch = data.train_batch(0, Share())
    assert batch.inputs["frames"].shape == (8, 16, 4) and batch.inputs["frames"].dtype == torch.float32
    assert batch.inputs["mask"].all() and batch.inputs["mask"].shape == (8, 16)
    known = load_digits()
    images, digits = data.images
    assert (images == known.images).all() and (digits == known.target).all()
    frames = DigitsDataModule(patch=4).frames(images)
    top = torch.cat([frames[:, 0].view(-1, 4, 4), frames[:, 1].view(-1, 4, 4)], dim=2)
    assert torch.equal(top, torch.from_numpy(known.images[:, :4] / 16).float())
    assert info.class_counts is not None and info.class_counts.min() >= 0.68 * 174
    assert data.content_hashes(task).keys() == {"data.images"}


def test_a_run_on_images_is_loaded_and_reads_no_table(workplace) -> None:
    shape = ["model.num_layers=1", "model.num_heads=2", "model.width=16", "model.context=16"]
    budget = ["trainer.max_steps=2", "scheduler.warmup_steps=1", "trainer.threads=1", "loggers=none", "name=digits"]
    assert train(["task=classification", "model=patches", "data=digits", *shape, *budget]) == 0
    (run,) = (workplace / "outputs/digits").glob("cross_entropy-*")
    assert losslab.load(run).info.frame_width == 4
    with pytest.raises(UserError, match=r"by losslab.data.digits.DigitsDataModule, not out of a table"):
        predict(run, workplace / "book.txt", output=None, checkpoint="best", trust=[])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"patch": 3}, r"data.patch must divide the 8 pixels of a side \(1, 2, 4 or 8\), not 3"),
        ({"val_fraction": 0.0}, "must be above 0, and leave some images"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "must be above 0, and leave some images"),
    ],
)
def test_bad_settings_are_refused(settings, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        DigitsDataModule(**settings)


def test_tasks_and_environments_that_do_not_fit_are_refused(monkeypatch) -> None:
    with pytest.raises(UserError, match="task=lm does not read images with one label"):
        DigitsDataModule().check_task(LanguageModeling())
    with pytest.raises(UserError, match="task=classification does not read images with one label"):
        DigitsDataModule().check_task(Classification(pair=True))
    monkeypatch.setattr("losslab.data.digits.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"data=digits needs the package scikit-learn: pip install 'losslab\[digits\]'"):
        DigitsDataModule()
