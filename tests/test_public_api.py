"""`import rscir_lib` gives some 25 names, each imported when first used."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import rscir_lib


@pytest.mark.parametrize("name", rscir_lib.__all__)
def test_every_name_is_there_under_both_paths(name):
    there = getattr(import_module(rscir_lib._MODULE_OF[name]), name)
    assert getattr(rscir_lib, name) is there or name == "search"
    assert name in dir(rscir_lib)


def test_what_type_checkers_see_is_what_there_is():
    tree = ast.parse(Path(rscir_lib.__file__).read_text())
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == rscir_lib._MODULE_OF
    assert 20 <= len(typed) <= 30
    assert (Path(rscir_lib.__file__).parent / "py.typed").is_file()


def test_the_import_alone_loads_no_library():
    code = "import sys, rscir_lib; dir(rscir_lib); print({'torch', 'numpy', 'pandas', 'numba'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "import rscir_lib.search", "from rscir_lib.search import Searcher"])
def test_search_can_be_called_whoever_imported_its_package_first(first):
    """The package `rscir_lib.search` and the function `search` bear one name."""
    code = f"{first}\nfrom rscir_lib import search\ntry:\n    search()\nexcept TypeError as error:\n    print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "missing 3 required positional arguments" in done.stdout
    code = f"{first}\nimport rscir_lib.search as package\nprint(package.Searcher.__name__, package.search.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["Searcher", "search"]


@pytest.mark.slow
def test_what_loads_no_model_waits_for_none():
    """open_clip takes as long to import as all else together."""
    code = "import sys, rscir_lib as r; r.evaluate, r.open_run, r.search; print('open_clip' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(AttributeError, match=r"no attribute 'serach'; it has .*search"):
        rscir_lib.serach  # noqa: B018
