"""UCMCom: queries from the multi-labels, captions and class names of UC Merced, by the rule on the protocol page."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rscir_lib.archive import read_archive
from rscir_lib.benchmarks.base import Benchmark, ValidationReport, benchmark_of_labels, label_rows
from rscir_lib.benchmarks.captions import read_captions
from rscir_lib.benchmarks.image_names import ImageNames
from rscir_lib.benchmarks.multilabels import MIN_LABELLED, read_table, varying

# the classes whose captions count a thing, and the words for it
COUNTED = {
    "airplane": "airplane", "baseballdiamond": "baseball diamond", "sparseresidential": "house|villa",
    "storagetanks": "storage tank", "tenniscourt": "tennis court",
}  # fmt: skip
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
# So many of an image's five captions must give its number, and none another. One alone may be a slip; with more, fewer
# images have a number.
AGREE = 2
DENSITY = {"denseresidential": "dense", "mediumresidential": "medium", "sparseresidential": "sparse"}


def read_ucmcom(root: str | Path, listing: str | Path | None = None) -> Benchmark:
    """Existence, quantity and density queries of `multilabels.tsv` and `captions.json`, as UC Merced has them.

    Args:
        root, listing: As those of `read_benchmark`.

    Raises:
        ValueError: As `read_table` and `read_captions`; or nothing can be asked.
    """
    archive, report = read_archive(root, listing), ValidationReport()
    table = read_table(archive, listing, report)
    captions = read_captions(archive.root / "captions.json", archive, listing, report)
    names, classes = ImageNames(archive), np.array(archive.classes)
    rows: list[pd.DataFrame] = []
    texts: list[tuple[str, str, str]] = []
    unknowns: list[np.ndarray] = []

    def ask(attribute: str, group: str, values: pd.Series, wanted: Sequence[str], unknown: int = -1) -> None:
        rows.append(label_rows(names, attribute, group, values, unknown))
        texts.extend((attribute, group, text) for text in wanted)

    for group, word, values in varying(archive, table):
        ask("existence", group, values, [word, f"no {word}"])
    for cls in dict.fromkeys(cls for cls in archive.classes if cls in COUNTED):
        members = np.flatnonzero(classes == cls)
        numbers = pd.Series([agreed_number(captions[i], COUNTED[cls]) for i in members], index=members, dtype=object)
        often = numbers.value_counts()
        wanted = [number for number in NUMBERS if often.get(number, 0) >= MIN_LABELLED]
        if len(wanted) < 2:
            continue
        unknowns.append(members[numbers.isna()])
        ask("quantity", cls, numbers.dropna(), wanted, len(unknowns) - 1)
        if len(unknowns[-1]):
            problem = "no number that their captions agree on: unknown, left out of the rankings of this group"
            report.add("captions.json", None, f"{len(unknowns[-1])} images of {cls}", problem)
    family = np.flatnonzero(np.isin(classes, list(DENSITY)))
    densities = pd.Series([DENSITY[classes[i]] for i in family], index=family, dtype=object)
    if densities.nunique() > 1:
        ask("density", "residential", densities, list(dict.fromkeys(densities)))
    if not rows:
        raise ValueError(f"{archive.root}: no label varies within a class: there is nothing to ask; label more images")
    return benchmark_of_labels(archive, "ucmcom", pd.concat(rows, ignore_index=True), report, texts, unknowns)


def number_of(caption: str, thing: str) -> str | None:
    """The number of things in a caption, as a number word; None where the caption doesn't give it plainly.

    It does where it counts the thing once ("two white airplanes", "an airplane"), without another number word ("one big
    and two small airplanes"), without "another", and without kinds or sizes in between ("four kinds of airplanes").
    """
    words = caption.lower()
    number = "|".join(NUMBERS)
    counted = re.findall(rf"\b(an?|{number}) ((?:\w+ ){{0,3}}?)(?:{thing})s?\b", words)
    others = len(re.findall(rf"\b(?:{number}|another)\b", words))
    if len(counted) != 1 or re.search(r"\b(?:an?|and|of|kinds?|sizes?|with|in|on)\b", counted[0][1]):
        return None
    first = counted[0][0]
    return {"a": "one", "an": "one"}.get(first, first) if others == (first in NUMBERS) else None


def agreed_number(captions: Sequence[str], thing: str) -> str | None:
    """The number that at least `AGREE` captions of an image give and none contradicts; None where there is none."""
    numbers = [number for number in (number_of(caption, thing) for caption in captions) if number]
    return numbers[0] if len(numbers) >= AGREE and len(set(numbers)) == 1 else None
