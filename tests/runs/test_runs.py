"""What a notebook's parameters open: folders that are never shared, an archive less what can't be read, results."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from rscir_lib.apps.commands import workbook
from rscir_lib.features import Features
from rscir_lib.runs import PARAMETERS, Run, check_parameters, latex_table, notice_of, open_run, run_folder
from rscir_lib.runs import paths as runs


@pytest.fixture
def images(tmp_path):
    """A folder of four pictures in two classes, and where its runs go."""
    root = tmp_path / "archive"
    for name in ("river/a.png", "river/b.png", "field/c.png", "field/d.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (len(name), 90, ord(name[-5]))).save(root / name)
    return root


@pytest.fixture
def opened(images, tmp_path):
    return open_run(str(images), OUTPUT_ROOT=str(tmp_path / "runs"))


@pytest.mark.parametrize("path", sorted(workbook.NOTEBOOKS.glob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_every_parameter_has_a_rule_and_is_checked_by_the_notebook_itself(path):
    declared = workbook.declared_parameters(path)
    check_parameters(**declared)  # raises for a parameter without a rule, too
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    set_up = next(source for source in cells if "open_run(" in source and "import" not in source)
    passed = {node.id for node in ast.walk(ast.parse(set_up)) if isinstance(node, ast.Name)}
    assert set(declared) <= passed, f"not checked: {set(declared) - passed}"


def test_nothing_is_made_for_a_parameter_that_is_refused(tmp_path, images):
    with pytest.raises(ValueError, match="PRECISION='half': expected one of float32, bfloat16, float16"):
        open_run(str(images), OUTPUT_ROOT=str(tmp_path / "runs"), PRECISION="half")
    assert not (tmp_path / "runs").exists()


def test_opens_what_a_notebook_needs(opened, images):
    assert opened.root == images
    assert opened.folder.name == "archive_demo"
    assert len(opened.whole_archive) == 4
    assert opened.encoder.name == "demo"
    assert opened.title == "archive, demo (trained on drawings)"
    with pytest.raises(FileNotFoundError, match="notebook 02"):
        _ = opened.features


def test_images_without_features_are_left_out_and_said(opened, capsys):
    files = opened.whole_archive.files
    fake = Features.from_arrays(np.eye(3, dtype=np.float32), files[:3], ["", "", ""])
    fake.unreadable[files[3]] = "cut short"
    run = Run(opened.folder, opened.root, opened.config)
    run.__dict__["features"] = fake
    assert run.archive_with_features.files == files[:3]
    assert "1 of 4 images of archive can't be read and are left out: cut short" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"POSITION=3: expected 0 to 2, a position in .*archive"):
        run.check(POSITION=3)
    run.check(POSITION=2)


def test_ends_without_labels_and_goes_on_with_them(opened, images, capsys):
    assert not opened.has_benchmark
    with pytest.raises(SystemExit) as end:
        opened.end_without_labels()
    assert end.value.code == 0  # what papermill takes for a good end
    assert "archive has no labels" in capsys.readouterr().out
    (images / "PatternCom").mkdir()
    again = Run(opened.folder, opened.root, opened.config)
    again.end_without_labels()


def test_a_query_that_is_not_there_is_named(opened):
    run = Run(opened.folder, opened.root, opened.config)
    queries = pd.DataFrame({"text": ["red", "blue"]})
    run.__dict__.update(has_benchmark=True, benchmark=SimpleNamespace(queries=queries))
    run.check(QUERY=1)
    with pytest.raises(ValueError, match="QUERY=2: expected 0 to 1, a row of"):
        run.check(QUERY=2)


def test_saves_tables_and_figures_whole(opened, monkeypatch):
    table = pd.DataFrame({"mAP": [1.0, 2.0]})
    assert opened.save(table, "t", index=False) is table
    assert pd.read_csv(opened.folder / "tables" / "t.csv")["mAP"].tolist() == [1.0, 2.0]
    figure = Figure()
    figure.description = "an empty figure, for the test"
    assert opened.save(figure, "f") is figure
    written = opened.folder / "figures" / "f.png"
    assert Image.open(written).text["Description"] == "an empty figure, for the test"
    before = written.read_bytes()
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **options: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        opened.save(figure, "f")
    assert written.read_bytes() == before
    assert sorted(path.name for path in written.parent.iterdir()) == ["f.pdf", "f.png"]
    assert sorted(path.name for path in (opened.folder / "tables").iterdir()) == ["t.csv", "t.tex"]


# --- whose folder it is


def test_a_run_folder_tells_no_path_of_the_machine(opened, tmp_path):
    assert str(tmp_path) not in (opened.folder / "run.json").read_text()


def test_a_moved_dataset_finds_its_run_and_another_of_its_name_does_not(images, tmp_path):
    output = str(tmp_path / "runs")
    run = run_folder(output, str(images), "demo")
    moved = tmp_path / "elsewhere" / "archive"
    moved.parent.mkdir()
    shutil.move(images, moved)
    assert run_folder(output, str(moved), "demo") == run
    note = (run / "run.json").read_text()
    other = tmp_path / "third" / "archive"
    shutil.copytree(moved, other)
    (other / "river" / "a.png").write_bytes(b"another picture")
    assert run_folder(output, str(other), "demo").name == "archive_demo_2"
    assert (run / "run.json").read_text() == note


def several(tmp_path, kind, change):
    """Two places of equal names and sizes, `change`d at one of their bytes: how each is given to `run_folder`."""
    for place in ("one", "two"):
        folder = tmp_path / place / "same"
        folder.mkdir(parents=True)
        (folder / "labels.csv").write_text("a.png,red\n")
        (folder / "weights.safetensors").write_bytes(bytes(3 * 2**20))
        (folder / "a.bmp").write_bytes(bytes(100_000))
    changed = bytearray((folder / change).read_bytes())
    changed[-1] += 1
    (folder / change).write_bytes(changed)
    paths = [tmp_path / place / "same" for place in ("one", "two")]
    return [{kind: str(path / change if kind == "LISTING" else path)} for path in paths]


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("LISTING", "labels.csv"),
        ("DATASET_ROOT", "labels.csv"),
        ("DATASET_ROOT", "a.bmp"),
        ("ENCODER", "weights.safetensors"),
    ],
)
def test_equal_names_and_sizes_are_not_the_same_run(tmp_path, kind, change):
    first, second = (run_folder(str(tmp_path / "runs"), **given) for given in several(tmp_path, kind, change))
    assert second.name == f"{first.name}_2"


def test_a_run_in_a_folder_that_nobody_may_write_is_opened(images, tmp_path, monkeypatch):
    output = str(tmp_path / "runs")
    run = run_folder(output, str(images))
    monkeypatch.setattr(runs, "folder_lock", lambda folder: 1 / 0)  # root may write everywhere
    assert run_folder(output, str(images)) == run


def test_a_dataset_may_grow_where_it_is(images, tmp_path):
    output = str(tmp_path / "runs")
    run = run_folder(output, str(images), "demo")
    (images / "river" / "new.png").write_bytes((images / "river" / "a.png").read_bytes())
    assert run_folder(output, str(images), "demo") == run


@pytest.mark.parametrize(
    "damage", ["", '{"dataset": ', "[1, 2]", "null", '"text"', "\x00\xff", "{}", '{"dataset": "/old/PatternNet"}']
)
def test_a_damaged_note_never_blocks(images, tmp_path, damage, capsys):
    output = str(tmp_path / "runs")
    note = run_folder(output, str(images), "demo") / "run.json"
    whole = note.read_text()
    note.write_text(damage)
    run_folder(output, str(images), "demo")
    assert note.read_text() == whole
    assert "run.json is damaged" in capsys.readouterr().err


def test_an_encoder_folder_is_no_name_of_the_registry(tmp_path):
    (tmp_path / "mine").mkdir()
    assert runs.encoder_folder("demo") is None
    assert runs.encoder_folder("clip", tmp_path) is None
    assert runs.encoder_folder("mine", tmp_path) == tmp_path / "mine"
    (tmp_path / "clip").mkdir()
    assert runs.encoder_folder("clip", tmp_path) is None
    assert runs.encoder_folder("./clip", tmp_path) == tmp_path / "clip"


def test_an_architecture_never_leaves_its_folder(images, tmp_path):
    with pytest.raises(ValueError, match=r"ARCHITECTURE='\.\./\.\.': expected the name of an architecture"):
        open_run(str(images), ENCODER="clip", ARCHITECTURE="../..", OUTPUT_ROOT=str(tmp_path / "runs"))


# --- which library


def second_checkout(tmp_path: Path) -> Path:
    """A copy of this project's library, with an environment that has the first one installed: this one."""
    other = tmp_path / "second checkout ü"
    shutil.copytree(runs.ROOT / "rscir_lib", other / "rscir_lib", ignore=shutil.ignore_patterns("__pycache__"))
    (other / "notebooks").mkdir()
    return other


