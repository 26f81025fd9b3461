"""The command that runs the notebooks, on tiny notebooks of its own."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
from matplotlib.figure import Figure
from PIL import Image

from rscir_lib.analysis import bootstrap_mean
from rscir_lib.apps.commands import cli, workbook
from rscir_lib.archive import read_archive
from rscir_lib.encoders import load_encoder
from rscir_lib.features import extract_features
from rscir_lib.runs import paths as runs

PARAMETERS = """\
OUTPUT_ROOT = ""  # where the run folder goes
DATASET_ROOT = ""  # the data
ENCODER = "demo"  # its name
SIZE = 3  # a number
LAMBDAS = [0.5]  # a list
SHARE = 0.5  # a fraction"""
WRITE = "from pathlib import Path\nrun = Path(OUTPUT_ROOT) / f'{Path(DATASET_ROOT).name}_{Path(ENCODER).name}'"


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """A project of two notebooks: the first writes SIZE to a table, the second fails when SIZE is 0."""
    cells = {
        "01_write.ipynb": (PARAMETERS, WRITE, "(run / 'tables' / '01.csv').write_text(str(SIZE))"),
        "02_divide.ipynb": (PARAMETERS.replace("LAMBDAS", "WEIGHTS"), WRITE, "# fails\n1 / SIZE"),
    }
    for name, (parameters, *rest) in cells.items():
        first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
        nb = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, rest)])
        nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(nb, tmp_path / name)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "labels.csv").write_text("a")
    monkeypatch.setattr(workbook, "NOTEBOOKS", tmp_path)
    return tmp_path


@pytest.fixture
def run(notebooks, kernel):
    """The command on these notebooks, into a folder beside them."""
    paths = [f"OUTPUT_ROOT={notebooks / 'runs'}", f"DATASET_ROOT={notebooks / 'data'}"]
    return lambda *words: cli.main(["workbook", *words, *paths])


@pytest.mark.slow
def test_run_folders_differ_where_runs_differ(tmp_path):
    names = [
        runs.run_folder(str(tmp_path), *rest).name
        for rest in [
            (),
            ("", "demo", "RN50"),
            ("", "/models/ours"),
            ("/data/PatternNet", "clip"),
            ("", "demo", "", "/x/test.csv"),
            ("", "demo", "", "", "first-release"),
            ("", "demo", "", "", "released", "bfloat16"),
        ]
    ]
    assert names == [
        "synthcom_demo", "synthcom_demo_RN50", "synthcom_ours", "PatternNet_clip", "synthcom_demo_test",
        "synthcom_demo_first-release", "synthcom_demo_bfloat16",
    ]  # fmt: skip
    assert (tmp_path / "PatternNet_clip" / "tables").is_dir()


def test_run_folder_is_not_shared_by_datasets_of_one_name(tmp_path):
    """Each gets one of its own by itself, and finds it again, also where the first is gone."""
    names = [runs.run_folder(str(tmp_path), f"/{place}/PatternNet", "clip").name for place in "abcab"]
    assert names == [
        "PatternNet_clip",
        "PatternNet_clip_2",
        "PatternNet_clip_3",
        "PatternNet_clip",
        "PatternNet_clip_2",
    ]
    shutil.rmtree(tmp_path / "PatternNet_clip")
    assert runs.run_folder(str(tmp_path), "/b/PatternNet", "clip").name == "PatternNet_clip_2"
    assert runs.run_folder(str(tmp_path), "/d/PatternNet", "clip").name == "PatternNet_clip"
    # names that come to the same by another way
    assert runs.run_folder(str(tmp_path), "/d/PatternNet_clip", "RN50").name == "PatternNet_clip_RN50"
    assert runs.run_folder(str(tmp_path), "/d/PatternNet", "clip", "RN50").name == "PatternNet_clip_RN50_2"


def test_blanks_in_names_stay(tmp_path):
    assert runs.run_folder(str(tmp_path), "/a/survey north").name == "survey north_demo"


def test_a_comma_in_a_template_makes_no_grid_a_list_does():
    assert list(workbook.grid({"TEMPLATE": "many, {}", "ENCODER": "clip,demo"})) == ["ENCODER=clip", "ENCODER=demo"]
    assert len(workbook.grid({"TEMPLATE": ["{}", "many, {}"]})) == 2


