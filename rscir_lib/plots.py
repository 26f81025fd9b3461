"""The figures. Each function takes arrays or tables and returns a matplotlib Figure for its caller to show or save.

`figure.description` says in words what it shows: it is the alternative text in notebooks, pages and files.
"""

import itertools
import math
import re
import textwrap
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

# one look for all figures, in a palette that colour-blind readers can tell apart
LOOK = {"savefig.dpi": 120, "savefig.bbox": "tight", "pdf.fonttype": 42, "text.parse_math": False}  # names hold $ signs
LOOK["image.composite_image"] = False  # pictures side by side: to put them together first takes a PDF twice as long
sns.set_theme("notebook", "whitegrid", "colorblind", rc=LOOK)
RELEVANT = sns.color_palette()[2]
# methods that have the same colour in every figure; green is left to what is relevant
BRIGHT = ["image", "text", "", "weicom", "linear", "minmax", "rrf", "average", "slerp", "zscore"]
DARK = ["cirevl", "sum", "", "basic", "freedom", "product", "direction", "minimum"]
NAMED = dict(zip(BRIGHT + DARK, sns.color_palette() + sns.color_palette("dark")[: len(DARK)], strict=True))


def color_of(name: str) -> tuple[float, ...]:
    """The colour of a method, its variants (`basic-dagger`, `weicom+qe`) and its lambdas (`weicom 0.3`), the same in
    every figure: variants and small lambdas are lighter. One that is not ours has a colour by its name."""
    base, *lam = re.split(r"[ +-]", name)
    others = sns.husl_palette(24, l=0.5)
    color = NAMED.get(base, others[zlib.crc32(base.encode()) % len(others)])
    try:
        white = 0.5 * (1 - float(lam[0]))
    except (IndexError, ValueError):
        white = 0.35 * bool(lam)
    return tuple(white + (1 - white) * part for part in color)


ROWS_A_PANEL = 32  # of a heat map: as many as a screen shows; further rows go into a panel beside


@cache
def _family_with(letter: str) -> str:
    """The family of an installed font that has a letter, "" for none; those that matplotlib hasn't met count too."""
    manager = font_manager.fontManager
    known = [entry.fname for entry in manager.ttflist if "Last Resort" not in entry.name]  # it draws boxes
    for path in dict.fromkeys([*known, *font_manager.findSystemFonts()]):
        with suppress(OSError, RuntimeError):  # a font that FreeType can't read
            if ord(letter) in font_manager.get_font(path).get_charmap():
                if path not in known:
                    manager.addfont(path)
                return font_manager.FontProperties(fname=path).get_name()
    return ""


_said: set[str] = set()  # letters of which it was said that no font has them


def _choose_fonts(figure: Figure) -> None:
    """Lets a figure's texts fall back to installed fonts for what the usual one lacks; says once what none has."""
    path = font_manager.findfont(font_manager.FontProperties())
    usual = font_manager.FontProperties(fname=path).get_name()
    held = set(map(chr, font_manager.get_font(path).get_charmap()))
    texts = figure.findobj(Text)
    lacking = sorted({letter for text in texts for letter in text.get_text() if letter.isprintable()} - held)
    families = list(dict.fromkeys(filter(None, map(_family_with, lacking))))
    for text in texts if families else ():
        text.set_fontfamily([usual, *families])
    if missing := [letter for letter in lacking if not _family_with(letter) and letter not in _said]:
        _said.update(missing)
        font = "such as Noto Sans CJK for Chinese, Japanese and Korean (Debian: apt install fonts-noto-cjk)"
        boxes = f"no installed font has {''.join(missing[:20])!r}: figures show boxes in their place"
        warnings.warn(f"{boxes}; install one, {font}, and start Python again", stacklevel=4)


def _done(figure: Figure, title: str, description: str, **place: float) -> Figure:
    """The figure, closed, with its title and its description."""
    figure.suptitle(title, **place)
    _choose_fonts(figure)
    plt.close(figure)  # else a notebook shows it twice
    figure.description = f"{title}: {description}" if title else description
    # where a notebook keeps an image's alternative text
    figure._repr_mimebundle_ = lambda **_: ({}, {"image/png": {"alt": figure.description}})
    return figure


Read = Callable[[int], Image.Image]  # the picture at an archive position: archive.read


GAP = 0.06  # between images, in sides of one


