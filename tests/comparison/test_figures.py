"""Figures of a comparison: nothing overlaps or is cut off, every number is told, the same data gives the same bytes."""

import itertools
import math
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from losslab.comparison.output.figures.curves import Curve, draw_curves
from losslab.comparison.output.figures.differences import Difference, draw_differences
from losslab.comparison.output.figures.frequency import ByFrequency, draw_frequency
from losslab.comparison.output.figures.layout import FAR, reach, short, width_of, wrap
from losslab.comparison.output.figures.reliability import Reliability, draw_reliability, rates_of
from losslab.comparison.output.figures.sensitivity import Sensitivity, draw_sensitivity
from losslab.comparison.output.figures.style import INK, Look, inline_svg, looks, save

BASELINE = "cross_entropy"
LABELS = [
    BASELINE,
    "_private $x_1$ loss^2 $",
    "generalised_cross_entropy q=0.7 label_smoothing=0.1 lr=0.003",
    "focal gamma=2.0 label_smoothing=0.1",
    "squentropy",
    "square",
    "an_unbroken_name_of_sixty_letters_that_has_no_space_to_break",
    *(f"loss_{i}" for i in range(5)),
]
"""12, as long as 60 characters."""
LOOKS = looks([*LABELS, *(f"{label} #{i}" for label in LABELS for i in (1, 2))], BASELINE)
NAN = math.nan
HINT = "better (3 seeds: a hint, not a claim)"


def curves_of(n: int) -> Figure:
    steps = np.arange(0, 401, 20.0)
    mean = 3.7 + 3.0 * np.exp(-steps / 50)
    curves = [Curve(label, steps, mean + 0.01 * i, mean - 0.02, mean + 0.05, 6) for i, label in enumerate(LABELS[:n])]
    return draw_curves(curves, LOOKS, x_label="optimizer step", y_label="val/nll_scaled, nats per token")


def difference(label: str, *values: float, note: str = "undecided") -> Difference:
    mean, half = float(np.mean(values)), 2.6 * float(np.std(values)) / len(values) ** 0.5 if len(values) > 1 else NAN
    return Difference(label, mean, mean - half, mean + half, np.array(values), note)


def forest(items: list[Difference], margin: float | None = 0.01, higher_is_better: bool = False) -> Figure:
    shown = {"metric": "test/nll_scaled, nats per token", "baseline": BASELINE, "higher_is_better": higher_is_better}
    return draw_differences(items, LOOKS, margin=margin, **shown)


def differences_of(n: int) -> Figure:
    labels = [*LABELS[1:], *(f"{label} #{i}" for i in (1, 2) for label in LABELS)][:n]
    values = np.random.default_rng(0).normal(0, 0.01, [n, 3])
    values[0] += 1
    notes = itertools.cycle(["worse", HINT, "undecided"])
    return forest([difference(label, *own, note=note) for label, own, note in zip(labels, values, notes, strict=False)])


