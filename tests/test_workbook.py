"""The command that runs the notebooks, on tiny notebooks of its own."""

import nbformat
import pytest

from rscir_lib import runs, workbook

PARAMETERS = """\
OUTPUT_ROOT = ""  # where the run folder goes
DATASET_ROOT = ""  # the data
ENCODER = "demo"  # its name
SIZE = 3  # a number
LAMBDAS = [0.5]  # a list
SHARE = 0.5  # a fraction"""
WRITE = "from pathlib import Path\nrun = Path(OUTPUT_ROOT) / f'{Path(DATASET_ROOT).name}_{ENCODER}'"


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
def run(notebooks):
    """The command on these notebooks, into a folder beside them."""
    paths = [f"OUTPUT_ROOT={notebooks / 'runs'}", f"DATASET_ROOT={notebooks / 'data'}"]
    return lambda *words: workbook.main([*words, *paths])


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
    runs.run_folder(str(tmp_path), "/a/PatternNet", "clip")
    with pytest.raises(ValueError, match=r"PatternNet_clip holds another run, with another dataset; .*OUTPUT_ROOT"):
        runs.run_folder(str(tmp_path), "/b/PatternNet", "clip")


def test_paths_count_from_the_project(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert runs.dataset_root() == runs.ROOT / "data" / "synthcom"
    assert runs.from_root("data/x") == runs.ROOT / "data" / "x"
    assert runs.from_root("") is None


def test_select_by_beginning_in_order(notebooks):
    assert [path.stem for path in workbook.select_notebooks(["02", "01_write.ipynb"])] == ["01_write", "02_divide"]
    with pytest.raises(ValueError, match="no notebook '03'; there are 01_write, 02_divide"):
        workbook.select_notebooks(["03"])


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
        return capsys.readouterr().out.split("\n")[1].split(",")[0].strip()

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
