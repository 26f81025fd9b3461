"""The course: every solution right by its check, typical wrong answers refused, nothing given away in the copies."""

import re

import nbformat
import numpy as np
import pandas as pd
import pytest

from rscir_lib.apps.commands import cli, workbook
from rscir_lib.apps.teaching import course
from rscir_lib.apps.teaching.checks import Checks, compare, mistakes
from rscir_lib.apps.teaching.context import Truth
from rscir_lib.apps.teaching.course import BLANK, SKIPPED
from rscir_lib.apps.teaching.exercises import EXERCISES
from rscir_lib.benchmarks.synthcom import draw_synthcom

PER_CENT = Truth(pd.Series({"image": 12.3, "text": 45.6}), "%")
RANKS = Truth([3, 71], "rank")
NAME = Truth("oval", "name", {"that one gains least": "round"})
NOTEBOOKS = workbook.select_notebooks([])


def read(path):
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize(
    ("truth", "answer"),
    [
        (PER_CENT, {"text": 45.6, "image": 12.3}),
        (PER_CENT, pd.Series({"text": 45.62, "image": 12.28, "average": 50.0})),
        (PER_CENT, np.array([12.3, 45.6])),
        (RANKS, (3, np.int64(71))),
        (NAME, " Oval"),
        (Truth(0.25, "share"), np.float64(0.2503)),
        (Truth(0.031, "number"), 0.0311),
        (Truth(7, "count"), 7.0),
    ],
)
def test_right_answers_in_any_form(truth, answer):
    assert compare(answer, truth) == ""


@pytest.mark.parametrize(
    ("truth", "answer", "told"),
    [
        (PER_CENT, {"text": 0.456, "image": 0.123}, "looks like a fraction"),
        (PER_CENT, {"text": 12.3, "image": 45.6}, "in another order"),
        (PER_CENT, {"text": 45.6}, "missing for image"),
        (PER_CENT, 45.6, "2 numbers (image, text) are asked, not one number"),
        (PER_CENT, {"text": 46, "image": 12}, "rounded too far; one decimal is asked"),
        (PER_CENT, {"text": 45.6, "image": 13.0}, "1 of 2 numbers are right"),
        (PER_CENT, {"text": 45.6, "image": float("nan")}, "not every value is a finite number"),
        (RANKS, [2, 70], "off by one: the first rank is 1"),
        (RANKS, ["third", "last"], "2 numbers are asked, not a list of 2 texts"),
        (RANKS, ["3", "71"], "2 numbers are asked, not a list of 2 texts"),
        (RANKS, None, "2 numbers are asked, not None"),
        (RANKS, [10**400, 1], "not every value is a finite number"),
        (RANKS, 10**400, "2 numbers are asked, not one number"),
        (RANKS, ..., "no answer yet"),
        (NAME, "round", "that one gains least"),
        (NAME, 3, "a text is asked, not one number"),
        (Truth(4.0, "points"), -4.0, "wrong sign"),
        (Truth(0.25, "share"), 25.0, "looks like per cent"),
        (Truth(7, "count"), 8, "off by one"),
        (Truth(7, "count"), 3, "this is not the right answer"),
    ],
)
def test_wrong_answers_are_told_apart(truth, answer, told):
    said = compare(answer, truth)
    assert told in said
    values = [truth.value] if isinstance(truth.value, str) else np.ravel(truth.value)
    assert not [
        value
        for value in values
        if re.search(rf"(?<![\d.]){re.escape(str(value))}(?![\d.])", said.split("first rank is 1")[0])
    ]