def _board(columns: float, rows: float, side: float) -> tuple[Figure, Axes]:
    """A figure of so many images, each `side` inches wide, on one axis: one each would take several times as long."""
    figure = plt.figure(figsize=(side * columns, side * rows))
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, columns), ylim=(rows, 0), autoscale_on=False)
    ax.axis("off")
    return figure, ax


def _show(ax: Axes, image: Image.Image, x: float, y: float, relevant: bool | None = None, side: float = 1) -> None:
    """An image in a frame: green with a tick where it is relevant, thin and grey where not, no frame for None."""
    edge = side - GAP
    ax.imshow(image.convert("RGB").resize((160, 160)), extent=(x, x + edge, y + edge, y), aspect="auto")
    if relevant is not None:
        color, width = (RELEVANT, 5) if relevant else ("0.8", 1)
        ax.add_patch(Rectangle((x, y), edge, edge, fill=False, color=color, linewidth=width, clip_on=False))
    if relevant:
        place = {"va": "top", "ha": "right", "bbox": {"boxstyle": "round,pad=0.15", "color": RELEVANT}}
        ax.text(x + 0.88, y + 0.06, "\N{CHECK MARK}", color="white", size=10, weight="bold", **place)


def query_sheet(
    read: Read,
    examples: Sequence[tuple[int | Image.Image, str, Sequence[int]]],
    relevant: Sequence[Sequence[int] | None],
    title: str = "",
) -> Figure:
    """One query per row: its image, its text, and images that are framed in green where they are relevant.

    Args:
        read: Gives the picture at an archive position.
        examples: For each query its image (a position or a picture), its text, and the positions to show.
        relevant: For each query the positions of its relevant images; None where nobody judged them, for no frames.
    """
    columns = max(len(shown) for *_, shown in examples)
    figure, ax = _board(columns + 2.4, len(examples), 1.5)
    rows = []
    for row, ((query, text, shown), right) in enumerate(zip(examples, relevant, strict=True)):
        rows.append(text + (f" ({_right(shown, right)})" if right is not None else ""))
        _show(ax, _query(read, query), 0, row)
        ax.text(1.02, row + 0.47, textwrap.fill(text, 16, break_long_words=False), va="center", size=12, weight="bold")
        for column, position in enumerate(shown):
            _show(ax, read(position), column + 2.4, row, None if right is None else position in right)
    description = f"{len(examples)} query images, each with a text and {columns} images: {'; '.join(rows)}."
    return _done(figure, title, description, y=1 + 0.25 / len(examples))


def _query(read: Read, query: int | Image.Image) -> Image.Image:
    return query if isinstance(query, Image.Image) else read(query)


def _right(shown: Sequence[int], relevant: Sequence[int]) -> str:
    return f"{len(set(shown) & set(relevant))} of {len(shown)} relevant"


def gallery(
    read: Read,
    query: int | Image.Image | None,
    text: str,
    results: Mapping[str, Sequence[int]],
    relevant: Sequence[int] | None = None,
    title: str = "",
) -> Figure:
    """A composed query on the left; on the right the images retrieved for it, one labelled row per result list.

    Args:
        read: Gives the picture at an archive position.
        query: A position or a picture; None for words alone.
        text: The words; "" for an image alone.
        results: Label -> positions, best first.
        relevant: Positions that get a green frame and a tick; None where nobody judged them, for no frames at all.
    """
    columns, height = max(len(positions) for positions in results.values()), max(len(results), 2)
    figure, ax = _board(columns + 2.6, height, 1.3)
    side, middle, top = min(2.2, height), height / 2, (height - len(results)) / 2
    if query is not None:
        _show(ax, _query(read, query), 0, middle - side / 2, side=side)
    if text:
        words, place = textwrap.fill(f"+ {text}", 18), {"ha": "center", "va": "top"}
        ax.text(side / 2, middle + side / 2, words, size=15, weight="bold", **place)
    rows = []
    for row, (label, shown) in enumerate(results.items()):
        rows.append(f"{label}: {len(shown)} images" + ("" if relevant is None else f", {_right(shown, relevant)}"))
        ax.text(2.56, top + row + 0.47, textwrap.fill(label, 13), size=12, rotation=90, ha="right", va="center")
        for column, position in enumerate(shown):
            _show(ax, read(position), column + 2.6, top + row, None if relevant is None else position in relevant)
    question = " and ".join(["a query image"] * (query is not None) + [f"the text {text!r}"] * bool(text))
    description = f"Images retrieved for {question}. {'; '.join(rows)}."
    return _done(figure, title, description, y=1 + 0.25 / height)