def test_paths_count_from_the_project(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert runs.dataset_root() == runs.ROOT / "data" / "synthcom"
    assert runs.from_root("data/x") == runs.ROOT / "data" / "x"
    assert runs.from_root("") is None


def test_select_by_beginning_in_order(notebooks):
    assert [path.stem for path in workbook.select_notebooks(["02", "01_write.ipynb"])] == ["01_write", "02_divide"]
    with pytest.raises(ValueError, match="no notebook '03'; there are 01_write, 02_divide"):
        workbook.select_notebooks(["03"])


@pytest.mark.parametrize("path", workbook.select_notebooks([]), ids=lambda path: path.stem)
@pytest.mark.slow
def test_a_notebook_by_itself_is_run_with_all_that_it_needs(path, tmp_path, monkeypatch, capsys):
    """Said at once; nothing is run twice, and nothing that stands or is given."""
    plans = []
    monkeypatch.setattr(workbook, "run_plan", lambda plan, **_: plans.append([p.stem[:2] for p in plan]) or tmp_path)
    number, out = path.stem[:2], f"OUTPUT_ROOT={tmp_path / 'runs'}"
    (tmp_path / "pictures").mkdir()
    own = f"DATASET_ROOT={tmp_path / 'pictures'}" if number != "11" else "RUNS_FOLDER="
    needed = {"01": [], "02": [], "11": ["02", "09"]}.get(number, ["02"])
    assert cli.main(["workbook", number, out, own]) == 0
    assert plans.pop() == [*needed, number]
    said = f"first {' and '.join(needed)}, which make what is needed and not there yet\n" if needed else ""
    assert capsys.readouterr().out == said
    monkeypatch.setattr(workbook.runs, "dataset_root", lambda root="": Path(root or tmp_path / "nowhere"))
    assert cli.main(["workbook", number, out]) == 0
    assert plans.pop() == sorted({"01", *needed, number})
    monkeypatch.setattr(workbook.runs, "dataset_root", lambda root="": Path(root or tmp_path / "pictures"))
    assert cli.main(["workbook", number, out]) == 0  # images without the list that is drawn last
    assert "01" in plans.pop()
    monkeypatch.setattr(workbook.runs, "dataset_root", lambda root="": Path(root or tmp_path / "nowhere"))
    if number == "11":
        (tmp_path / "runs" / "synthcom_demo" / "tables" / "04_rows.csv").touch()
        assert cli.main(["workbook", number, out]) == 0
        assert plans.pop() == [number]
    elif needed:
        store = tmp_path / "runs" / "pictures_demo" / "features"
        (store / "manifest.json").write_text("{}")
        assert cli.main(["workbook", number, out, own]) == 0
        assert plans.pop() == [number]
        (tmp_path / "other.pkl").touch()
        assert cli.main(["workbook", number, out, own, "PRECISION=float16", f"FEATURES={tmp_path / 'other.pkl'}"]) == 0
        assert plans.pop() == [number]


def test_parameters_go_where_they_are_declared(notebooks, monkeypatch):
    (notebooks / "7").mkdir()
    monkeypatch.chdir(notebooks)
    given = {"LAMBDAS": "[0.1, 1]", "ENCODER": "7", "SHARE": 1}
    first, second = workbook.resolve_parameters(workbook.select_notebooks([]), given).values()
    assert first["LAMBDAS"] == [0.1, 1]
    assert "LAMBDAS" not in second
    assert first["ENCODER"] == second["ENCODER"] == str(notebooks / "7")  # text stays text, a folder becomes absolute
    assert first["SIZE"] == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"LAMDAS": "[0.1]"}, "no parameter 'LAMDAS'.*they declare OUTPUT_ROOT, DATASET_ROOT, ENCODER, SIZE, LAMBDAS"),
        ({"SIZE": "three"}, "SIZE=three: not a literal like 3"),
        ({"SIZE": [3]}, r"SIZE=\[3\]: expected int, such as 3"),
        ({"LAMBDAS": "0.5"}, r"LAMBDAS=0.5: expected a list without repetition, each a number from 0 to 1"),
    ],
)
def test_parameters_are_checked(notebooks, given, message):
    with pytest.raises(ValueError, match=message):
        workbook.resolve_parameters(workbook.select_notebooks([]), given)


