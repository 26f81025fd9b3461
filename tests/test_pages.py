"""The pages: what docstrings cite is there, the code they show runs, and words they use are explained."""

import ast
import re
from pathlib import Path

import pytest

from rscir_lib.benchmarks import READERS
from rscir_lib.encoders import ENCODERS
from rscir_lib.methods import METHODS

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


@pytest.mark.slow
def test_the_code_in_extending_runs(tmp_path, monkeypatch, capsys):
    """A method, an encoder and a benchmark, added and used as the page says, one block after the other."""
    blocks = re.findall(r"^```python\n(.*?)^```", page("extending.md"), re.MULTILINE | re.DOTALL)
    registries = [(registry, dict(registry)) for registry in (METHODS, ENCODERS, READERS)]
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    try:
        for block, (registry, before), name in zip(blocks, registries, ["both", "colour", ("pairs.txt",)], strict=True):
            exec(block, namespace)
            assert registry.keys() - before.keys() == {name}
    finally:
        for registry, before in registries:
            registry.clear()
            registry.update(before)
    assert "both" in namespace["rows"]["method"].unique()
    assert len(namespace["hits"].table) == 20
    assert "curved" in capsys.readouterr().out