def bins(confidence: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    weight = np.full(len(confidence), 50.0)
    return np.stack([weight, weight * accuracy, weight * confidence])[None]  # of one seed


def reliability_of(n: int) -> Figure:
    x = np.linspace(0.05, 0.9, 15)
    items = [Reliability(label, bins(x, x ** (1 + i / 9)), bins(x, x), (0.1234, 0.0)) for i, label in enumerate(LABELS)]
    return draw_reliability(items[:n], LOOKS)


def frequency_of(n: int) -> Figure:
    mean = np.random.default_rng(0).normal(0, 0.01, [12, 5])
    mean[0], mean[1] = [2.0, 3.0, 4.0, 5.0, 8.0], mean[1] + 1
    items = [ByFrequency(label, own, own - 0.01, own + 0.01) for label, own in zip(LABELS, mean, strict=True)]
    return draw_frequency(items[:n], LOOKS, metric="test/nll_scaled", baseline=BASELINE)


def sensitivity_of(n: int) -> Figure:
    x = (0.0003, 0.001, 0.003, 0.01, 0.03)
    mean = 3.7 + 0.1 * (np.arange(5) - 2.0) ** 2
    missing = ("", "", "", "1 failed", "2 diverged")
    items = [Sensitivity(label, x, mean + i / 30, mean, mean + 0.1, 2, missing) for i, label in enumerate(LABELS[:n])]
    return draw_sensitivity(items, LOOKS, axis="optimizer.lr", y_label="val/nll_scaled, nats per token")


KINDS: dict[str, Callable[[int], Figure]] = {
    "curves": curves_of,
    "differences": differences_of,
    "reliability": reliability_of,
    "frequency": frequency_of,
    "sensitivity": sensitivity_of,
}


def texts(figure: Figure) -> Iterator[Text]:
    """Those that are drawn: matplotlib keeps ticks beyond the axis, and does not draw them."""
    beyond = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-9 * (high - low)
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low - slack <= tick.get_loc() <= high + slack:
                    beyond |= {tick.label1, tick.label2}
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text not in beyond:
            yield text


def words(figure: Figure) -> str:
    """All of them, with lines joined as a reader does."""
    return " | ".join(" ".join(text.get_text().split()) for text in texts(figure))


def overlap(one: Bbox, other: Bbox) -> bool:
    shared = Bbox.intersection(one, other)
    return shared is not None and shared.width > 1 and shared.height > 1


def misplaced(figure: Figure) -> list[str]:
    """Labels that the figure's edge cuts off, or that lie on something else."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    found = [(" ".join(text.get_text().split()), text.get_window_extent(renderer)) for text in texts(figure)]
    wrong = [f"{a!r} on {b!r}" for (a, at), (b, bt) in itertools.combinations(found, 2) if overlap(at, bt)]
    edge = figure.bbox.padded(0.5)
    wrong += [f"{a!r} cut off" for a, at in found if not (edge.contains(at.x0, at.y0) and edge.contains(at.x1, at.y1))]
    tight = figure.get_tightbbox(renderer)
    if tight.x0 < 0 or tight.y0 < 0 or tight.x1 > figure.get_figwidth() or tight.y1 > figure.get_figheight():
        wrong.append(f"something is cut off: {tight}")
    for legend, axes in itertools.product(figure.legends, figure.axes):
        if overlap(legend.get_window_extent(renderer), axes.get_tightbbox(renderer)):
            wrong.append("the legend on the axes")
    for one, other in itertools.combinations(figure.axes, 2):
        if overlap(one.get_window_extent(renderer), other.get_window_extent(renderer)):
            wrong.append("axes on axes")
    return wrong


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("n", [1, 3, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_overlaps_or_is_cut_off(kind: str, n: int) -> None:
    figure = KINDS[kind](n)
    assert len(list(texts(figure))) > 5
    assert misplaced(figure) == []


def test_25_differences_have_room() -> None:
    assert misplaced(differences_of(25)) == []


def test_the_check_sees_what_is_misplaced() -> None:
    figure = curves_of(1)
    figure.axes[0].text(0.02, 0.5, "a" * 90, transform=figure.axes[0].transAxes)
    figure.axes[0].text(0.1, 0.5, "b", transform=figure.axes[0].transAxes)
    assert any("cut off" in word for word in misplaced(figure))
    assert any("on 'b'" in word for word in misplaced(figure))


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_shown_as_people_wrote_them(kind: str) -> None:
    assert "_private $x_1$ loss^2 $" in words(KINDS[kind](3))
    assert all(not text.get_parse_math() for text in KINDS[kind](3).findobj(Text))


def test_a_loss_looks_the_same_whatever_it_stands_beside() -> None:
    assert looks(LABELS, BASELINE) == looks(LABELS[::-1], BASELINE)
    assert looks(LABELS, BASELINE)[BASELINE] == Look(INK, "-", "o")
    assert next(iter(looks(LABELS, BASELINE))) == BASELINE
    many = looks([f"{i:02}" for i in range(28)], BASELINE)
    assert len({(look.colour, str(look.dash)) for look in many.values()}) == 29
    assert len({look.marker for look in list(many.values())[:6]}) == 6


def test_colours_are_told_apart_on_white_on_black_and_in_grey() -> None:
    others = {look.colour for label, look in LOOKS.items() if label != BASELINE}
    assert len(others) == 7
    assert min(contrast(colour, ground) for colour in others for ground in ("white", "#111111")) >= 3
    first = [luminance(look.colour) for look in list(LOOKS.values())[:4]]
    assert min(abs(a - b) for a, b in itertools.combinations(first, 2)) > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_data_gives_the_same_bytes(kind: str, tmp_path: Path) -> None:
    save(KINDS[kind](3), tmp_path / "first")
    first = inline_svg(KINDS[kind](3))
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "svg.hashsalt": None, "text.parse_math": True}):
        figure = KINDS[kind](3)
        assert inline_svg(figure) == first
        save(figure, tmp_path / "second")
    for kind_of_file in ("svg", "png", "pdf"):
        content = (tmp_path / f"first.{kind_of_file}").read_bytes()
        assert content
        assert content == (tmp_path / f"second.{kind_of_file}").read_bytes(), kind_of_file
    assert len(list(tmp_path.iterdir())) == 6


def test_another_process_on_another_day_draws_the_same_bytes_without_torch(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom comparison import test_figures as t\n"
        "t.save(t.differences_of(3), Path(sys.argv[1]))\n"
        "assert not {'torch', 'lightning', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1", "SOURCE_DATE_EPOCH": "86400"}
    there, here = tmp_path / "there", tmp_path / "here"
    tests = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", program, str(there)], check=True, cwd=tests, env=environment)
    save(differences_of(3), here)
    for kind in ("svg", "png", "pdf"):
        assert Path(f"{there}.{kind}").read_bytes() == Path(f"{here}.{kind}").read_bytes(), kind


def test_figures_inside_one_page_do_not_clash() -> None:
    drawn = [inline_svg(draw(3)) for draw in KINDS.values()]
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in drawn]
    assert all(len(own) > 20 for own in ids)
    assert all(not one & other for one, other in itertools.combinations(ids, 2))
    for svg, own in zip(drawn, ids, strict=True):
        used = set(re.findall(r'href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg))
        assert used
        assert used <= own
        rules = re.findall(r"([^{}>]+)\{", svg)
        assert rules
        assert all(rule.strip().startswith(f"#{ElementTree.fromstring(svg).get('id')} ") for rule in rules)


def test_a_figure_inside_a_page_takes_its_colours_and_width() -> None:
    svg = inline_svg(curves_of(3))
    root = ElementTree.fromstring(svg)
    assert svg.startswith("<svg ")
    assert INK not in svg
    assert "#000000" not in svg
    assert "#ffffff" not in svg
    assert svg.count("currentColor") > 20
    assert root.get("role") == "img"
    assert "_private $x_1$ loss^2 $" in root.get("aria-label", "")
    assert root.get("width") is None
    assert "width:100%" in root.get("style", "")
    assert re.fullmatch(r"0 0 504 [\d.]+", root.get("viewBox", ""))


def test_people_cannot_write_markup_into_the_page() -> None:
    label = '"><script>x</script>--><b>'
    one = np.ones(2)
    curve = Curve(label, one, one, one, one, 1)
    svg = inline_svg(draw_curves([curve], looks([label], label), x_label="<i>", y_label="&"))
    assert "<script" not in svg
    assert "<i>" not in svg
    assert label in ElementTree.fromstring(svg).get("aria-label", "")


def test_values_that_are_not_finite_are_left_out() -> None:
    bad = np.array([NAN, math.inf, -math.inf, NAN, 1.0])
    none = np.full(5, NAN)
    look = looks(["a", "b"], "z")
    for values in (bad, none, none[:0]):
        count = len(values)
        five = values if count else none
        figures = [
            draw_curves([Curve(k, values, values, values, values, 1) for k in "ab"], look, x_label="x", y_label="y"),
            draw_frequency([ByFrequency(k, five, five, five) for k in "ab"], look, metric="m", baseline="z"),
            draw_sensitivity(
                [Sensitivity("a", tuple(range(count)), values, values, values, 0, ("x",) * count)],
                look,
                axis="x",
                y_label="y",
            ),
            draw_reliability(
                [Reliability("a", np.stack([values] * 3)[None], np.zeros([1, 3, 15]), (NAN, math.inf))], look
            ),
        ]
        for figure in figures:
            assert misplaced(figure) == []
            assert ("no finite values" in words(figure)) == (values is not bad) or figure is figures[-1]
    figure = draw_differences(
        [Difference("a", NAN, NAN, math.inf, bad, ""), Difference("b", math.inf, -math.inf, math.inf, none, "x")],
        look,
        metric="m",
        baseline="z",
        margin=None,
        higher_is_better=True,
    )
    assert words(figure).count("no finite value") == 2


def test_a_figure_of_nothing_is_a_figure() -> None:
    shown = {"metric": "m", "baseline": BASELINE}
    figures = [
        draw_curves([], LOOKS, x_label="x", y_label="y", log_x=True),
        draw_differences([], LOOKS, margin=None, higher_is_better=True, **shown),
        draw_reliability([], LOOKS),
        draw_frequency([], LOOKS, **shown),
        draw_sensitivity([], LOOKS, axis="x", y_label="y"),
    ]
    assert [misplaced(figure) for figure in figures] == [[]] * 5


def draw_falling(*shifts: float, sign: float = 1.0, log_x: bool = False) -> Figure:
    steps = np.linspace(0, 1000, 41)
    mean = sign * (3.0 + 5.0 * np.exp(-steps / 40) + 0.2 * np.exp(-steps / 400))
    none = np.full(41, NAN)
    curves = [Curve(LABELS[i], steps, mean + shift, none, none, 1) for i, shift in enumerate(shifts)]
    return draw_curves(curves, LOOKS, x_label="optimizer step", y_label="y", log_x=log_x)


def test_a_high_beginning_is_cut_off_and_that_is_told() -> None:
    figure = draw_falling(0.0, 0.01)
    low, high = figure.axes[0].get_ylim()
    assert low < 3.0 + 0.2 * math.exp(-2.5) < 3.1 < high < 3.5
    assert f"cut off above {high:.3g}" in words(figure)
    figure = draw_falling(0.0, 0.01, sign=-1.0)
    assert f"cut off below −{-figure.axes[0].get_ylim()[0]:.3g}" in words(figure)
    steps = np.arange(5.0)
    straight = draw_curves([Curve(BASELINE, steps, steps, steps, steps, 1)], LOOKS, x_label="x", y_label="y")
    assert "cut off" not in words(straight)


def test_there_is_no_half_an_optimizer_step() -> None:
    steps = np.arange(2.0, 21, 2)
    axes = draw_curves([Curve(BASELINE, steps, steps, steps, steps, 1)], LOOKS, x_label="x", y_label="y").axes[0]
    assert all(tick == round(tick) for tick in axes.get_xticks())


def test_a_curve_that_ends_far_away_does_not_flatten_the_others() -> None:
    figure = draw_falling(0.0, 0.01, 4.0)
    assert np.ptp(figure.axes[0].get_ylim()) < 0.6
    assert f"{LABELS[2]} (n = 1), ends above the axis at 7.016" in words(figure)
    assert words(figure).count("ends above") == 1


def test_a_logarithmic_axis_leaves_out_the_first_step() -> None:
    figure = draw_falling(0.0, 0.01, log_x=True)
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert axes.lines[0].get_xdata()[0] == 25
    assert {"50", "100", "200", "500", "1000"} <= {text.get_text() for text in texts(figure)}


def test_one_point_is_a_mark_with_its_band() -> None:
    one = np.ones(1)
    figure = draw_curves([Curve(BASELINE, one, one, one - 0.5, one + 0.5, 2)], LOOKS, x_label="x", y_label="y")
    axes = figure.axes[0]
    assert axes.lines[0].get_marker() == "o"
    low, high = axes.get_ylim()
    assert low < 0.5 < 1.5 < high
    assert "cut off" not in words(figure)


def test_one_large_difference_leaves_the_small_ones_readable() -> None:
    figure = forest(
        [difference("square", 1.0, 1.1), difference("squentropy", 0.004, 0.006), difference("loss_0", -0.005)]
    )
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    assert low < -0.01 < 0.01 < high < 0.02
    assert [line.get_marker() for line in axes.lines if line.get_color() == LOOKS["square"].colour].count(">") >= 3
    found = words(figure)
    assert "+1.0500 [+0.9581, +1.1419]" in found
    assert "+0.0050 [+0.0032, +0.0068]" in found
    assert "beyond the axis" in found
    assert "within ±0.01 of the baseline" in found


def test_rounding_between_two_names_of_one_loss_is_not_enlarged() -> None:
    figure = forest([difference("square", 1.0, 1.1), difference("squentropy", 1e-7, -1e-7)], margin=None)
    assert figure.axes[0].get_xlim()[1] > 1.1
    assert "beyond the axis" not in words(figure)


def test_one_seed_has_no_interval() -> None:
    figure = forest([difference("square", 0.5, note=HINT)], margin=None)
    assert f"{HINT} +0.500" in words(figure)
    assert "interval" not in words(figure)
    assert "[" not in words(figure)


@pytest.mark.parametrize(("higher", "left", "right"), [(False, "better", "worse"), (True, "worse", "better")])
def test_the_better_side_is_named(higher: bool, left: str, right: str) -> None:
    figure = forest([difference("square", 0.5, 0.6)], higher_is_better=higher)
    at = {text.get_text(): text.get_window_extent().x0 for text in texts(figure)}
    zero = figure.axes[0].transData.transform((0, 0))[0]
    assert at[f"← {left}"] < zero < at[f"{right} →"]


def test_reliability_shows_accuracy_against_confidence() -> None:
    groups = bins(np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.4, 0.8]))
    groups[0, 0, 1] = 0
    figure = draw_reliability([Reliability("square", groups, groups, (0.1, 0.0123))], LOOKS)
    for axes in figure.axes:
        shown = 1 / (1 + np.exp(-axes.lines[1].get_xydata()))
        np.testing.assert_allclose(shown, [[0.1, 0.2], [NAN, NAN], [0.9, 0.8]])  # no line across the empty group
    assert "square: ECE 0.100 → 0.012" in words(figure)


def test_confidences_of_a_language_model_fill_the_axes_of_reliability() -> None:
    """They lie below 0.15, where axes from 0 to 1 show them all in a corner."""
    x = np.geomspace(0.001, 0.15, 15)
    figure = draw_reliability([Reliability("square", bins(x, x * 1.1), bins(x, x), (0.1, 0.0))], LOOKS)
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    places = (axes.lines[1].get_xdata() - low) / (high - low)
    assert places[0] < 0.1 and places[-1] > 0.9 and 0.4 < places[7] < 0.6
    assert "0.01" in [text.get_text() for text in axes.get_xticklabels()]


def test_reliability_has_a_band_over_seeds_and_arrows_where_nothing_is_right() -> None:
    confidence = np.array([0.01, 0.1, 0.5])
    seeds = np.concatenate([bins(confidence, np.array([0.0, accuracy, 0.5])) for accuracy in (0.05, 0.1, 0.2)])
    rates = rates_of(seeds)
    odds = [math.log(accuracy / (1 - accuracy)) for accuracy in (0.05, 0.1, 0.2)]
    middle = math.log(0.35 / 3 / (1 - 0.35 / 3))
    expected = [1 / (1 + math.exp(-(middle + sign * np.std(odds, ddof=1)))) for sign in (-1, 1)]
    np.testing.assert_allclose(rates[:, 1], [0.1, 0.35 / 3, *expected, 150.0])
    axes = draw_reliability([Reliability("square", seeds, seeds, (0.1, 0.1))], LOOKS).axes[0]
    arrows = [line for line in axes.lines if line.get_marker() == "v" and len(line.get_xdata())]
    assert len(arrows) == 1 and arrows[0].get_ydata()[0] == axes.get_ylim()[0]


def test_a_spike_of_the_gradient_norm_is_not_cut_off() -> None:
    steps = np.arange(0.0, 100.0, 10.0)
    mean = np.full(10, 0.5)
    mean[3] = 80.0
    curve = Curve("square", steps, mean, mean * 0.9, mean * 1.1, 3)
    axes = draw_curves([curve], LOOKS, x_label="step", y_label="gradient norm", whole=True).axes[0]
    assert axes.get_ylim()[1] > 80.0 and axes.get_ylim()[0] < 0.5 and axes.get_yscale() == "log"
    assert "cut off" not in words(axes.figure)
    flat = Curve("square", steps, mean * 0 + 2.0, mean * 0 + 1.9, mean * 0 + 2.1, 3)
    assert draw_curves([flat], LOOKS, x_label="step", y_label="norm", whole=True).axes[0].get_yscale() == "linear"


def test_losses_stand_side_by_side_in_each_fifth() -> None:
    axes = frequency_of(12).axes[1]
    marks = [line for line in axes.lines if line.get_linestyle() == "None"]
    x = np.sort(np.concatenate([line.get_xdata() for line in marks]))
    assert len(x) == 11 * 5
    assert np.diff(x).min() > 0.05
    assert all(abs(place - round(place)) < 0.5 for place in x)


def test_a_difference_beyond_the_axis_of_frequencies_is_an_arrow_and_a_number() -> None:
    figure = frequency_of(3)
    own, differences = figure.axes
    assert own.get_ylim()[1] > 8
    assert differences.get_ylim()[1] < 0.1
    assert re.search(r"loss\^2 \$, beyond the axis: \+\d[.\d]* to \+1[.\d]*", words(figure))
    assert [line.get_marker() for line in differences.lines].count("^") == 1


def test_an_axis_of_a_wide_range_is_logarithmic_and_names_what_was_tried() -> None:
    figure = sensitivity_of(1)
    assert figure.axes[0].get_xscale() == "log"
    shown = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert shown == ["0.0003", "0.001", "0.003", "0.01", "0.03"]
    assert "1 failed at 0.01, 2 diverged at 0.03" in words(figure)


def sensitivity_to(*x: object, mean: list[float], best: int = 0) -> Axes:
    values = np.array(mean)
    item = Sensitivity("square", x, values, values, values, best, ("",) * len(x))
    return draw_sensitivity([item], LOOKS, axis="x", y_label="y").axes[0]


def test_other_axes_are_linear_or_categories() -> None:
    assert sensitivity_to(1, 2, 3, mean=[1, 2, 3]).get_xscale() == "linear"
    assert sensitivity_to(0.0, 0.1, 10.0, mean=[1, 2, 3]).get_xscale() == "linear"
    axes = sensitivity_to([0.9, 0.95], None, True, 1, mean=[1, 2, 3, 4])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["[0.9, 0.95]", "None", "True", "1"]


def test_the_spread_of_a_setting_is_a_bar_that_hides_no_other_loss() -> None:
    values = np.array([3.0, 2.0, 2.5])
    items = [Sensitivity(label, (1, 2, 3), values, values - 0.1, values + 0.1, 1, ("",) * 3) for label in LABELS[:2]]
    axes = draw_sensitivity(items, LOOKS, axis="x", y_label="y").axes[0]
    assert not axes.collections, "no areas"
    bars = [line for line in axes.lines if line.get_marker() == "_"]
    assert [tuple(bar.get_ydata()) for bar in bars[:3]] == [(2.9, 3.1), (1.9, 2.1), (2.4, 2.6)]
    places = {line.get_transform().transform((1, 3.0))[0] for line in bars}
    assert len(places) == 2, "those of two losses stand side by side"
    low, high = axes.get_xlim()
    assert low < 1 and high > 3 and high < 4


def test_the_best_value_has_a_ring() -> None:
    axes = sensitivity_to(3, 1, 2, mean=[1.0, 3.0, 0.5], best=2)
    line, ring = axes.lines
    np.testing.assert_array_equal(line.get_xydata(), [[1, 3], [2, 0.5], [3, 1]])
    np.testing.assert_array_equal(ring.get_xydata(), [[2, 0.5]])
    assert ring.get_markerfacecolor() == "none"


def test_a_value_that_nearly_diverged_does_not_flatten_the_others() -> None:
    axes = sensitivity_to(0.001, 0.003, 0.01, 0.1, mean=[3.8, 3.7, 3.9, 90.0], best=1)
    assert axes.get_ylim()[1] < 5
    assert "cut off above" in words(axes.figure)


def test_reach_leaves_out_what_is_far_from_most() -> None:
    assert reach([0.004, 0.006, 1.0]) == 0.006
    assert reach([0.004, 0.006, 1.0], floor=1.01 / FAR) == 1.0
    assert reach([1e-9, 1e-8, 1.0]) == 1.0
    assert reach([0.0, 0.0]) == 0.0
    assert reach([NAN, math.inf]) == 0.0


@pytest.mark.parametrize(
    ("value", "text"),
    [(400, "400"), (0.003, "0.003"), (1e-5, "1e-5"), (25000, "25k"), (1.5e6, "1.5M"), (2e15, "2P"), (-0.5, "−0.5")],
)
def test_ticks_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_wrapping_breaks_at_spaces_evenly_and_inside_a_word_only_at_need() -> None:
    text = "one two three four five six seven eight nine ten"
    lines = wrap(text, 1.5).split("\n")
    assert " ".join(lines) == text
    assert max(width_of(line) for line in lines) <= 1.5
    assert min(width_of(line) for line in lines) > 0.9
    pieces = wrap("x" * 60, 1.5).split("\n")
    assert "".join(pieces) == "x" * 60
    assert max(width_of(piece) for piece in pieces) <= 1.5
    assert wrap("", 1.5) == ""


def test_the_rows_of_a_legend_have_the_losses_in_their_order() -> None:
    labels = [f"loss_{i}" for i in range(7)]
    steps = np.arange(3.0)
    curves = [Curve(label, steps, steps + i, steps, steps + 9, 6) for i, label in enumerate(labels)]
    figure = draw_curves(curves, looks(labels, labels[0]), x_label="optimizer step", y_label="val/nll")
    figure.draw_without_rendering()
    (legend,) = figure.legends
    texts = [(text.get_window_extent(), text.get_text()) for text in legend.get_texts()]
    assert 1 < len({round(box.x0) for box, _ in texts}) < 7, "some rows, and some columns"
    rows = sorted(texts, key=lambda item: (-round(item[0].y0), item[0].x0))
    assert [text for _, text in rows] == [f"{label} (n = 6)" for label in labels]
