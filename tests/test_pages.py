"""The pages: what docstrings cite is there, the code they show runs, and words they use are explained."""

import ast
import re
from pathlib import Path

import pytest
import torch

from rscir_lib.apps.explorer import Explorer
from rscir_lib.apps.explorer.opening import prepared
from rscir_lib.benchmarks import READERS
from rscir_lib.benchmarks.synthcom import draw_synthcom
from rscir_lib.encoders import ENCODERS
from rscir_lib.methods import METHODS
from rscir_lib.runs import check_parameters, open_run
from rscir_lib.storage.digests import sha256_of_file

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "notebooks" / "book"
CITATION = re.compile(r"[Pp]rotocol, ([A-Z]\w+)(?: and ([A-Z]\w+))?")


def page(name: str) -> str:
    return (BOOK / name).read_text(encoding="utf-8")


def test_the_sections_of_the_protocol_that_docstrings_cite_are_there():
    cited = {
        (section, path.relative_to(ROOT).as_posix())
        for path in (ROOT / "rscir_lib").rglob("*.py")
        for sections in CITATION.findall(path.read_text(encoding="utf-8"))
        for section in filter(None, sections)
    }
    assert len(cited) >= 8
    there = re.findall(r"^## (.+)$", page("protocol.md"), re.MULTILINE)
    assert not [(section, path) for section, path in sorted(cited) if section not in there]


@pytest.mark.parametrize("word", ["Holm", "Randomisation test", "Fold", "R-precision", "Kappa", "Margin"])
def test_the_glossary_explains_what_notebooks_and_tables_say(word):
    entries = re.findall(r"^\*\*([^*]+)\.\*\*", page("glossary.md"), re.MULTILINE)
    assert word in {name.strip() for entry in entries for name in entry.split(",")}
    assert entries == sorted(entries, key=str.casefold)


def test_the_files_and_functions_that_contributing_names_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    path_of_a_query = re.findall(r"^\| `(rscir_lib/[\w/]+\.py)` \| `(\w+)` \|", text, re.MULTILINE)
    assert len(path_of_a_query) == 6
    search = re.findall(r"`(search/\w+\.py|ranking/\w+\.py)` \(`(\w+)`\)", text)
    assert len(search) == 3
    for file, name in path_of_a_query + [(f"rscir_lib/{file}", name) for file, name in search]:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}, file
    for file in re.findall(r"`((?:tests|methods|encoders|benchmarks)/[\w/]+\.py|tests/[a-z]+)`", text):
        assert (ROOT / file).exists() or (ROOT / "rscir_lib" / file).exists(), file


SECONDS = {"under half a minute": (10, 30), "half a minute": (20, 45), "about a minute": (45, 90)}


