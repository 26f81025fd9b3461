"""The figures: they show what they are given, and leave nothing open behind them."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from rscir_lib import plots

TICK = "\N{CHECK MARK}"
COLUMNS = ["Color", "Shape", "Avg"]


@pytest.fixture
def read(tmp_path):
    """Five small images of uneven sizes and modes, by position."""
    for i, (mode, size) in enumerate(
        [("RGB", (40, 40)), ("L", (30, 50)), ("RGB", (8, 5)), ("RGBA", (9, 9)), ("P", (7, 7))]
    ):
        Image.new(mode, size, 90).save(tmp_path / f"{i}.png")
    return lambda position: Image.open(tmp_path / f"{position}.png")


@pytest.fixture
def table():
    """A summary table: one method without lambda, one with three."""
    index = pd.MultiIndex.from_tuples(
        [("image", np.nan), ("weicom", 0.0), ("weicom", 0.5), ("weicom", 1.0)], names=["method", "lambda"]
    )
    return pd.DataFrame([[10, 20, 15], [10, 20, 15], [40, 30, 35], [5, 40, 22.5]], index, COLUMNS)


@pytest.fixture(autouse=True)
def no_figure_left_open():
    before = plt.get_fignums()  # of another test in this process
    yield
    assert plt.get_fignums() == before


def words(figure: Figure) -> list[str]:
    """All texts of a figure's panels."""
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def test_gallery_ticks_the_relevant_images(read, tmp_path):
    figure = plots.gallery(read, 0, "oval", {"lambda 0": [0, 1, 2], "lambda 1": [3, 1]}, np.array([1, 3]), "title")
    assert words(figure).count(TICK) == 3
    assert [text for text in words(figure) if text != TICK] == ["+ oval", "lambda 0", "lambda 1"]
    figure.savefig(tmp_path / "gallery.png")
    with Image.open(tmp_path / "gallery.png") as image:
        assert image.width > 400


@pytest.mark.parametrize("text", ["a $5 to $6 sign", "roof $_$ x", r"$\frac$"])
def test_words_with_dollars_are_shown_as_typed(read, tmp_path, text):
    figure = plots.gallery(read, 0, text, {"one row": [0, 1]}, title=text)
    figure.savefig(tmp_path / "gallery.png")
    (shown, *_) = figure.axes[0].texts
    assert shown.get_text().replace("\n", " ") == f"+ {text}"
    assert not shown.get_parse_math()


def test_gallery_without_judgement_frames_nothing(read):
    figure = plots.gallery(read, 0, "large", {"one row": [0, 1]})
    assert TICK not in words(figure)
    assert not figure.axes[0].patches


@pytest.mark.slow
def test_query_sheet_has_a_row_an_example(read):
    figure = plots.query_sheet(read, [(0, "+ two", [1, 2]), (3, "+ dense", [4])], [[1], [4]], "title")
    assert words(figure) == ["+ two", TICK, "+ dense", TICK]
    assert figure.get_suptitle() == "title"
    nobody_judged = plots.query_sheet(read, [(0, "", [1, 2]), (3, "+ dense", [4])], [None, [4]])
    assert words(nobody_judged) == ["", "+ dense", TICK]


def test_histograms_name_mean_and_std():
    figure = plots.similarity_histograms({"image-image": np.array([0.6, 0.7]), "image-text": np.array([0.1, 0.3])})
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["image-image: mean 0.65, std 0.05", "image-text: mean 0.20, std 0.10"]


def test_cdf_steps_marks_the_relevant_images():
    values = np.linspace(0.1, 0.9, 12)
    steps = {"similarity": (values, values[::-1]), "normal CDF": (values, values)}
    figure = plots.cdf_steps(steps, values > 0.7, 0.3)
    assert [ax.get_title() for ax in figure.axes] == ["similarity", "normal CDF", "mixed, lambda = 0.3"]
    assert len(figure.axes[-1].collections[-1].get_offsets()) == (values > 0.7).sum()


def test_lambda_curves_star_the_best_lambda(table):
    figure = plots.lambda_curves(table, chance=pd.Series([1, 2, 1.5], COLUMNS))
    stars = [line.get_xdata()[0] for ax in figure.axes for line in ax.lines if line.get_marker() == "*"]
    assert stars == [0.5, 1.0, 0.5]
    assert [text.get_text() for text in figure.legends[0].get_texts()][-2:] == ["chance", "best lambda"]


def test_attribute_bars_are_as_high_as_the_table(table):
    figure = plots.attribute_bars(table, chance=pd.Series([1, 2, 1.5], COLUMNS))
    heights = [bar.get_height() for container in figure.axes[0].containers for bar in container]
    assert heights == table.to_numpy().ravel().tolist()


def test_lines_on_bars_reach_from_low_to_high(table):
    low, high = table - 1, table + 2
    low.iloc[0, 0] = high.iloc[0, 0] = np.nan
    ax = plots.attribute_bars(table, intervals=pd.concat({"low": low, "high": high})).axes[0]
    ends = [line.get_segments() for line in ax.collections]
    drawn = [[segment[0][1], segment[1][1]] for of in ends for segment in of if len(segment) == 2]
    expected = np.stack([low, high], -1).reshape(-1, 2)
    np.testing.assert_array_equal(drawn, expected[~np.isnan(expected).any(axis=1)])


def test_heat_map_writes_whole_numbers(table):
    assert words(plots.heat_map(table.droplevel("lambda")))[:3] == ["10", "20", "15"]


