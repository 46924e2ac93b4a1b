"""The table in every form, whatever the losses are called."""

import csv
import html
import re

import pytest
from made_runs import Sweep, comparison_of, page_text, printed, read, rows_of

from losslab.comparison.output.report import table, to_html
from losslab.comparison.output.tables import (
    CSV_COLUMNS,
    cells,
    escape_latex,
    escape_markdown,
    to_csv,
    to_latex,
    to_markdown,
    to_terminal,
)
from losslab.numbers import number

ODD = 'a|b_c% &amp; $x$ <b>, "q" \\ *d* [e] {f} #g ~h ^i'


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_the_table_says_it_in_words(paired_sweep: Sweep) -> None:
    c = comparison_of(paired_sweep)
    lines = to_markdown(c, c.rows, c.metric).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["cross_entropy", "square"], "best first"
    assert lines[2].rstrip(" |").endswith("baseline")
    assert lines[3].rstrip(" |").endswith("worse")
    assert "+0.0501 [+0.0486, +0.0516]" in lines[3]
    assert len({len(line) for line in lines}) == 1, "aligned"
    assert all(line in read(c) for line in lines)


def test_a_zero_has_no_sign() -> None:
    assert [number(x, sign=True) for x in (-1e-9, 0.0, 4e-5, 0.2, -0.2)] == ["0.0000"] * 3 + ["+0.2000", "-0.2000"]


def test_the_csv_has_every_number(paired_sweep: Sweep) -> None:
    c = comparison_of(paired_sweep)
    first, second = parsed(to_csv(c))
    assert list(first) == CSV_COLUMNS
    assert (first["loss"], first["n"], first["verdict"]) == ("cross_entropy", "6", "baseline")
    assert first["pairs"] == first["difference"] == first["p_adjusted"] == first["p_sign_flip"] == ""
    row = rows_of(paired_sweep)["square"]
    expected = {
        "metric": "test/nll_scaled",
        "weights": "best",
        "loss": "square",
        "setting": "",
        "n": 6,
        "lost": "",
        "mean": row.mean,
        "std": row.std,
        "median": row.median,
        "iqm": row.iqm,
        "pairs": 6,
        "difference": row.paired.mean,
        "difference_median": row.paired.median,
        "difference_std": row.paired.std,
        "d_z": row.paired.mean / row.paired.std,
        "simultaneous_low": row.paired.low,
        "simultaneous_high": row.paired.high,
        "p_adjusted": row.paired.p,
        "p_equivalence": row.paired.p_equivalence,
        "critical": row.paired.critical,
        "bca_low": "",
        "bca_high": "",
        "p_t": row.paired.p_t,
        "p_sign_flip": 2 / 2**6,
        "p_wilcoxon": row.paired.p_wilcoxon,
        "detectable": row.paired.detectable,
        "more_seeds": "",
        "more_seeds_low": "",
        "more_seeds_high": "",
        "verdict": "worse",
    }
    assert second == {key: str(value) for key, value in expected.items()}
    assert not re.search(r"nan|None|inf", to_csv(c))


@pytest.fixture
def oddly_named(sweep: Sweep) -> Sweep:
    for seed in (1, 2):
        sweep.add("cross_entropy", seed, 3.0 + seed)
        for name, value in ((ODD, 3.5), ("plain", 3.6)):
            sweep.add("own", seed, value + seed, changes={"loss.name": name})
    return sweep


def test_a_label_of_odd_letters_stays_one_cell_of_a_spreadsheet(oddly_named: Sweep) -> None:
    c = comparison_of(oddly_named)
    assert {row["loss"] for row in parsed(to_csv(c))} == {"cross_entropy", f"own name={ODD}", "own name=plain"}
    assert {row["n"] for row in parsed(to_csv(c))} == {"2"}


def test_a_label_of_odd_letters_stays_one_cell_of_markdown(oddly_named: Sweep) -> None:
    c = comparison_of(oddly_named)
    lines = to_markdown(c, c.rows, c.metric).splitlines()
    split = [re.split(r"(?<!\\)(?:\\\\)*\|", line) for line in lines]
    assert {len(line) for line in split} == {len(split[0])}
    (odd,) = [line[1].strip() for line in split if "amp" in line[1]]
    assert re.sub(r"\\([^\w\s])", r"\1", odd) == f"own name={ODD}", "as it is read"
    assert r"\|" in odd and r"\<b>" in odd and r"\$x\$" in odd and r"\*d\*" in odd and r"\&amp;" in odd
    assert any(line[1].strip() == "cross_entropy" for line in split)