def test_notebooks_take_as_long_as_they_say():
    """By the seconds that the page on teaching has of each, measured on two cores."""
    rows = [row.strip("| ").split(" | ") for row in page("teaching.md").splitlines() if row.startswith("| ")]
    numbers = next(row[1:] for row in rows if row[0] == "notebook")
    measured = next(row[1:] for row in rows if row[0] == "`make workbook`, seconds")
    for number, seconds in zip(numbers, map(int, measured), strict=True):
        (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
        said = re.search(
            r"\*\*It takes\*\* ([a-z ]*?)(?: (?:the|with|to|most)\b|[;.,])", path.read_text(encoding="utf-8")
        )
        low, high = SECONDS[said[1]]
        assert low <= seconds <= high, f"{path.name} says {said[1]}, and takes {seconds} s"


def blocks_of_extending() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page("extending.md"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """The file that the page makes; afterwards the registries are as they were."""
    registries = [(registry, dict(registry)) for registry in (METHODS, ENCODERS, READERS)]
    monkeypatch.setattr("rscir_lib.runs.plugins._ran", {})
    monkeypatch.setattr("rscir_lib.runs.plugins._own", set())
    path = tmp_path / "my_methods.py"
    path.write_text("\n".join(block for block in blocks_of_extending() if block.startswith("# my_methods.py")))
    yield path
    for registry, before in registries:
        registry.clear()
        registry.update(before)


@pytest.mark.slow
def test_the_code_in_extending_runs(tmp_path, monkeypatch, capsys, plugins):
    """A method, an encoder and a benchmark, added and used as the page says, one block after the other."""
    registries = [(registry, dict(registry)) for registry in (METHODS, ENCODERS, READERS)]
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    added = [{"both"}, {"colour"}, {("pairs.txt",)}]
    for block in blocks_of_extending():
        before = [set(registry) for registry, _ in registries]
        exec(block, namespace)
        if block.startswith("# my_methods.py"):
            new = [set(registry) - old for (registry, _), old in zip(registries, before, strict=True)]
            assert set().union(*new) == added.pop(0)
    assert not added
    assert "both" in namespace["rows"]["method"].unique()
    assert len(namespace["hits"].table) == 20
    assert "curved" in capsys.readouterr().out


@pytest.mark.slow
def test_a_file_of_ones_own_adds_to_a_run_and_to_the_explorer(tmp_path, plugins):
    root = draw_synthcom(tmp_path / "small", images_per_class=3, workers=1)
    given = {"DATASET_ROOT": str(root), "OUTPUT_ROOT": str(tmp_path / "runs"), "DEVICE": "cpu", "PLUGINS": str(plugins)}
    run = open_run(**given, ENCODER="colour")
    explorer = Explorer.of(prepared(run))
    (own,) = [method for method in explorer.hello()["methods"] if method["name"] == "both"]
    assert own["rule"] is None
    asked = {"images": [0], "words": "blue", "lam": 0.5, "method": "both"}
    assert "scores" in explorer.answer({"ask": "scores"} | asked)
    (kept,) = (run.folder / "plugins").iterdir()
    assert kept.read_text() == plugins.read_text()
    assert run.features.provenance["code_sha256"] == sha256_of_file(plugins)
    check_parameters(METHOD="both")
    plugins.write_text(plugins.read_text() + "\n# changed\n")
    with pytest.raises(ValueError, match="code_sha256: stored"):
        print(open_run(**given, ENCODER="colour").features)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import rscir_lib\n\nrscir_lib.METHODS['mine'] = 1 / 0", "line 3: ZeroDivisionError: division by zero"),
        ("x = (", "line 1: SyntaxError"),
        ("", "it adds nothing to METHODS"),
        ("import rscir_lib\nrscir_lib.METHODS['mine'] = print", "it lacks name, has_lambda, fit"),
        (
            "import rscir_lib\nrscir_lib.METHODS['mine'] = rscir_lib.METHODS['sum']",
            "is named 'sum': give both one name",
        ),
        ("import rscir_lib\nrscir_lib.METHODS['sum'] = rscir_lib.METHODS['image']", "'sum' is a name of the library's"),
    ],
)
def test_a_file_of_ones_own_that_fails_is_named_and_leaves_nothing(plugins, code, said):
    before = dict(METHODS)
    plugins.write_text(code)
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        open_run(PLUGINS=str(plugins))
    assert str(plugins) in str(error.value)
    assert before == METHODS


def test_an_error_of_a_method_of_ones_own_names_its_line(plugins):
    from rscir_lib.runs.plugins import place_of

    plugins.write_text("import rscir_lib, torch\ndef score(image, text, lam):\n    return torch.expp(image)\n"
                       "rscir_lib.METHODS['mine'] = rscir_lib.methods.TwoSimilarities('mine', score)\n")  # fmt: skip
    open_run(PLUGINS=str(plugins))
    with pytest.raises(AttributeError) as error:
        METHODS["mine"].score(torch.ones(3), torch.ones(3))
    assert place_of(error.value) == f"{plugins}, line 3"
    assert place_of(ValueError("elsewhere")) == ""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"weights_sha256": "none"}', "its provenance lacks encoder; give it provenance = {"),
        ('{"encoder": "colour"}', "its provenance lacks weights_sha256"),
    ],
)
def test_an_encoder_that_lacks_what_notebooks_need_is_refused_with_the_line_that_helps(plugins, line, said):
    text = re.sub(r"provenance = \{.*\}", f"provenance = {line}", plugins.read_text())
    plugins.write_text(text)
    with pytest.raises(ValueError, match=re.escape(said)):
        print(open_run(PLUGINS=str(plugins), ENCODER="colour").encoder)
    plugins.write_text(plugins.read_text().replace("def encode_texts", "def encode_words"))
    with pytest.raises(ValueError, match="is no encoder: it lacks encode_texts"):
        print(open_run(PLUGINS=str(plugins), ENCODER="colour").encoder)