def test_a_mistake_that_happens_to_be_right_is_none():
    assert "the right size, but the wrong sign" not in mistakes(Truth(0.0, "points"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_copies(path):
    """The student's has neither solution nor output, and every check; the teacher's runs what the notebook skips."""
    source = read(path)
    solutions = [cell.source for cell in source.cells if "solution" in course._tags(cell)]
    student, teacher = course.student_copy(source), course.teacher_copy(source)
    text = "\n".join(cell.source for cell in student.cells)
    assert not [line for solution in solutions for line in solution.splitlines() if len(line) > 20 and line in text]
    assert not any(cell.get("outputs") for cell in student.cells)
    assert text.count(BLANK) == text.count('check("') == len(solutions)
    assert [c.source for c in student.cells if c.cell_type == "markdown"] == [
        c.source for c in source.cells if c.cell_type == "markdown"
    ]
    run = [cell.source for cell in teacher.cells if not set(SKIPPED) & set(course._tags(cell))]
    assert set(solutions) <= set(run)
    assert sum("check.prove(" in text for text in run) == len(solutions)


@pytest.mark.long
def test_the_command_writes_both_copies_and_proves_the_teachers(tmp_path, capsys, kernel):
    """Of one notebook; test_notebooks.py proves the solutions of all."""
    root = draw_synthcom(tmp_path / "small", images_per_class=8, workers=1)
    given = [f"DATASET_ROOT={root}", f"--out={tmp_path / 'course'}"]
    code = cli.main(["course", "01", *given])
    printed, error = capsys.readouterr()
    assert code == 0, error
    total = re.search(
        r"^all: (\d+) exercises, (\d+) solutions proven, (\d+) wrong answers refused", printed, re.MULTILINE
    )
    exercises, proven, refused = map(int, total.groups())
    assert exercises == proven == len([number for number in EXERCISES if number[:2] == "01"])
    assert refused >= 2 * exercises
    for who in ("student", "teacher"):
        folder = tmp_path / "course" / who
        assert len(list(folder.glob("*.ipynb"))) == 1
        for page in (folder / "book").glob("*.md"):
            links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
            assert not [x for x in links if not (page.parent / x).exists() and not x.endswith(".ipynb")], page
    theirs = read(tmp_path / "course" / "student" / "01_dataset_construction.ipynb")
    (cell,) = (cell for cell in theirs.cells if "parameters" in course._tags(cell))
    assert f'DATASET_ROOT = "{root}"  # folder of images' in cell.source
    # no second cell sets back what a student changes in this one
    assert not [cell for cell in theirs.cells if "injected-parameters" in course._tags(cell)]


def test_a_copy_in_which_somebody_has_worked_is_kept(tmp_path, capsys):
    path, copy = tmp_path / "03.ipynb", course.student_copy(read(NOTEBOOKS[2]))
    course.hand_out(copy, path)
    course.hand_out(copy, path)
    assert not capsys.readouterr().out
    worked = read(path)
    next(cell for cell in worked.cells if BLANK in cell.source).source = "answer = 42"
    nbformat.write(worked, path)
    course.hand_out(copy, path)
    assert "kept, since somebody has changed its cells" in capsys.readouterr().out
    assert any(cell.source == "answer = 42" for cell in read(path).cells)


def test_half_a_copy_stops_no_course(tmp_path, capsys):
    path, copy = tmp_path / "03.ipynb", course.student_copy(read(NOTEBOOKS[2]))
    path.write_text('{"cells": [{"cell_type": "mark')
    course.hand_out(copy, path)
    assert "kept, since it can't be read" in capsys.readouterr().out
    path.unlink()
    course.hand_out(copy, path)
    assert read(path).cells == copy.cells


def test_a_course_without_the_features_says_which_notebook_to_add(tmp_path, capsys):
    assert cli.main(["course", "03", "04", f"DATASET_ROOT={tmp_path}", f"--out={tmp_path / 'course'}"]) == 1
    assert 'needed first, and not there yet: 02; give ARGS="02 03 04"' in capsys.readouterr().err
    assert not (tmp_path / "course" / "student").exists()


def test_a_check_says_what_it_needs(tmp_path):
    check = Checks(run=None)
    with pytest.raises(ValueError, match=r"no exercise '99\.1'; there are 01\.1"):
        check("99.1", 0)
    with pytest.raises(ValueError, match=r"this exercise needs LAMBDA: Checks\(run, LAMBDA=LAMBDA\)"):
        check.context["LAMBDA"]