def test_stops_at_the_first_failure_and_says_where(run, notebooks, capsys):
    assert run("SIZE=0") == 1
    out, err = capsys.readouterr()
    assert "[2/2] 02_divide" in out
    assert "error: 02_divide, cell [4]: ZeroDivisionError: division by zero" in err
    assert "Traceback" not in err
    assert (notebooks / "runs" / "data_demo" / "notebooks" / "02_divide.ipynb").exists()


def test_what_stands_is_skipped(run, notebooks, capsys):
    table = notebooks / "runs" / "data_demo" / "tables" / "01.csv"

    def outcome(*words: str) -> str:
        assert run("01", *words) == 0
        return outcomes(capsys.readouterr().out)[0]

    assert outcome() == "ran"
    assert table.read_text() == "3"
    assert outcome() == "stands"
    assert outcome("--force") == "ran"
    assert outcome("SIZE=4") == "ran"
    assert table.read_text() == "4"
    table.unlink()
    assert outcome("SIZE=4") == "ran"
    (table.parents[1] / "features" / "features.npy").write_text("made by a later notebook")
    assert outcome("SIZE=4") == "stands"
    (notebooks / "data" / "labels.csv").write_text("another")
    assert outcome("SIZE=4") == "ran"


def test_parameter_file_and_words(run, notebooks):
    (notebooks / "small.yaml").write_text("SIZE: 5\nSHARE: 0.25\n")
    assert run("01", "--params", str(notebooks / "small.yaml"), "SIZE=6") == 0
    assert (notebooks / "runs" / "data_demo" / "tables" / "01.csv").read_text() == "6"


def outcomes(out: str) -> list[str]:
    """What the command says of each notebook."""
    return [line.split(",")[0].strip() for line in out.splitlines() if line.startswith("      ")]


@pytest.mark.parametrize("damage", ["", '{"fingerprint": "', "[1]", '"text"', "{}", '{"results": ["old"]}', "\x00\xff"])
def test_a_damaged_stamp_is_reported_and_its_notebook_runs_again(run, notebooks, damage, capsys):
    stamp = notebooks / "runs" / "data_demo" / "notebooks" / "01_write.json"
    stamp.parent.mkdir(parents=True)
    stamp.write_text(damage)
    assert run("01") == 0
    out, err = capsys.readouterr()
    assert outcomes(out) == ["ran"]
    assert f"{stamp} is damaged" in err
    assert "01_write runs again" in err
    assert run("01") == 0
    assert outcomes(capsys.readouterr().out) == ["stands"]


def test_results_stand_only_where_they_are_and_follow_from_what_is_there(run, notebooks, monkeypatch, capsys):
    library = notebooks / "library"
    for name in ("workbook.py", "explorer/widget.js", "explorer/__pycache__/old.pyc"):
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text("one")
    monkeypatch.setattr(workbook, "LIBRARY", library)
    folder = notebooks / "runs" / "data_demo"

    def outcome() -> str:
        assert run("01") == 0
        return outcomes(capsys.readouterr().out)[0]

    assert outcome() == "ran"
    assert outcome() == "stands"
    (library / "explorer" / "widget.css").write_text("new")
    assert outcome() == "ran"
    (library / "explorer" / "widget.js").write_text("two")
    assert outcome() == "ran"
    (library / "explorer" / "__pycache__" / "new.pyc").write_text("compiled")
    assert outcome() == "stands"
    for damage in ("cut short", "4"):  # of equal size, too
        assert (folder / "tables" / "01.csv").read_text() == "3"
        (folder / "tables" / "01.csv").write_text(damage)
        assert outcome() == "ran"
    for result in (folder / "tables" / "01.csv", folder / "notebooks" / "01_write.ipynb"):
        result.unlink()
    assert outcome() == "ran"
    shutil.move(notebooks / "data", notebooks / "moved")  # the same files and times
    shutil.move(notebooks / "moved", notebooks / "data")
    assert outcome() == "stands"


