"""`losslab translate` on one trained run, as a person types it, and the scores in that run's record."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import losslab
from losslab.cli import main
from losslab.commands.train import train
from losslab.comparison.corpus_scores import CORPUS_SCORES
from losslab.metrics.text_scores import TextScores
from losslab.records import Record
from runs import TINY, only_run

pytest.importorskip("sacrebleu")
OF_TEXT = ("data=", "data.path=")
WORDS = {"rot": "red", "hund": "dog", "haus": "house", "sieht": "sees"}


def write_pairs(folder: Path, split: str, count: int) -> None:
    draw = random.Random(split)
    lines = [draw.choices(list(WORDS), k=draw.randint(1, 4)) for _ in range(count)]
    (folder / f"{split}.de").write_text("".join(f"{' '.join(words)}.\n" for words in lines))
    (folder / f"{split}.en").write_text("".join(f"{' '.join(WORDS[w] for w in words)}.\n" for words in lines))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Record]]:
    place = tmp_path_factory.mktemp("translate")
    for split, count in (("train", 60), ("val", 12), ("test", 10)):
        write_pairs(place, split, count)
    files = [
        f"data.{'' if split == 'train' else f'{split}_'}{side}={split}.{ending}"
        for split in ("train", "val", "test") for side, ending in (("source", "de"), ("target", "en"))
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        own = [word for word in TINY if not word.startswith(OF_TEXT)]
        own += ["task=translation", "data=pairs", "model=encoder_decoder", "model.context=16", "optimizer.lr=0.01"]
        assert train([*own, "task.beams=2", *files]) == 0
        yield only_run(place / "outputs/runs")


class Typed:
    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.patch = patch
        self.capture = capture

    def __call__(self, *words: str | Path, lines: bytes = b"") -> tuple[int, str, str]:
        self.patch.setattr("sys.argv", ["losslab", *map(str, words)])
        self.patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
        with pytest.raises(SystemExit) as end:
            main()
        found = self.capture.readouterr()
        return int(end.value.code or 0), found.out, found.err


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(monkeypatch, capsys)


def test_the_record_holds_the_scores_of_what_translate_prints_with_their_signatures(
    trained: tuple[Path, Record], typed: Typed
) -> None:
    run, record = trained
    code, printed, _ = typed("translate", run, Path("test.de").absolute())
    references = Path("test.en").read_text().splitlines()
    assert code == 0 and len(printed.splitlines()) == len(references)
    scores = TextScores()
    found = scores.values(scores.counts(printed.splitlines(), [[text] for text in references]).sum(dim=0))
    best = record.metrics["best"]
    assert {name: best[f"test/{name}"] for name in found} == found
    assert {"val/bleu", "val/chrf"} <= best.keys()
    assert record.metrics_info["bleu"]["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    with np.load(run / "test_scores.npz") as kept:
        assert kept["bleu_counts"].shape == (10, 10) and kept["bleu_counts"].dtype == np.int32
        assert {name: score(kept[f"{name}_counts"].sum(axis=1)) for name, score in CORPUS_SCORES.items()} == (
            pytest.approx({name: best[f"test/{name}"] for name in CORPUS_SCORES}, rel=1e-12)
        )
    columns = (run / "metrics.csv").read_text().splitlines()
    rows = [dict(zip(columns[0].split(","), line.split(","), strict=True)) for line in columns[1:]]
    assert [bool(row["val/bleu"]) for row in rows if row["val/nll"]] == [False, True]  # the last validation alone


def test_evaluate_gives_the_same_scores_and_shows_their_signatures(trained: tuple[Path, Record], typed: Typed) -> None:
    run, record = trained
    code, printed, _ = typed("evaluate", run)
    entry = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    assert code == 0 and entry["metrics"]["test/bleu"] == record.metrics["best"]["test/bleu"]
    assert entry["signatures"]["bleu"] in printed


def test_further_references_count_for_bleu_and_are_named_in_the_signature(
    trained: tuple[Path, Record], typed: Typed
) -> None:
    run, _ = trained
    written = typed("translate", run, Path("test.de").absolute())[1].splitlines()
    Path("more.en").write_text("".join(f"the {line}\n" for line in written))
    code, printed, _ = typed("evaluate", run, f"data.test_references=[{Path('more.en').absolute()}]")
    entry = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    both = zip(*(Path(f"{name}.en").read_text().splitlines() for name in ("test", "more")), strict=True)
    scores = TextScores()
    found = scores.values(scores.counts(written, list(both)).sum(dim=0))
    assert code == 0 and {name: entry["metrics"][f"test/{name}"] for name in found} == found
    assert entry["signatures"]["bleu"].startswith("nrefs:2|") and entry["signatures"]["bleu"] in printed


def test_a_line_comes_out_for_each_line_whatever_stands_beside_it(trained: tuple[Path, Record], typed: Typed) -> None:
    run, _ = trained
    lines = b"rot hund.\n\n  \r\nhaus sieht hund rot rot.\nhund"
    code, printed, told = typed("translate", run, "--beams", "1", lines=lines)
    found = printed.split("\n")
    assert code == 0 and found[-1] == "" and len(found) == 6 and found[1] == found[2] == ""
    assert "sources longer than data.context=16: 1, cut off at their end" in told
    one_by_one = "".join(
        typed("translate", run, "--beams", "1", "--batch", "1", lines=line)[1] for line in lines.splitlines(True)
    )
    assert one_by_one == printed
    loaded = losslab.load(run)
    assert loaded.network.task.generation == (2, 1.0)


def test_predict_writes_the_texts_of_rows_as_translate_does(
    trained: tuple[Path, Record], typed: Typed, tmp_path: Path
) -> None:
    run, _ = trained
    rows = [{"source": "rot hund.", "id": 7}, {"source": " "}, {"source": "haus sieht hund rot rot."}]
    _, printed, _ = typed("translate", run, lines="".join(f"{row['source']}\n" for row in rows).encode())
    code, found, told = typed("predict", run, lines="".join(f"{json.dumps(row)}\n" for row in rows).encode())
    wanted = [row | {"predicted": text} for row, text in zip(rows, printed.splitlines(), strict=True)]
    assert code == 0 and [json.loads(line) for line in found.splitlines()] == wanted
    assert "sources longer than data.context=16: 1, cut off at their end" in told
    (tmp_path / "rows.tsv").write_text("source\trest\nrot hund.\t1\n")
    assert typed("predict", run, tmp_path / "rows.tsv", "--output", tmp_path / "found.csv")[0] == 0
    assert (tmp_path / "found.csv").read_text() == f"source,rest,predicted\nrot hund.,1,{wanted[0]['predicted']}\n"
    assert losslab.load(run).predict(["rot hund."]) == [{"predicted": wanted[0]["predicted"]}]
    (tmp_path / "rows.de").write_text("rot hund.\n")
    for words, line, sentence in (
        ((tmp_path / "rows.de",), b"", "losslab translate RUN rows.de writes a line for each line of a text"),
        (("--top", "3"), b"", "--top is about probabilities of labels, and this run writes texts"),
        (("--temperature", "fitted"), b"", "--temperature is about probabilities of labels"),
        ((), b'{"text": "rot"}\n', "row 1 has no column 'source', but 'text'"),
        ((), b'{"source": 5}\n', "row 1 cannot be used: its source must be text, not 5"),
    ):
        code, _, told = typed("predict", run, *words, lines=line)
        assert code == 2 and sentence in told and "Traceback" not in told


def test_a_split_is_translated_for_a_student_line_by_line_with_its_provenance(
    trained: tuple[Path, Record], typed: Typed
) -> None:
    run, record = trained
    sources = Path("train.de").read_text()
    code, printed, _ = typed("translate", run, "--split", "train", "--to", "kd.en", "--beams", "1")
    assert code == 0 and printed.startswith("60 translations: kd.en; how they were made: kd.en.json")
    wanted = typed("translate", run, "--beams", "1", lines=sources.encode())[1]
    assert Path("kd.en").read_text() == wanted
    about = json.loads(Path("kd.en.json").read_text())
    assert about["identity"] == record.identity and about["hashes"]["data.source"] == record.hashes["data"]
    assert (about["split"], about["beams"], about["lines"]) == ("train", 1, 60)
    assert about["sha256"] == hashlib.sha256(wanted.encode()).hexdigest()
    assert typed("translate", run, "--split", "test", "--to", "test.jsonl")[0] == 0
    rows = [json.loads(line) for line in Path("test.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == Path("test.de").read_text().splitlines()
    student = [word for word in record.overrides if not word.startswith(("name=", "data.target="))]
    assert train([*student, "name=student", "data.target=kd.en", "trainer.max_steps=2"]) == 0
    _, taught = only_run(Path("outputs/student"))
    assert taught.status == "completed" and taught.hashes["data"] != record.hashes["data"]
    (writer,) = taught.provenance["text"]["written"].values()
    assert (writer["identity"], writer["weights"], writer["beams"]) == (record.identity, "raw", 1)
    Path("dealt.de").write_text(sources)
    words = ["name=dealt", "data.source=dealt.de", "trainer.max_steps=2", "task.beams=0"]
    held = [word for word in student if "val_" not in word and "test_" not in word and "task.beams" not in word]
    assert train([*held, *words, "data.target=train.en", "data.val_fraction=0.2", "data.test_fraction=0.2"]) == 0
    dealt, _ = only_run(Path("outputs/dealt"))
    Path("test.en").rename("moved.en")
    for folder, options, sentence in (
        (run, ("--split", "train"), "test.en, from which this run was made, is not there"),
        (dealt, ("--split", "train"), "val and test of this run were taken out of the files of train"),
        (dealt, ("--split", "test"), "val and test of this run were taken out of the files of train"),
        (run, ("--split", "tran"), "--split must be train, val or test, not tran"),
        (run, ("--to", "x.en"), "--to goes with a file or --split"),
        (run, ("test.de", "--split", "test"), "give a file or --split test, not both"),
        (run, ("test.de", "--to", "kd.en"), "--to kd.en is there already"),
        (run, ("test.de", "--to", "none/x.en"), "there is no folder none"),
    ):
        code, _, told = typed("translate", folder, *options)
        assert code == 2 and sentence in told and "Traceback" not in told
    Path("moved.en").rename("test.en")
    Path("dealt.de").write_text("rot.\n" * 60)
    assert "the data has changed since" in typed("translate", dealt, "--split", "train")[2]


def test_bad_input_is_one_sentence(trained: tuple[Path, Record], typed: Typed, tmp_path: Path) -> None:
    run, _ = trained
    for words, lines, sentence in (
        (("--beams", "0"), b"", "--beams must be 1 or more, not 0"),
        (("--batch", "0"), b"", "--batch must be 1 or more, not 0"),
        (("--length-penalty", "nan"), b"rot\n", "--length-penalty must be a finite number, not nan"),
        ((str(tmp_path / "none"),), b"", "cannot be read: No such file or directory"),
        ((), b"rot\n\xff\n", "standard input, line 2, is not UTF-8 text"),
    ):
        code, _, told = typed("translate", run, *words, lines=lines)
        assert code == 2 and sentence in told and "Traceback" not in told
