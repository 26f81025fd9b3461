"""What a paper takes from finished runs: tables, figures, and a methods paragraph with versions, digests and citations.

The files are those that the notebooks wrote beside each CSV and PNG; notebook 09 says what a run rests on.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from string import Template

import pandas as pd

from rscir_lib.runs import latex_words
from rscir_lib.storage.atomic import copy_file, write_text
from rscir_lib.storage.digests import sha256_of
from rscir_lib.storage.project import DATA

BIBLIOGRAPHY, PAPER, METHODS = (DATA / "published" / name for name in ("references.bib", "paper.tex", "methods.tex"))
# a method's or encoder's source: the entry of the bibliography that names it
ENTRIES = re.findall(r"@\w+\{(\w+),[^@]*?keywords = \{(.*?)\}", BIBLIOGRAPHY.read_text(encoding="utf-8"))
CITED = {name: key for key, names in ENTRIES for name in names.split(", ")}


def write_paper(runs: Sequence[Path], out: Path) -> Path:
    """Writes `paper.tex`, which shows all, `methods.tex`, `references.bib`, and a folder of tables and figures a run.

    Any name is shown as it is; the copies of files whose names LaTeX can't take have others (`_plain`). Letters beyond
    Latin ones, in names of your own, ask for XeLaTeX or LuaLaTeX with a font that has them: pdfLaTeX says so and stops.

    Raises FileNotFoundError where notebook 09 hasn't run, ValueError for two runs of one name.
    """
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(f"{', '.join(map(str, runs))}: two runs of one name would share a folder")
    paragraphs, shown = [], []
    for run, name in zip(runs, names, strict=True):
        words = {"dtype": str, "keep_default_na": False}  # an archive named NA is one
        files = sorted([*run.glob("tables/*.tex"), *run.glob("figures/*.pdf")])
        if not files or not (run / "tables" / "09_facts.csv").is_file():
            raise FileNotFoundError(f"{run} lacks tables/09_facts.csv, or tables and figures: run notebook 09 there")
        try:
            methods = pd.read_csv(file := run / "tables" / "09_map.csv", **words)["method"]
            facts = pd.read_csv(file := run / "tables" / "09_facts.csv", index_col=0, **words)["value"]
            paragraphs.append(methods_paragraph(facts, methods))
        except KeyError as error:
            raise ValueError(f"{file} has no {error}, as those of an older version: run notebook 09 again") from None
        shown.append(f"\\section*{{{latex_words(name)}}}")
        for file in files:
            place = Path(_plain(name)) / (_plain(file.stem) + file.suffix)
            (out / place.parent).mkdir(parents=True, exist_ok=True)
            copy_file(file, out / place)
            show = f"\\{'input' if file.suffix == '.tex' else 'includegraphics'}{{{place.as_posix()}}}"
            caption = latex_words(file.stem)
            shown.append(f"\\begin{{figure}}[p]\\fit{{{show}}}\\caption{{{caption}}}\\end{{figure}}\\clearpage")
    copy_file(BIBLIOGRAPHY, out / "references.bib")
    write_text(out / "methods.tex", "\n\n".join(paragraphs) + "\n")
    if others := {file.parent.name for file in out.glob("[!.]*/*.*")} - set(map(_plain, names)):
        print(f"{out} also holds {', '.join(sorted(others))}, no part of this paper: delete what you don't need")
    return write_text(out / "paper.tex", PAPER.read_text("utf-8").replace("% tables and figures", "\n".join(shown)))


def _plain(name: str) -> str:
    """A file name that TeX reads: the same where it can be, else without its specials, and with a digest."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    return name if plain == name else f"{plain}-{sha256_of(name)[:8]}"


def methods_paragraph(facts: pd.Series, methods: Sequence[str]) -> str:
    """What one run did, in LaTeX, from its facts (`Run.facts`) and the methods that it compared."""

    def cited(name: str) -> str:
        keys = [CITED[part] for part in (name, name.removesuffix("+qe"), name.split("-")[0]) if part in CITED]
        return latex_words(name) + (f"~\\cite{{{keys[0]}}}" if keys else "")

    words = {key: latex_words(value) for key, value in facts.items()}
    prompt = f", texts read in ``{words['template']}''" if words["template"] != r"\{\}" else ""
    words |= {"encoder": cited(facts["encoder"]), "weights": latex_words(facts["weights"][:16]), "prompt": prompt}
    words["methods"] = ", ".join(map(cited, methods))
    words["software"] = ", ".join(words[key] for key in facts.index if key.startswith("version"))
    return Template(METHODS.read_text("utf-8").strip()).substitute(words)