@pytest.mark.parametrize("name", ["LISTING", "LINCIR", "PLUGINS"])
def test_a_changed_file_makes_results_fall(notebooks, tmp_path, name):
    (notebooks / "part.csv").write_text("images/a.jpg 0 a\n")
    parameters = {name: str(notebooks / "part.csv"), "DATASET_ROOT": str(notebooks / "data")}
    notebook = notebooks / "01_write.ipynb"
    before = workbook.fingerprint(notebook, parameters, tmp_path / "runs" / "r")
    assert workbook.fingerprint(notebook, parameters, tmp_path / "runs" / "r") == before
    (notebooks / "part.csv").write_text("images/b.jpg 0 b!\n")
    assert workbook.fingerprint(notebook, parameters, tmp_path / "runs" / "r") != before


@pytest.mark.parametrize("link", ["images", "PatternCom", "images/river", "models", "."])
def test_inputs_behind_a_link_to_a_folder_are_looked_at(notebooks, tmp_path, link):
    """As the archive follows links, also in a circle; results behind one are none."""
    data, run = notebooks / "set" / "data", tmp_path / "runs" / "data_demo"
    for file in ("images/river/a.png", "PatternCom/color.csv", "models/RN50.pt"):
        (data / file).parent.mkdir(parents=True, exist_ok=True)
        (data / file).write_text("a")
    linked = data if link == "." else data / link
    shutil.move(linked, tmp_path / "elsewhere")
    linked.symlink_to(tmp_path / "elsewhere")
    (data / "images" / "round").symlink_to(data)
    run.mkdir(parents=True)
    (data / "results").symlink_to(run)
    parameters = {"DATASET_ROOT": str(data), "ENCODER": "demo"}

    def mark() -> str:
        return workbook.fingerprint(notebooks / "01_write.ipynb", parameters, run)

    before = mark()
    (run / "table.csv").write_text("a result")
    assert mark() == before
    for file in sorted(path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()):
        file.write_text("another")
        assert mark() != before, file
        before = mark()
    (next(path for path in [linked, *linked.rglob("*")] if path.is_dir()) / "new.png").write_text("new")
    assert mark() != before


def test_results_inside_the_dataset_are_no_input(notebooks):
    data = notebooks / "data"
    parameters = {"DATASET_ROOT": str(data)}
    before = workbook.fingerprint(notebooks / "01_write.ipynb", parameters, data / "runs" / "data_demo")
    for run_name in ("data_demo", "data_clip"):
        (data / "runs" / run_name).mkdir(parents=True)
        (data / "runs" / run_name / "table.csv").write_text("a result")
    assert workbook.fingerprint(notebooks / "01_write.ipynb", parameters, data / "runs" / "data_demo") == before
    # but a dataset that lies beside the runs, as `rscir draw` makes one, is one
    inside = {"DATASET_ROOT": str(data / "runs" / "data_clip")}
    before = workbook.fingerprint(notebooks / "01_write.ipynb", inside, data / "runs" / "data_demo")
    (data / "runs" / "data_clip" / "table.csv").write_text("another")
    assert workbook.fingerprint(notebooks / "01_write.ipynb", inside, data / "runs" / "data_demo") != before


def test_fingerprints_know_no_place(notebooks, tmp_path):
    """A project and its data that were moved together keep their results."""
    marks = []
    for place in ("here", "there"):
        data = tmp_path / place / "data"
        shutil.copytree(notebooks / "data", data)  # with the times
        parameters = {"DATASET_ROOT": str(data), "OUTPUT_ROOT": str(tmp_path / place / "runs"), "ENCODER": "demo"}
        marks.append(workbook.fingerprint(notebooks / "01_write.ipynb", parameters, tmp_path / place / "runs" / "r"))
    assert marks[0]["made_of"] == marks[1]["made_of"]


