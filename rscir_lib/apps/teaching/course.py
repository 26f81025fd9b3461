"""The workbook as a course: checks that answer, a copy for students, a copy for teachers, into `runs/course`.

    python -m rscir_lib.apps.teaching.course                     # every notebook, on the bundled benchmark
    python -m rscir_lib.apps.teaching.course 02 03 05 DATASET_ROOT=~/my_archive  # 02 makes the features that others read

The notebooks are the source: under each exercise a cell tagged `solution`, then one tagged `exercise` that checks its
`answer`. The student's copy has neither solutions nor outputs; in the teacher's copy every solution has run, and each
check has been tried on typical wrong answers.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from copy import deepcopy
from functools import cached_property
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
from papermill.parameterize import parameterize_notebook

from rscir_lib.apps.commands import workbook
from rscir_lib.apps.teaching.exercises import EXERCISES, Truth
from rscir_lib.evaluation import evaluate
from rscir_lib.evaluation.metrics import CUTOFFS
from rscir_lib.methods.base import Method
from rscir_lib.runs import Run
from rscir_lib.search import Searcher
from rscir_lib.storage.atomic import write_text
from rscir_lib.storage.measuring import measured
from rscir_lib.storage.project import ROOT

# how far from the truth an answer may be: one decimal where tables have one; a relative distance for "number"
TOLERANCES = {"%": 0.051, "points": 0.051, "share": 6e-4, "cosine": 1e-3, "number": 0.01, "lambda": 1e-9}
TOLERANCES |= {"rank": 0, "count": 0, "name": 0}
# not run with the notebook, by papermill and by nbval
SKIPPED = ["skip-execution", "nbval-skip"]
BLANK = "answer = ...  # yours"


class Checks:
    """`check = Checks(run, QUERY=QUERY)`; then `check("03.1", answer)` says right, or what is off.

    run: of `runs.open_run`. parameters: those of the notebook that its exercises depend on. The truth is worked out
    from them (`rscir_lib.apps.teaching.exercises`) when it is first asked for, and is not shown.
    """

    def __init__(self, run: Run, **parameters: object) -> None:
        self.run, self.parameters = run, parameters
        self._truths: dict[str, Truth] = {}
        self._rows: dict[tuple, pd.DataFrame] = {}

    def __call__(self, number: str, answer: object) -> None:
        """Prints whether `answer` is right. Raises ValueError for a number that no exercise has."""
        try:
            found = compare(answer, self.truth(number))
        except OSError as error:
            found = f"it can't be checked yet: {error}"
        print(f"{number}: {found or 'right'}.")

    def prove(self, number: str, answer: object) -> None:
        """Checks `answer` and then typical wrong ones, for teachers; the command line counts what this prints."""
        truth = self.truth(number)
        told = {message: compare(wrong, truth) for message, wrong in mistakes(truth).items()}
        print(f"{number}: {compare(answer, truth) or 'right'}; {sum(map(bool, told.values()))} wrong answers refused:")
        print("\n".join(f"  {message}" for message in told.values() if message))

    def truth(self, number: str) -> Truth:
        """What is right. Raises ValueError for a number that no exercise has."""
        if number not in EXERCISES:
            raise ValueError(f"no exercise {number!r}; there are {', '.join(EXERCISES)}")
        if number not in self._truths:
            self._truths[number] = EXERCISES[number](self)
        return self._truths[number]

    # --- what truths are made of

    def __getitem__(self, name: str) -> object:
        if name not in self.parameters:
            raise ValueError(f"this exercise needs {name}: Checks(run, {name}={name})")
        return self.parameters[name]

    @property
    def device(self) -> str:
        """Where to evaluate, as the run was opened."""
        return self.run.parameters["DEVICE"]

    @cached_property
    def x(self) -> np.ndarray:
        """The features (N, d) in float64, in archive order."""
        return self.run.features.aligned(self.run.archive).astype(np.float64)

    def encode(self, texts: list[str]) -> np.ndarray:
        """Texts (n) to features (n, d) in float32."""
        return self.run.encoder.encode_texts(texts)

    def texts(self, texts: list[str]) -> np.ndarray:
        """The same in float64."""
        return self.encode(texts).astype(np.float64)

    @property
    def benchmark(self):
        """The run's benchmark."""
        return self.run.benchmark

    @cached_property
    def by_hand(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Similarities (N,) to the image and to the text of the query in QUERY, and what is relevant to it."""
        query = self.benchmark.queries.loc[self["QUERY"]]
        text = self.texts([query["text"]])[0]
        return self.x @ self.x[query["position"]], self.x @ text, self.benchmark.targets[query["target"]]

    @cached_property
    def ask(self) -> Searcher:
        """The archive, to be asked."""
        return Searcher(self.run.features, self.run.encoder, self.run.archive)

    def rows(
        self, methods: Sequence[str | Method], lambdas: Sequence[float], cutoffs: Sequence[int] = CUTOFFS
    ) -> pd.DataFrame:
        """`evaluate` on the run, once for the same methods by name."""
        key = (*methods, *lambdas, *cutoffs)
        if key not in self._rows:
            self._rows[key] = evaluate(
                self.benchmark, self.run.features, self.encode, methods, lambdas, self.device, False, cutoffs
            )
        return self._rows[key]


# --- comparing


def compare(answer: object, truth: Truth) -> str:
    """What is off in an answer, without giving the right one away; "" where it is right."""
    if answer is ... or answer is None:
        return "no answer yet: put yours into `answer`"
    try:
        found = _plain(answer, truth.value)
    except (TypeError, ValueError) as error:
        return str(error)
    right = _plain(truth.value, truth.value)
    if _near(found, right, truth.unit):
        return ""
    for told, wrong in mistakes(truth).items():
        if _near(found, _plain(wrong, truth.value), truth.unit):
            return told
    if np.ndim(right):
        if _near(np.sort(found), np.sort(right), truth.unit):
            return "the right numbers in another order"
        good = sum(_near(one, other, truth.unit) for one, other in zip(found, right, strict=True))
        return f"{good} of {len(right)} numbers are right"
    return "not that; look again at what is asked"


def mistakes(truth: Truth) -> dict[str, object]:
    """Typical wrong answers, by what is said of them: the exercise's own, and those of its unit and shape."""
    found = dict(truth.mistakes)
    if not isinstance(truth.value, str):
        value = truth.value if isinstance(truth.value, pd.Series) else np.asarray(truth.value, float)
        if truth.unit in ("%", "points"):
            found["a fraction, it seems; per cent or points are asked"] = value / 100
            found["rounded too far; one decimal is asked"] = np.round(value)
        if truth.unit == "points":
            found["the right size, but the wrong sign"] = -value
        if truth.unit == "share":
            found["per cent, it seems; a number from 0 to 1 is asked"] = 100 * value
        if truth.unit == "rank":
            found["off by one: the first rank is 1, while Python counts from 0"] = value - 1
        if truth.unit == "count":
            found["off by one"] = value + 1
        if np.ndim(value) and len(value) > 1:
            found["the right numbers in another order"] = np.roll(value, 1)
    right = _plain(truth.value, truth.value)
    return {told: wrong for told, wrong in found.items() if not _near(_plain(wrong, truth.value), right, truth.unit)}


def _near(found: str | np.ndarray, right: str | np.ndarray, unit: str) -> bool:
    if isinstance(right, str):
        return found == right
    far = TOLERANCES[unit] * (np.abs(right) if unit == "number" else 1)
    return bool((np.abs(found - right) <= far).all())


def _plain(value: object, like: object) -> str | np.ndarray:
    """A value as text or numbers, in the order of `like`. Raises TypeError or ValueError that say what it is not."""
    if isinstance(like, str):
        if not isinstance(value, str):
            raise TypeError(f"{_asked(like)}, not {_kind(value)}")
        return value.strip().casefold()
    if isinstance(like, pd.Series) and isinstance(value, dict | pd.Series):
        value = pd.Series(value)
        if missing := [str(name) for name in like.index if name not in value.index]:
            raise ValueError(f"a number is missing for {', '.join(missing[:3])}")
        value = value[like.index]
    try:
        found = np.asarray(value, float)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{_asked(like)}, not {_kind(value)}") from None
    if found.shape != np.shape(like):
        raise ValueError(f"the wrong shape: {_asked(like)}, not {_kind(value)}")
    if not np.isfinite(found).all():
        raise ValueError("there is something that is no finite number: divided by zero, or the mean of nothing?")
    return found


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "a text"
    if np.ndim(value) == 0:
        return "one number" if isinstance(value, int | float | np.number) else f"a {type(value).__name__}"
    what = "numbers" if np.asarray(value).dtype.kind in "biuf" else "values that are no numbers"
    return " x ".join(map(str, np.shape(value))) + f" {what}"


def _asked(like: object) -> str:
    return f"{_kind(like)} {'are' if np.ndim(like) else 'is'} asked"


# --- copies


def _tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def student_copy(notebook: nbformat.NotebookNode, parameters: dict | None = None) -> nbformat.NotebookNode:
    """A notebook without solutions and outputs, the checks in place; its parameters are those given."""
    notebook = deepcopy(notebook)
    if parameters:
        notebook.metadata["papermill"] = {}  # what papermill looks for
        for cell in notebook.cells:
            cell.metadata.setdefault("tags", [])
        notebook = parameterize_notebook(notebook, parameters)
        del notebook.metadata["papermill"]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "solution" in _tags(cell):
            cell.source, cell.metadata = BLANK, nbformat.NotebookNode()
    return notebook


def teacher_copy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook whose solutions and checks run with it; a check tries wrong answers too."""
    notebook = deepcopy(notebook)
    for cell in notebook.cells:
        if {"solution", "exercise"} & set(_tags(cell)):
            cell.metadata = nbformat.NotebookNode(tags=[tag for tag in _tags(cell) if tag not in SKIPPED])
            cell.source = re.sub(r"^check\(", "check.prove(", cell.source, flags=re.MULTILINE)
    return notebook


def copy_pages(folder: Path) -> None:
    """The pages that notebooks lead to, with their figures; what else they lead to in the project stays behind."""
    shutil.copytree(workbook.NOTEBOOKS / "book", folder, dirs_exist_ok=True)
    shutil.copytree(ROOT / "figures", folder / "figures", dirs_exist_ok=True)
    for path in folder.glob("*.md"):
        text = path.read_text(encoding="utf-8").replace("](../../figures/", "](figures/")
        write_text(path, re.sub(r"(?<!!)\[([^\]]+)\]\(\.\./\.\./[^)]*\)", r"\1", text))


def hand_out(copy: nbformat.NotebookNode, path: Path) -> None:
    """Write a student's copy, unless somebody has worked in the one that is there."""
    if path.exists():
        there = nbformat.read(path, as_version=4)
        if [cell.source for cell in there.cells] != [cell.source for cell in copy.cells]:
            print(f"kept, since its cells are other ones by now: {path}; delete it to have it anew")
            return
    nbformat.write(copy, path)


def proven(notebook: nbformat.NotebookNode) -> pd.DataFrame:
    """The exercises of an executed teacher's copy: by number, whether the solution is `right`, and how many wrong
    answers were `refused`."""
    checks = [cell for cell in notebook.cells if "exercise" in _tags(cell)]
    numbers = re.findall(r'^check\.prove\("(.+?)"', "\n".join(cell.source for cell in checks), re.MULTILINE)
    printed = "\n".join(out.get("text", "") for cell in checks for out in cell.outputs)
    said = re.findall(r"^(\d\d\.\d+): (.*); (\d+) wrong answers refused:$", printed, re.MULTILINE)
    found = {number: (told == "right", int(refused)) for number, told, refused in said}
    rows = [found.get(number, (False, 0)) for number in numbers]
    return pd.DataFrame(rows, numbers, ["right", "refused"])


def _told(table: pd.DataFrame) -> str:
    right, refused = table["right"].sum(), table["refused"].sum()
    return f"{len(table)} exercises, {right} solutions proven, {refused} wrong answers refused"


def main(argv: list[str] | None = None) -> int:
    """The command line; exit code 1 where a solution is not right, or a check refuses fewer than two wrong answers."""
    parser = argparse.ArgumentParser(
        prog="python -m rscir_lib.apps.teaching.course", description=__doc__.split("\n")[0]
    )
    parser.add_argument("words", nargs="*", metavar="NOTEBOOK | KEY=value", help="which (default: all); parameters")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "course", help="folder of the two copies")
    args = parser.parse_intermixed_args(argv)
    given = {"OUTPUT_ROOT": str(args.out / "results")} | dict(w.split("=", 1) for w in args.words if "=" in w)
    names = [word for word in args.words if "=" not in word]
    tables = []
    try:
        plan = workbook.resolve_parameters(workbook.select_notebooks(names), given)
        for who in ("student", "teacher"):
            copy_pages(args.out / who / "book")
        sources = {path: nbformat.read(path, as_version=4) for path in plan}
        for path, parameters in plan.items():
            theirs = {name: value for name, value in parameters.items() if name != "OUTPUT_ROOT"}
            hand_out(student_copy(sources[path], theirs), args.out / "student" / path.name)
        print(f"for students: {args.out / 'student'}", flush=True)
        for path, parameters in plan.items():
            copy = args.out / "teacher" / path.name
            nbformat.write(teacher_copy(sources[path]), copy)
            seconds, mib, done = measured(workbook.execute, copy, copy, parameters, timeout=3600)
            tables.append(proven(done))
            print(f"{path.stem}: {_told(tables[-1])}, {seconds:.0f} s, {mib:,.0f} MiB", flush=True)
    except workbook.FAILURES as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    table = pd.concat(tables)
    print(f"all: {_told(table)}")
    print(f"for teachers: {args.out / 'teacher'}")
    if weak := [*table.index[~table["right"] | (table["refused"] < 2)]]:
        print(f"error: not proven, or fewer than two wrong answers refused: {', '.join(weak)}", file=sys.stderr)
    return 1 if weak else 0


if __name__ == "__main__":
    sys.exit(main())