def similarity_histograms(groups: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """Distributions of cosine similarities on one axis, each with its mean: a modality gap shows as means far apart."""
    figure, ax = plt.subplots(figsize=(9, 3.8), layout="constrained")
    names = [f"{label}: mean {np.mean(values):.2f}, std {np.std(values):.2f}" for label, values in groups.items()]
    for color, name, values in zip(sns.color_palette(), names, groups.values(), strict=False):
        sns.histplot(x=values, bins=80, stat="density", element="step", alpha=0.35, color=color, label=name, ax=ax)
        ax.axvline(np.mean(values), color=color, linestyle="--")
    ax.set(xlabel="cosine similarity", ylabel="density")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False)
    return _done(figure, title, f"Histograms of cosine similarities. {'; '.join(names)}.")


def two_normals(sides: Mapping[str, tuple[np.ndarray, Sequence[np.ndarray]]], title: str = "") -> Figure:
    """One query's z-scores (1, N) to its image and its text, each with the two normal distributions that were fitted to
    them (`similarity.lambda_auto.Mixture`): how far the small one lies above the rest, D, and how it spreads, s."""
    figure, axes = plt.subplots(1, len(sides), figsize=(4.8 * len(sides), 4), layout="constrained", squeeze=False)
    words = []
    for ax, (side, ((z,), fit)) in zip(axes.flat, sides.items(), strict=True):
        low, low_std, high, high_std, share = (part.item() for part in fit)
        x = np.linspace(z.min() - 0.5, z.max() + 0.5, 400)
        sns.histplot(x=z, bins=60, stat="density", element="step", alpha=0.3, color=NAMED[side], ax=ax)
        normals = ("the rest", low, low_std, 1 - share, "0.35"), ("the few above", high, high_std, share, RELEVANT)
        for name, mean, std, weight, color in normals:
            density = weight / (std * math.sqrt(2 * math.pi)) * np.exp(-(((x - mean) / std) ** 2) / 2)
            label = f"{name}: {weight:.0%}, {mean + 0:.1f} ± {std:.1f}"
            ax.plot(x, density, color=color, linewidth=2, label=label.replace("-0.0", "0.0"))
        words.append(f"{side}: D = {high - low:.2f}, s = {high_std:.2f}, D / s² = {(high - low) / high_std**2:.1f}")
        ax.set_yscale("function", functions=(np.sqrt, np.square))  # else a small distribution is a flat line
        ax.set(title=words[-1], xlabel=f"z-score to the {side}", ylabel="density, on a root scale", ylim=(0, None))
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False, fontsize=10)
    return _done(figure, title, f"Histograms of z-scores with two normal distributions each. {'; '.join(words)}.")


def cdf_steps(
    steps: Mapping[str, tuple[np.ndarray, np.ndarray]], relevant: np.ndarray, lam: float, title: str = ""
) -> Figure:
    """How one query's similarities to its image and its text get a common scale, and are then mixed.

    The last panel has one dot per archive image; along each grey line the mixed score is the same.

    Args:
        steps: Name of the scale -> (N,) values for the query image and (N,) for the text; the last pair is mixed.
        relevant: (N,) booleans.
        lam: Lambda of the mix, in [0, 1].
    """
    figure, axes = plt.subplots(1, len(steps) + 1, figsize=(3.3 * (len(steps) + 1), 3.7), layout="constrained")
    for ax, (name, (image, text)) in zip(axes, steps.items(), strict=False):
        for values, color, label in [(image, NAMED["image"], "to the image"), (text, NAMED["text"], "to the text")]:
            sns.histplot(x=values, bins=40, stat="density", element="step", alpha=0.35, color=color, label=label, ax=ax)
        ax.set(title=name, ylabel="density" if ax is axes[0] else "")
    axes[0].legend(loc="upper left", fontsize=9)
    axes[0].set_ylim(top=axes[0].get_ylim()[1] * 1.35)  # room for the legend
    grid = np.linspace(0, 1, 50)
    mixed = (1 - lam) * grid[None, :] + lam * grid[:, None]
    ax = axes[-1]
    ax.contour(grid, grid, mixed, levels=np.arange(0.1, 1, 0.1), colors="0.7", linewidths=0.8)
    ax.scatter(image[~relevant], text[~relevant], s=7, color="0.6", label="other")
    ax.scatter(image[relevant], text[relevant], s=26, color=RELEVANT, marker="D", edgecolor="white", label="relevant")
    ax.set(title=f"mixed, lambda = {lam:g}", xlabel="to the image", ylabel="to the text", xlim=(0, 1), ylim=(0, 1))
    ax.legend(loc="lower left", fontsize=9)
    spreads = "; ".join(
        f"{name}: to the image {image.mean():.2f} ± {image.std():.2f}, to the text {text.mean():.2f} ± {text.std():.2f}"
        for name, (image, text) in steps.items()
    )
    mixed = f"both scales against each other, mixed at lambda {lam:g}"
    count = f"{int(relevant.sum())} of {len(relevant)} images are relevant"
    return _done(
        figure, title, f"Histograms of one query's similarities, mean and std ({spreads}), and {mixed}; {count}."
    )