def test_inputs_that_changed_places_make_results_fall(notebooks, kernel, capsys):
    """Pictures of equal size and time; results stand with a copy of all, and there, too, only until it is changed."""
    one, two = (notebooks / "data" / name for name in ("one.png", "two.png"))
    for path in (one, two):
        path.write_text(path.name)
        os.utime(path, ns=(0, 10**18))

    def outcome(data=notebooks / "data") -> str:
        assert cli.main(["workbook", "01", f"OUTPUT_ROOT={notebooks / 'runs'}", f"DATASET_ROOT={data}"]) == 0
        return outcomes(capsys.readouterr().out)[0]

    def swap(one, two) -> None:
        one.rename(notebooks / "between")
        two.rename(one)
        (notebooks / "between").rename(two)

    assert [outcome(), outcome()] == ["ran", "stands"]
    copy = notebooks / "copied" / "data"
    shutil.copytree(notebooks / "data", copy)
    assert [outcome(copy), outcome(copy)] == ["stands", "stands"]
    for place in (copy, notebooks / "data"):
        swap(place / "one.png", place / "two.png")
        assert [outcome(place), outcome(place)] == ["ran", "stands"]


def test_grid_runs_every_combination_and_says_at_its_end_what_failed(run, notebooks, capsys):
    for encoder in ("one", "two"):
        (notebooks / encoder).mkdir()
    given = f"ENCODER={notebooks}/one,{notebooks}/two,nope,demo"
    assert run("01", given) == 1
    out, err = capsys.readouterr()
    assert outcomes(out) == ["ran", "ran", "ran"]
    assert "(4/4) ENCODER=demo" in out  # the others went on
    assert out.rstrip().splitlines()[-2] == "3 of 4 combinations finished"
    assert "failed: ENCODER=nope: ENCODER='nope': expected one of demo, clip" in out.rstrip().splitlines()[-1]
    assert "error: ENCODER='nope'" in err
    for name in ("data_one", "data_two", "data_demo"):
        assert (notebooks / "runs" / name / "tables" / "01.csv").read_text() == "3"
    assert run("01", given.replace(",nope", ""), "--beside") == 0  # resumed
    out = capsys.readouterr().out
    assert "  not beside the others, since notebook 04 hasn't run there: ENCODER=demo" in out
    assert outcomes(out) == ["stands", "stands", "stands"]


def test_no_two_of_a_grid_share_a_folder(run, notebooks, capsys):
    """Folds of one name get a folder each; what is the same twice is refused, and not said to be two results."""
    for fold, image in (("one", "a"), ("two", "b"), ("three", "b")):
        (notebooks / fold).mkdir()
        (notebooks / fold / "train.csv").write_text(f"{image}.jpg 0 a\n")
    for path in notebooks.glob("0*.ipynb"):
        path.write_text(path.read_text().replace("ENCODER =", 'LISTING = \\"\\"\\nENCODER ='))
        cells = nbformat.read(path, as_version=4)
        cells.cells[
            1
        ].source = f"{WRITE}\nrun = max(Path(OUTPUT_ROOT).glob('*_train*'), key=lambda path: path.stat().st_mtime)"
        nbformat.write(cells, path)
    folds = [f"{notebooks}/{fold}/train.csv" for fold in ("one", "two", "three")]
    assert run("01", f"LISTING={','.join(folds)}") == 1
    out, err = capsys.readouterr()
    assert outcomes(out) == ["ran", "ran"]
    assert "2 of 3 combinations finished" in out
    assert f"LISTING={folds[2]} is the same run as LISTING={folds[1]}" in err
    assert sorted(path.name for path in (notebooks / "runs").glob("*_*")) == ["data_demo_train", "data_demo_train_2"]
    assert run("01", f"LISTING={','.join(folds[:2])}") == 0
    assert outcomes(capsys.readouterr().out) == ["stands", "stands"]


def test_grid_varies_what_names_a_run_and_nothing_else(tmp_path, monkeypatch):
    both = workbook.grid({"ENCODER": "clip, remoteclip", "ARCHITECTURE": ["RN50", "ViT-L-14"], "LAMBDAS": "[0.1, 0.2]"})
    assert list(both) == [
        f"ENCODER={encoder} ARCHITECTURE={architecture}"
        for encoder in ("clip", "remoteclip")
        for architecture in ("RN50", "ViT-L-14")
    ]
    assert both["ENCODER=remoteclip ARCHITECTURE=RN50"] == {
        "ENCODER": "remoteclip", "ARCHITECTURE": "RN50", "LAMBDAS": "[0.1, 0.2]",
    }  # fmt: skip
    (tmp_path / "mine, 2024").mkdir()
    assert list(workbook.grid({"DATASET_ROOT": str(tmp_path / "mine, 2024")})) == [""]