def test_every_figure_says_what_it_shows(read, table):
    values = np.linspace(0.1, 0.9, 12)
    figures = [
        plots.gallery(read, Image.new("RGB", (9, 9)), "oval", {"lambda 0": [0, 1, 2]}, np.array([1]), "A title"),
        plots.query_sheet(read, [(0, "+ two", [1, 2])], [[1]], "A title"),
        plots.similarity_histograms({"image-image": values}, "A title"),
        plots.cdf_steps({"normal CDF": (values, values)}, values > 0.7, 0.3, "A title"),
        plots.lambda_curves(table, title="A title"),
        plots.heat_map(table.droplevel("lambda"), "A title"),
        plots.attribute_bars(table, title="A title", intervals=pd.concat({"low": table, "high": table})),
    ]
    told = ["1 of 3 relevant", "+ two (1 of 2 relevant)", "mean 0.50", "3 of 12 images are relevant"]
    told += ["weicom best 40.0 at 0.5", "weicom 40 at Color", "image Color 10.0, Shape 20.0, Avg 15.0"]
    for figure, words in zip(figures, told, strict=True):
        assert figure.description.startswith("A title: ")
        assert words in figure.description
        assert figure._repr_mimebundle_()[1]["image/png"]["alt"] == figure.description


@pytest.mark.slow
def test_no_figure_is_taller_than_a_screen(table):
    long = pd.DataFrame(np.arange(900).reshape(90, 10), [(f"attribute {i % 6}", f"value {i}") for i in range(90)])
    heat = plots.heat_map(long)
    assert len(words(heat)) == 900
    wide = pd.DataFrame(np.ones((4, 17)), table.index, [f"attribute {i}" for i in range(17)])
    for figure in (heat, plots.lambda_curves(wide)):
        assert figure.get_figheight() <= 11


@pytest.mark.slow
def test_a_method_has_one_colour_in_every_figure(table):
    """Whatever else is in it, in whatever order; variants and lambdas are lighter; a star says what it means."""
    curves = plots.lambda_curves(table)
    (line,) = {tuple(line.get_color()) for line in curves.axes[0].lines if line.get_label() == "weicom"}
    alone = plots.interval_bars(
        pd.DataFrame({"Avg": [3.0], "low": [1.0], "high": [4.0]}, ["weicom"]), note="* p < 0.05"
    )
    assert alone.axes[0].patches[0].get_facecolor()[:3] == pytest.approx(line)
    assert line == plots.color_of("weicom")
    assert len({plots.color_of(name) for name in plots.NAMED}) == len(plots.NAMED)
    assert sum(plots.color_of("weicom 0.3")) > sum(plots.color_of("weicom 0.9")) > sum(plots.color_of("weicom"))
    assert sum(plots.color_of("basic-dagger")) > sum(plots.color_of("basic"))
    assert plots.color_of("a method of my own") == plots.color_of("a method of my own")
    assert "best lambda" in [text.get_text() for text in curves.legends[0].get_texts()]
    assert "* p < 0.05" in alone.axes[0].get_xlabel()


def test_the_two_distributions_that_lambda_is_read_off():
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(0, 1, 900), rng.normal(4, 0.3, 100)])[None]
    fit = [np.array([value]) for value in (0.0, 1.0, 4.0, 0.3, 0.1)]
    figure = plots.two_normals({"image": (z, fit), "text": (z, fit)})
    assert figure.axes[1].get_title() == "text: D = 4.00, s = 0.30, D / s² = 44.4"
    _, high = figure.axes[0].lines
    x, density = high.get_data()
    assert x[density.argmax()] == pytest.approx(4, abs=0.05)
    assert density.max() == pytest.approx(0.1 / (0.3 * np.sqrt(2 * np.pi)), rel=0.02)
    assert "image: D = 4.00" in figure.description


CJK = "机场港口森林空港공항مطار机"


def made_font(path, letters):
    """A font of squares."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for point in ((100, 700), (800, 700), (800, 0)):
        pen.lineTo(point)
    pen.closePath()
    builder, square = FontBuilder(1000, isTTF=True), pen.glyph()
    names = {ord(letter): f"g{ord(letter)}" for letter in letters}
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    builder.setupGlyf(dict.fromkeys([".notdef", *names.values()], square))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names.values()], (900, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Made Of Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.mark.slow
def test_letters_that_the_usual_font_lacks(read, tmp_path, monkeypatch):
    """Drawn by a font that was installed after matplotlib made its list; without one it is said once."""
    letters = [letter for letter in dict.fromkeys(CJK) if not plots._family_with(letter)]
    if not letters:
        pytest.skip("this machine has fonts for all of them")
    plots._said.clear()
    with pytest.warns(UserWarning, match=rf"no installed font has .*{letters[0]}.*apt install fonts-noto-cjk"):
        plots.gallery(read, 0, CJK, {CJK: [1, 2]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.gallery(read, 0, CJK, {CJK: [1, 2]})  # said already
    font = made_font(tmp_path / "squares.ttf", letters)
    monkeypatch.setattr(plots.font_manager, "findSystemFonts", lambda: [font])
    monkeypatch.setattr(plots.font_manager.fontManager, "ttflist", [*plots.font_manager.fontManager.ttflist])
    plots._family_with.cache_clear()
    plots._said.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plots.gallery(read, 0, CJK, {CJK: [1, 2]})
        figure.savefig(tmp_path / "a.png")  # matplotlib warns of every letter that it lacks
    plots._family_with.cache_clear()