def lambda_curves(table: pd.DataFrame, chance: pd.Series | None = None, title: str = "") -> Figure:
    """mAP against lambda, one panel per column of a table of `summarize`.

    Methods with a lambda are curves with a star at their best, those without are level lines, `chance` is dotted.
    """
    columns = min(max(4, math.ceil(len(table.columns) / 3)), len(table.columns))  # three rows fit on a screen
    rows = math.ceil(len(table.columns) / columns)
    size = (max(3 * columns, 6), 2.7 * rows + 0.9)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    colors, bests = {method: color_of(method) for method in table.index.unique("method")}, []
    dashes = ["--", "-.", (0, (6, 2, 1, 2, 1, 2)), (0, (8, 3))]
    for ax, column in zip(axes.flat, table.columns, strict=False):
        best = {}
        for style, (method, color) in zip(itertools.cycle(dashes), colors.items(), strict=False):
            values = table.loc[method, column]
            best[method] = f"{values.max():.1f}"
            if values.index.isna().all():
                ax.axhline(values.iloc[0], color=color, linestyle=style, linewidth=1.5, label=method)
            else:
                ax.plot(values.index, values, color=color, marker=".", linewidth=2, label=method)
                ax.plot(values.idxmax(), values.max(), "*", color=color, markersize=15, markeredgecolor="white")
                best[method] += f" at {values.idxmax():g}"
        bests.append(f"{column}: " + ", ".join(f"{method} best {value}" for method, value in best.items()))
        if chance is not None:
            ax.axhline(chance[column], color="0.3", linestyle=":", label="chance")
        ax.set(title=column, ylim=(0, None), xlim=(-0.02, 1.02), xlabel="lambda")
    for ax in axes.flat[len(table.columns) :]:
        ax.axis("off")
    figure.supylabel("mAP (%)", size=12)
    handles, _ = axes.flat[0].get_legend_handles_labels()
    star = Line2D([], [], linestyle="", marker="*", color="0.3", markersize=11, label="best lambda")
    figure.legend(handles=[*handles, star], loc="outside lower center", ncols=6, frameon=False)
    return _done(figure, title, f"Curves of mAP in per cent against lambda. {'; '.join(bests)}.")


def heat_map(table: pd.DataFrame, title: str = "", label: str = "mAP (%)") -> Figure:
    """A table as colours and whole numbers; a long one is cut into panels beside each other."""
    panels = max(1, math.ceil(len(table) / ROWS_A_PANEL))
    rows = max(1, math.ceil(len(table) / panels))
    parts = [table.iloc[start : start + rows] for start in range(0, len(table), rows)]
    size = ((0.5 * len(table.columns) + 3) * len(parts) + 1, 0.28 * len(parts[0]) + 1.4)
    figure, axes = plt.subplots(1, len(parts), figsize=size, squeeze=False, layout="constrained")
    for ax, part in zip(axes.flat, parts, strict=True):
        sns.heatmap(
            part, annot=True, fmt=".0f", cmap="cividis", vmin=0, vmax=np.nanmax(table.to_numpy()), linewidths=0.5,
            annot_kws={"size": 10}, cbar=ax is axes.flat[-1], cbar_kws={"label": label}, ax=ax,
        )  # fmt: skip
        ax.tick_params(axis="y", rotation=0)
        ax.set_ylabel("")
    rows = "; ".join(
        f"{_words(name)} {row.max():.0f} at {_words(row.idxmax())}" for name, row in table.dropna(how="all").iterrows()
    )
    return _done(figure, title, f"A table of {label}, {' x '.join(map(str, table.shape))}. Each row's highest: {rows}.")