def test_a_run_has_a_page_of_its_results(tmp_path):
    """Opened by relative links, names and descriptions escaped, no script, nothing of a path."""
    run = tmp_path / "a & b_demo"
    for file in ("tables/04 map.csv", "figures/06_hits.html", "notebooks/04_weicom.ipynb", "features/manifest.json"):
        (run / file).parent.mkdir(parents=True, exist_ok=True)
        (run / file).touch()
    figure = Figure()
    figure.savefig(run / "figures" / "05.png", metadata={"Description": 'a <curve> "up"'})
    page = workbook.write_index(run).read_text()
    assert re.findall(r'(?:href|src)="([^"]+)"', page) == [
        "tables/04%20map.csv", "notebooks/04_weicom.ipynb", "figures/05.png", "figures/05.png", "figures/06_hits.html",
    ]  # fmt: skip
    assert re.findall("<summary><h2>(.*?)</h2>, (.*?)</summary>", page) == [
        ("04 weicom", "2 files"), ("05 lambda ablation", "1 file"), ("06 retrieval galleries", "1 file"),
    ]  # fmt: skip
    assert 'alt="a &lt;curve&gt; &quot;up&quot;"' in page
    assert "<h1>a &amp; b_demo</h1>" in page
    assert "No query is judged here" in page
    assert "<script" not in page
    rows = pd.DataFrame({"attribute": "shape", "image": "a", "text": "b", "method": ["image"] * 3 + ["<own>"] * 3})
    rows["lambda"], rows["AP"] = [np.nan] * 3 + [0.3] * 3, [0.1, 0.2, 0.9, 0.3, 0.4, 0.5]
    rows.to_csv(run / "tables" / "04_rows.csv")
    (run / "figures" / "06_best.png").touch()
    for name in ("left_out", "left over"):
        (run / "tables" / f"{name}.csv").touch()
    page = workbook.write_index(run).read_text()
    reached = (
        "Half of 3 queries reach an average precision (AP) of 40.0 % or more by &lt;own&gt;, lambda 0.3, the best here"
    )
    first = page.split("<details>")[0]
    assert reached in first
    assert pd.read_html(io.StringIO(first))[0]["median AP"].tolist() == [20, 40]
    assert '<a href="figures/06_best.png">the best queries</a>' in first
    assert '<a href="tables/left_out.csv">what was left out' in first
    assert re.findall("<summary><h2>(left.*?)</h2>, (.*?)</summary>", page) == [
        ("left over", "1 file"),
        ("left_out", "1 file"),
    ]
    assert "<img" not in first
    assert str(tmp_path) not in page


def test_what_the_archive_leaves_out_is_said_once_a_run_with_what_helps(run, notebooks, capsys):
    """Also where results stand: what the folder holds beside its pictures, and a scene that is too large for one."""
    data = notebooks / "data"
    for name, size in {"a.png": (9, 9), "scene.png": (99, 99)}.items():
        Image.new("RGB", size).save(data / name)
    (data / "reading.json").write_text('{"most_pixels": 100}')
    (data / "phone.DNG").touch()
    store = runs.features_of({"DATASET_ROOT": str(data), "OUTPUT_ROOT": str(notebooks / "runs")})
    with pytest.warns(UserWarning, match="can't be read"):
        extract_features(read_archive(data), load_encoder("demo", device="cpu"), store)
    for _ in range(2):
        capsys.readouterr()
        assert run("01", "02") == 0
        said = capsys.readouterr().out
        assert said.count("1 .dng files (save them as JPEG") == 1
        assert said.count(f"make tiles DATASET_ROOT={data} ARGS=--scenes") == 1


def test_the_run_that_is_named_at_the_end_is_the_one_asked_for(run, notebooks, capsys):
    """Though the last notebook, as 11, knows no data set."""
    cell = nbformat.v4.new_code_cell('OUTPUT_ROOT = ""  # folder', metadata={"tags": ["parameters"]})
    last = nbformat.v4.new_notebook(cells=[cell])
    last.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(last, notebooks / "03_last.ipynb")
    assert run("01", "03") == 0
    assert f"results: {notebooks / 'runs' / 'data_demo' / 'index.html'}" in capsys.readouterr().out