@pytest.mark.slow
def test_a_notebook_of_another_checkout_is_refused(tmp_path):
    other = second_checkout(tmp_path)
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from rscir_lib.runs import open_run; open_run()"],
        cwd=other / "notebooks", env=os.environ | {"PYTHONPATH": str(runs.ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"belongs to {other}, but this Python imports rscir_lib from {runs.ROOT}" in done.stderr
    assert f"PYTHONPATH={other}" in done.stderr


@pytest.mark.slow
def test_a_copied_checkout_opens_its_runs(tmp_path):
    """Its own copy of `runs/` and of a dataset inside the project, whatever the place."""
    first = second_checkout(tmp_path / "first")
    (first / "data" / "mine").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(first / "data" / "mine" / "a.png")

    def opened(checkout: Path) -> str:
        code = "from rscir_lib.runs import open_run; run = open_run('data/mine'); print(run.folder, len(run.whole_archive))"
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            cwd=checkout / "notebooks", env=os.environ | {"PYTHONPATH": str(checkout)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        return done.stdout.strip()

    assert opened(first) == f"{first / 'runs' / 'mine_demo'} 1"
    second = tmp_path / "a copy"
    shutil.copytree(first, second)
    assert opened(second) == f"{second / 'runs' / 'mine_demo'} 1"


def test_numbers_are_not_truths():
    check_parameters(LAMBDA=1)
    for name, value in (("TOP", True), ("LAMBDA", np.nan), ("LAMBDA", True)):
        with pytest.raises(ValueError, match=f"{name}={value}: expected a"):
            check_parameters(**{name: value})


def test_every_parameter_says_what_is_expected_of_it():
    for name in PARAMETERS:
        with pytest.raises(ValueError, match=rf"^{name}=\[None\]: expected .*[a-z]"):
            check_parameters(**{name: [None]})


@pytest.mark.slow
def test_the_bundled_encoder_before_pictures_says_so(images, tmp_path, capsys):
    """Under either of its names; of drawn scenes, and by another encoder, nothing is said."""
    (tmp_path / "my drawings").mkdir()
    (tmp_path / "my drawings" / "synthcom.json").write_text("{}")
    for name in ("demo", "data/demo_encoder"):
        said = notice_of(name, str(images))
        assert said.startswith("THE BUNDLED ENCODER KNOWS DRAWN SCENES ALONE")
        assert f"make explore DATASET_ROOT={images} ENCODER=clip-openai" in said
        assert notice_of(name) == notice_of(name, str(tmp_path / "my drawings")) == ""
    assert notice_of("clip", str(images)) == ""
    assert "DATASET_ROOT='/my pictures' ENCODER" in notice_of("demo", "/my pictures")
    open_run(str(images), OUTPUT_ROOT=str(tmp_path / "out"), DEVICE="cpu").encoder
    assert capsys.readouterr().out == notice_of("demo", str(images)) + "\n"
    open_run(OUTPUT_ROOT=str(tmp_path / "out"), DEVICE="cpu").encoder
    assert capsys.readouterr().out == ""


def test_a_table_for_latex():
    """Per cents with one decimal, shares with three, lambdas as short as can be, nothing that LaTeX would trip over."""
    index = pd.MultiIndex.from_tuples([("image", float("nan")), ("a_b", 0.5)], names=["a_method", "lambda"])
    table = pd.DataFrame({"Avg": [14.84, 51.56], "P@5": [0.25, None], "what": ["50 % & more", "x~y"]}, index)
    table["n"] = pd.array([7, None], "Int64")
    assert r"{}[a] & {}*b \\" in latex_table(pd.DataFrame({"x": ["*b"]}, index=["[a]"])).splitlines()
    lines = latex_table(table).splitlines()
    assert [lines[0], lines[1], lines[-2], lines[-1]] == [
        r"\begin{tabular}{llrrlr}", r"\toprule", r"\bottomrule", r"\end{tabular}"
    ]  # fmt: skip
    assert r"a\_method & lambda & Avg & P@5 & what & n \\" in lines
    assert table.index.names[0] == "a_method"
    assert r"image &  & 14.8 & 0.250 & 50 \% \& more & 7 \\" in lines
    assert r"a\_b & 0.5 & 51.6 &  & x\textasciitilde{}y &  \\" in lines


@pytest.mark.parametrize("column", [pd.array([None, None], "Int64"), [None, None], [True, False], [np.nan, np.inf], ["", None]])
def test_no_column_keeps_a_table_from_being_saved(opened, column):
    opened.save(pd.DataFrame({"x": column}), "odd")
    opened.save(pd.Series(column, name="x"), "odd")
    opened.save(pd.DataFrame({"x": []}), "odd")
    opened.save(pd.DataFrame([[column[0], 1.0]], ["q"], ["x", "x"]), "odd")
    assert (opened.folder / "tables" / "odd.tex").read_text().startswith(r"\begin{tabular}")


def test_what_is_left_out_is_printed_and_saved(tmp_path, capsys):
    """Each kind with what helps, and a table in the run's folder."""
    (tmp_path / "phone").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "phone" / "a.jpg")
    for name in ("b.DNG", "c.dng", "d.txt"):
        (tmp_path / "phone" / name).write_bytes(b"no image")
    run = open_run(DATASET_ROOT=str(tmp_path / "phone"), OUTPUT_ROOT=str(tmp_path / "runs"))
    assert len(run.whole_archive) == 1
    assert "2 .dng files (save them as JPEG, as ImageMagick 7 does: find" in capsys.readouterr().out
    table = pd.read_csv(run.folder / "tables" / "left_out.csv", keep_default_na=False)
    assert table["left out"].tolist() == [".dng files", ".txt files"]
    assert table["how many"].tolist() == [2, 1]
    assert table["what helps"].tolist()[1] == ""
    for other in ("b.DNG", "c.dng", "d.txt"):
        (tmp_path / "phone" / other).unlink()
    run = open_run(DATASET_ROOT=str(tmp_path / "phone"), OUTPUT_ROOT=str(tmp_path / "runs"))
    assert not run.whole_archive.left_out
    assert pd.read_csv(run.folder / "tables" / "left_out.csv").empty