def _words(name: object) -> str:
    return " ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def attribute_bars(
    table: pd.DataFrame, chance: pd.Series | None = None, title: str = "", intervals: pd.DataFrame | None = None
) -> Figure:
    """mAP per column of a table of `summarize`, one bar per method; a dotted line marks chance.

    `intervals`, as `analysis.intervals` gives them, are drawn as a line on each bar, none where they are NaN.
    """
    names = [method if pd.isna(lam) else f"{method} {lam:g}" for method, lam in table.index]
    figure, ax = plt.subplots(figsize=(max(1.4 * len(table.columns), 6), 4), layout="constrained")
    ends = [] if intervals is None else [intervals.loc[end].to_numpy() for end in ("low", "high")]
    errors = np.stack([np.abs(end - table.to_numpy()) for end in ends], axis=1) if ends else None
    look = {"width": 0.8, "rot": 0, "legend": False, "error_kw": {"ecolor": "0.15", "elinewidth": 1}}
    table.set_axis(names).T.plot.bar(ax=ax, color=list(map(color_of, names)), yerr=errors, **look)
    if chance is not None:
        x = np.arange(len(table.columns))
        ax.hlines(chance[table.columns], x - 0.4, x + 0.4, color="black", linestyle=":", label="chance")
    ax.set(xlabel="", ylabel="mAP (%)")
    ncols = 3 if max(map(len, names)) >= 16 else 7 if len(table.columns) > 4 else 4
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=ncols, frameon=False, fontsize=10)
    rows = "; ".join(
        f"{name} " + ", ".join(f"{column} {value:.1f}" for column, value in zip(table.columns, row, strict=True))
        for name, row in zip(names, table.to_numpy(), strict=True)
    )
    return _done(figure, title, f"Bars of mAP in per cent{', with 95 % intervals' * (intervals is not None)}. {rows}.")


def interval_bars(table: pd.DataFrame, title: str = "", label: str = "Avg mAP (%)", note: str = "") -> Figure:
    """One bar per row: the first column, with a line from column `low` to `high` where there is an interval.

    A column `mark` has signs for the ends of the bars, which `note` explains. The index, its second level where there
    are two, gives the colour.
    """
    names = [_words(name) for name in table.index]
    value, low, high = (table[column].to_numpy(float) for column in (table.columns[0], "low", "high"))
    colors = [color_of(str(name[-1] if isinstance(name, tuple) else name)) for name in table.index]
    figure, ax = plt.subplots(figsize=(9, 0.38 * len(table) + 1.3), layout="constrained")
    y = np.arange(len(table))
    ax.barh(y, value, color=colors, alpha=0.75, xerr=np.abs([value - low, high - value]), ecolor="0.15", capsize=3)
    marks = table.get("mark", [""] * len(table))
    for at, end, mark in zip(y, np.fmax(np.fmax(high, value), 0), marks, strict=True):
        ax.annotate(mark, (end, at), (5, 0), textcoords="offset points", va="center", size=13)
    ax.axvline(0, color="0.15", linewidth=1)
    ax.set(yticks=y, yticklabels=names, xlabel=f"{label}\n{note}" if note else label)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    rows = [
        f"{name} {v:.1f}" + (f" ({a:.1f} to {b:.1f})" if a == a else " (no interval)") + (f" {mark}" if mark else "")
        for name, v, a, b, mark in zip(names, value, low, high, marks, strict=True)
    ]
    return _done(figure, title, f"Bars of {label} with 95 % intervals. {'; '.join(rows)}.")


def share_bars(shares: pd.DataFrame, title: str = "", label: str = "share") -> Figure:
    """One stacked bar per row with a part per column; shares are in [0, 1]."""
    figure, ax = plt.subplots(figsize=(9, 0.42 * len(shares) + 1.8), layout="constrained")
    fixed = {"relevant": RELEVANT, "image alone": NAMED["image"], "text alone": NAMED["text"]}
    others = itertools.cycle([color for color in sns.color_palette() if color not in fixed.values()])
    colors = [fixed.get(name) or next(others) for name in shares]
    shares.plot.barh(stacked=True, ax=ax, color=colors, width=0.8, legend=False, edgecolor="none")
    for bars in ax.containers:
        percent = [f"{100 * width:.0f}" if width >= 0.06 else "" for width in bars.datavalues]
        ax.bar_label(bars, percent, label_type="center", size=9, color="white")
    ax.set(xlim=(0, 1), xlabel=label, ylabel="")
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    rows = "; ".join(
        f"{_words(name)}: " + ", ".join(f"{part} {100 * share:.0f} %" for part, share in row.items())
        for name, row in shares.iterrows()
    )
    return _done(figure, title, f"Stacked bars, {label}. {rows}.")