def test_an_error_in_code_of_ones_own_names_its_line(notebooks, tmp_path):
    own = tmp_path / "my methods.py"
    own.write_text("def score():\n    return 1 / 0\nscore()\n")
    cells = (
        nbformat.v4.new_code_cell('PLUGINS = ""', metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import runpy\nrunpy.run_path(PLUGINS)"),
    )
    nbformat.write(nbformat.v4.new_notebook(cells=cells), failing := notebooks / "03_fails.ipynb")
    with pytest.raises(RuntimeError, match=r"03_fails, cell \[3\], my methods.py:2: ZeroDivisionError"):
        workbook.execute(failing, tmp_path / "copy.ipynb", {"PLUGINS": str(own)}, 60)


def test_ending_early_is_no_failure(run, notebooks, capsys):
    nb = nbformat.read(notebooks / "01_write.ipynb", as_version=4)
    nb.cells.insert(2, nbformat.v4.new_code_cell("raise SystemExit(0)"))
    nbformat.write(nb, notebooks / "01_write.ipynb")
    assert run("01") == 0
    assert outcomes(capsys.readouterr().out) == ["ran as far as it goes without labels"]
    assert not (notebooks / "runs" / "data_demo" / "tables" / "01.csv").exists()
    assert run("01") == 0
    assert outcomes(capsys.readouterr().out) == ["stands"]


def test_kernels_import_the_library_of_the_command(run, notebooks, tmp_path, monkeypatch):
    """Also where their environment has another one."""
    (tmp_path / "other" / "rscir_lib").mkdir(parents=True)
    (tmp_path / "other" / "rscir_lib" / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "other"))
    nb = nbformat.read(notebooks / "01_write.ipynb", as_version=4)
    nb.cells[-1].source = "import rscir_lib\n(run / 'tables' / '01.csv').write_text(rscir_lib.__file__)"
    nbformat.write(nb, notebooks / "01_write.ipynb")
    assert run("01") == 0
    found = (notebooks / "runs" / "data_demo" / "tables" / "01.csv").read_text()
    assert found == str(runs.ROOT / "rscir_lib" / "__init__.py")


def test_an_executed_copy_says_nothing_of_the_machine(run, notebooks):
    assert run("01") == 0
    written = (notebooks / "runs" / "data_demo" / "notebooks" / "01_write.ipynb").read_text()
    assert '"output_path": "01_write.ipynb"' in written
    assert '"input_path": "01_write.ipynb"' in written
    assert str(runs.ROOT) not in written


