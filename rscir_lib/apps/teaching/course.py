"""The workbook as a course: checks that answer, a copy for students, a copy for teachers, into `runs/course`.

The notebooks are the source: under each exercise a cell tagged `solution`, then one tagged `exercise` that checks its
`answer`. The student's copy has neither solutions nor outputs; in the teacher's copy every solution has run, and each
check has been tried on typical wrong answers.
"""

import re
import shutil
from copy import deepcopy
from pathlib import Path

import nbformat
import pandas as pd
from papermill.translators import PythonTranslator

from rscir_lib.apps.commands import workbook
from rscir_lib.apps.teaching.checks import PROOF
from rscir_lib.apps.teaching.exercises import EXERCISES
from rscir_lib.storage.atomic import write_text
from rscir_lib.storage.folders import check_ours
from rscir_lib.storage.measuring import measured
from rscir_lib.storage.project import ROOT

SKIPPED = ["skip-execution", "nbval-skip"]  # tags of cells that papermill and nbval leave out
BLANK = "answer = ...  # yours"


def _tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def student_copy(notebook: nbformat.NotebookNode, parameters: dict | None = None) -> nbformat.NotebookNode:
    """A notebook without solutions and outputs, with its checks, and with these parameters."""
    notebook = deepcopy(notebook)
    for cell in notebook.cells:
        if "parameters" in _tags(cell):  # a line each: of a cell that papermill adds, students would know nothing
            for name, value in (parameters or {}).items():
                line = f"{name} = {PythonTranslator.translate(value)}".replace("\\", "\\\\")
                cell.source = re.sub(rf"^{name} = .*?(?=  # |$)", line, cell.source, flags=re.MULTILINE)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "solution" in _tags(cell):
            cell.source, cell.metadata = BLANK, nbformat.NotebookNode()
    return notebook


def teacher_copy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook whose solutions and checks run with it, each check also on wrong answers."""
    notebook = deepcopy(notebook)
    for cell in notebook.cells:
        if {"solution", "exercise"} & set(_tags(cell)):
            cell.metadata = nbformat.NotebookNode(tags=[tag for tag in _tags(cell) if tag not in SKIPPED])
            cell.source = re.sub(r"^check\(", "check.prove(", cell.source, flags=re.MULTILINE)
    return notebook


def copy_pages(folder: Path) -> None:
    """Copies the pages that notebooks link to, with their figures; their links to other files become plain text."""
    shutil.copytree(workbook.NOTEBOOKS / "book", folder, dirs_exist_ok=True)
    shutil.copytree(ROOT / "figures", folder / "figures", dirs_exist_ok=True)
    for path in folder.glob("*.md"):
        text = path.read_text(encoding="utf-8").replace("](../../figures/", "](figures/")
        write_text(path, re.sub(r"(?<!!)\[([^\]]+)\]\(\.\./\.\./[^)]*\)", r"\1", text))


def hand_out(copy: nbformat.NotebookNode, path: Path) -> None:
    """Write a student's copy, unless somebody has worked in the one that is there."""
    try:
        existing = nbformat.read(path, as_version=4).cells if path.exists() else copy.cells
    except (ValueError, nbformat.reader.NotJSONError):  # half of one, from a version that wrote such
        print(f"kept, since it can't be read: {path}; delete it to have it written anew")
        return
    if [cell.source for cell in existing] == [cell.source for cell in copy.cells]:
        write_text(path, nbformat.writes(copy) + "\n")
    else:
        print(f"kept, since somebody has changed its cells: {path}; delete it to have it written anew")


def proofs(notebook: nbformat.NotebookNode, name: str) -> pd.DataFrame:
    """Whether each solution of the executed teacher's copy is `right`, and how many wrong answers were `refused`.

    The index is the numbers of the exercises of notebook `name`; False and 0 where a check has not run.
    """
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output.data[PROOF] for output in outputs if PROOF in output.get("data", {})]
    by_number = {proof["exercise"]: (proof["right"], proof["refused"]) for proof in shown}
    numbers = [number for number in EXERCISES if number[:2] == name[:2]]
    return pd.DataFrame([by_number.get(number, (False, 0)) for number in numbers], numbers, ["right", "refused"])


def _summary(table: pd.DataFrame) -> str:
    right, refused = table["right"].sum(), table["refused"].sum()
    return f"{len(table)} exercises, {right} solutions proven, {refused} wrong answers refused"


def write_course(names: list[str], given: dict[str, str], out: Path) -> None:
    """Writes both copies of notebooks into `out`, and runs the teachers' with the given parameters.

    Raises RuntimeError where a solution is not right, or a check refuses fewer than two wrong answers.
    """
    given = {"OUTPUT_ROOT": str(out / "results")} | given
    plan = workbook.resolve_parameters(workbook.select_notebooks(names), given)
    if before := workbook.needed_first(plan):
        every = " ".join(sorted({*before, *(path.stem[:2] for path in plan)}))
        raise ValueError(f'needed first, and not there yet: {", ".join(before)}; give ARGS="{every}"')
    for who in ("student", "teacher"):
        check_ours(out / who, "book")
        copy_pages(out / who / "book")
    for path, parameters in plan.items():
        theirs = {name: value for name, value in parameters.items() if name != "OUTPUT_ROOT"}
        hand_out(student_copy(nbformat.read(path, as_version=4), theirs), out / "student" / path.name)
    print(f"for students: {out / 'student'}", flush=True)
    tables = []
    for path, parameters in plan.items():
        copy = out / "teacher" / path.name
        write_text(copy, nbformat.writes(teacher_copy(nbformat.read(path, as_version=4))))
        seconds, mib, done = measured(workbook.execute, copy, copy, parameters, timeout=3600)
        tables.append(proofs(done, path.stem))
        print(f"{path.stem}: {_summary(tables[-1])}, {seconds:.0f} s, {mib:,.0f} MiB", flush=True)
    table = pd.concat(tables)
    print(f"all: {_summary(table)}\nfor teachers: {out / 'teacher'}")
    if weak := [*table.index[~table["right"] | (table["refused"] < 2)]]:
        raise RuntimeError(f"not proven, or fewer than two wrong answers refused: {', '.join(weak)}")