def test_what_is_said_of_a_wide_table_does_not_scroll_with_it() -> None:
    page = table(["loss"], [["square"]], note="a note & more")
    assert page.endswith('</table></div><p class="soft">a note &amp; more</p>')
    assert "<p" not in table(["loss"], [["square"]])


def test_a_label_of_odd_letters_is_text_on_the_page(oddly_named: Sweep) -> None:
    c = comparison_of(oddly_named)
    page = to_html(c, [])
    assert "<b>" not in page and html.escape(ODD) in page
    assert f"own name={ODD}" in page_text(c), "as it is read"
    assert f"own name={ODD}" in re.sub(
        r"\s+", " ", " ".join(cell for line in cells(c, c.rows, c.metric) for cell in line)
    )


def test_a_label_of_odd_letters_is_text_in_a_terminal(oddly_named: Sweep) -> None:
    c = comparison_of(oddly_named)
    column = to_terminal(c).columns[0]
    assert f"own name={ODD}" in [str(cell) for cell in column.cells]
    assert "[e]" in printed(c, 200), "no markup of rich"
    assert max(map(len, printed(c, 80).splitlines())) <= 80


def test_a_label_of_odd_letters_is_text_in_latex(oddly_named: Sweep) -> None:
    c = comparison_of(oddly_named)
    table = to_latex(c, "A caption & 100% of $1")
    rows = [line for line in table.splitlines() if line.endswith("\\\\")]
    assert len(rows) == 1 + len(c.rows)
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {7}
    assert "\\caption{A caption \\& 100\\% of \\$1}" in table
    assert "cross\\_entropy" in table and "test/nll\\_scaled" in table
    for character in "&%$#_":
        bare = re.compile(rf"(?<!\\){re.escape(character)}")
        for row in rows:
            label = row.partition(" & ")[0]
            assert not bare.search(re.sub(r"\$[<>|-]\$", "", label)), (character, label)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b & 5% of $x", "a\\_b \\& 5\\% of \\$x"),
        ("a|b < c > d", "a$|$b $<$ c $>$ d"),
        ("-0.5 [-0.1, +0.2]", "$-$0.5 [$-$0.1, +0.2]"),
        ("k=-1 nll-3 1e-3", "k=$-$1 nll-3 1e-3"),
        ("\\~^{}", "\\textbackslash{}\\textasciitilde{}\\textasciicircum{}\\{\\}"),
        ("—", "--"),
    ],
)
def test_latex_is_escaped(text: str, escaped: str) -> None:
    assert escape_latex(text) == escaped


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("cross_entropy lr=0.003", "cross_entropy lr=0.003"),
        ("_private_ x__y", "\\_private\\_ x\\_\\_y"),
        ("a|b \\| c", "a\\|b \\\\\\| c"),
        ("p < 0.0001 <i> </i> <!--", "p < 0.0001 \\<i> \\</i> \\<!--"),
        ("R&D &lt; &#60;", "R&D \\&lt; \\&#60;"),
        ("$a$ *b* `c` ~~d~~", "\\$a\\$ \\*b\\* \\`c\\` \\~\\~d\\~\\~"),
    ],
)
def test_markdown_is_escaped_where_it_would_be_more_than_text(text: str, escaped: str) -> None:
    assert escape_markdown(text) == escaped


def test_what_is_not_there_has_no_column(grid: Sweep) -> None:
    c = comparison_of(grid, where=("optimizer.lr=0.003",))
    assert cells(c, c.rows, c.metric)[0][:3] == ["loss", "n", "test/nll_scaled"]
    for lr in (0.001, 0.003, 0.01, 0.03):  # where none diverged, that rate would be chosen
        grid.add("square", 3, status="diverged", changes={"optimizer.lr": lr})
    c = comparison_of(grid)
    assert cells(c, c.rows, c.metric)[0][:5] == ["loss", "at", "n", "lost", "test/nll_scaled"]
    assert [line[1:4] for line in cells(c, c.rows, c.metric)[1:]] == [
        ["lr=0.003", "2", "0"],
        ["lr=0.01", "2", "1 diverged"],
    ]


def test_all_numbers_of_one_seed_are_dashes_where_one_cannot_say(sweep: Sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    sweep.add("square", 1, 3.5)
    c = comparison_of(sweep)
    _, baseline, square = cells(c, c.rows, c.metric)
    assert baseline == ["cross_entropy", "1", "3.0000", "—", "—", "—", "—", "baseline"]
    assert square == ["square", "1", "3.5000", "—", "+0.5000", "—", "—", "undecided"]
    read(c)