def test_no_kernel_of_another_environment_and_braces_in_a_path(run, notebooks, tmp_path, monkeypatch):
    """A cluster's JUPYTER_PATH names a kernel python3 too; papermill takes braces for parameters of its own."""
    kernel = tmp_path / "share" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    argv = ["/bin/false", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    braced = tmp_path / "pictures {final} {"
    braced.mkdir()
    assert run("01", f"OUTPUT_ROOT={braced}") == 0


def test_two_commands_at_once_take_turns(run, notebooks, capsys):
    folder = notebooks / "runs" / "data_demo"
    folder.mkdir(parents=True)
    code = "import sys, time, filelock\nwith filelock.FileLock(sys.argv[1]): print(flush=True); time.sleep(3)"
    other = subprocess.Popen([sys.executable, "-c", code, str(folder / ".lock")], stdout=subprocess.PIPE)
    other.stdout.readline()
    assert run("01") == 0
    assert "another command works in" in capsys.readouterr().out
    assert (folder / "tables" / "01.csv").read_text() == "3"
    other.communicate()


@pytest.mark.long
def test_a_kill_inside_a_notebook_loses_and_hides_nothing(notebooks, kernel):
    """SIGKILL of the command and its kernel while the second notebook works: it alone runs again."""
    nb = nbformat.read(notebooks / "02_divide.ipynb", as_version=4)
    nb.cells[-1].source = (
        "import os, time\n(run / 'tables' / '02.csv').write_text('half')\n"
        "time.sleep(0 if (run / 'killed').exists() else 600)\n(run / 'tables' / '02.csv').write_text('whole')"
    )
    nbformat.write(nb, notebooks / "02_divide.ipynb")
    code = (
        "import sys; from pathlib import Path; from rscir_lib.apps.commands import cli, workbook;"
        "workbook.NOTEBOOKS = Path(sys.argv[1]); sys.exit(cli.main(['workbook', *sys.argv[2:]]))"
    )
    words = [f"OUTPUT_ROOT={notebooks / 'runs'}", f"DATASET_ROOT={notebooks / 'data'}"]
    command = [sys.executable, "-c", code, str(notebooks), *words]
    table = notebooks / "runs" / "data_demo" / "tables" / "02.csv"
    first = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 400  # a busy machine starts two kernels in minutes
    while not table.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert table.read_text() == "half"
    kernels = [child.pid for child in psutil.Process(first.pid).children(recursive=True)]
    for pid in (first.pid, *kernels):
        psutil.Process(pid).kill()
    first.communicate()
    (table.parents[1] / "killed").touch()
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert outcomes(again.stdout) == ["stands", "ran"]
    assert table.read_text() == "whole"


def test_one_table_of_all_encoders_with_intervals(tmp_path):
    """What each method reaches, as `bootstrap_mean` says; by a command over stand-ins for notebook 04."""
    finished, rng = {}, np.random.default_rng(0)
    for encoder in ("clip", "remoteclip"):
        rows = pd.DataFrame(
            {
                "attribute": "color", "image": f"{i}.jpg", "text": text, "method": method, "lambda": lam,
                "n_relevant": 1, "AP": rng.uniform(),
            }
            for method, lam in (("text", None), ("weicom", 0.3), ("weicom", 0.5))
            for i in range(8)
            for text in ("red", "blue")
        )  # fmt: skip
        rows.index = pd.Index([*range(16)] * 3, name="query")
        (tmp_path / encoder / "tables").mkdir(parents=True)
        rows.to_csv(tmp_path / encoder / "tables" / "04_rows.csv")
        finished[f"ENCODER={encoder}"] = tmp_path / encoder
    table = workbook.beside_each_other(finished)
    assert table[["run", "method"]].drop_duplicates().to_numpy().tolist() == [
        [f"ENCODER={name}", method] for name in ("clip", "remoteclip") for method in ("text", "weicom")
    ]
    one = rows[(rows["method"] == "weicom") & (rows["lambda"] == 0.5)]
    said = "{Avg:.1f} ({low:.1f} to {high:.1f})".format_map(bootstrap_mean(one, samples=1000))
    assert table.iloc[-1].tolist() == ["ENCODER=remoteclip", "weicom", "0.5", said]
    assert table["lambda"].tolist() == ["", "0.3", "0.5"] * 2
    cells = {"lambda": "0.4", workbook.AVG: "52.1 (50.0 to 54.0)", "Avg at auto": "51.7", "ms a query": "1"}
    named = pd.DataFrame(cells, ["a<b"])
    named.rename_axis("method").to_csv(tmp_path / "clip" / "tables" / "09_methods.csv")
    finished["ENCODER=none"] = tmp_path / "with a blank"  # neither notebook has run there
    page = workbook.write_sweep(finished).read_text()
    (whole,) = pd.read_html(io.StringIO(page), keep_default_na=False)
    assert whole.columns.tolist() == ["run", "method", "lambda", workbook.AVG, "Avg at auto"]
    assert whole["run"].unique().tolist() == list(finished)
    assert whole.iloc[0].tolist()[1:] == ["a<b", "0.4", "52.1 (50.0 to 54.0)", "51.7"]
    assert whole.iloc[3].tolist()[1:] == ["weicom", "0.5", said, ""]
    links = ["clip/index.html", "remoteclip/index.html", "with%20a%20blank/index.html"]
    assert list(dict.fromkeys(re.findall(r'href="([^"]+)"', page))) == links
    (tmp_path / "clip" / "tables" / "04_rows.csv").unlink()
    with pytest.raises(FileNotFoundError, match="04_rows"):
        workbook.beside_each_other(finished)
