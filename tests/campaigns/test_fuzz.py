"""The short form of `make fuzz`, and that the campaign can fail."""

import ast
import importlib
import inspect
import pkgutil
import sys

import fuzz
import pytest

import rscir_lib

VERBS = ("read", "load", "open", "unpack", "unzip")
# what is called read, load or open and yet reads no file of its own format
NO_FILE = {
    "read_lambda": "questions",
    "open_run": "parameters, and then what other readers read",
    "open_explorer": "parameters, and then what other readers read",
}


@pytest.mark.parametrize("name", [name for name in fuzz.READERS if not name.startswith("encoder")])
def test_a_spoilt_file_is_read_or_refused_in_words(name):
    assert sum(fuzz.campaign(name, cases=5, seed=0).values()) >= 5


def out_of_memory(root):
    try:
        raise MemoryError
    except MemoryError as error:
        raise ValueError(f"{root / 'a.txt'}: no room") from error


@pytest.mark.parametrize(
    ("read", "problem"),
    [
        (lambda root: 1 / 0, "division by zero"),
        (lambda root: int("x"), "doesn't name the file: invalid literal"),
        (lambda root: root.with_name("outside").touch(), "written outside the folder"),
        (out_of_memory, "bytes of memory"),
    ],
)
def test_what_must_not_be_fails(tmp_path, read, problem):
    root = tmp_path / "case"
    root.mkdir()
    with pytest.raises((AssertionError, ZeroDivisionError), match=problem):
        fuzz.attempt(fuzz.Reader(lambda root: None, ("a.txt",), read), root, "a.txt", b"")


def readers():
    """The functions of the library that read files, by their names; walks every module."""
    for module in pkgutil.walk_packages(rscir_lib.__path__, "rscir_lib."):
        if module.name.split(".")[-1].startswith("__"):
            continue
        source = inspect.getsource(importlib.import_module(module.name))
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef) and node.name.split("_")[0] in (
                "read",
                "load",
                "open",
                "unpack",
                "unzip",
            ):
                yield f"{module.name}.{node.name}"


@pytest.mark.slow
def test_every_reader_stands_in_the_campaign(tmp_path):
    """Each is called where the campaign reads its good files, so that what is added later can't be forgotten."""
    called = set()

    def note(frame, event, _):
        if event == "call" and (name := frame.f_globals.get("__name__", "")).startswith("rscir_lib"):
            called.add(f"{name}.{frame.f_code.co_name}")

    for number, (name, reader) in enumerate(fuzz.READERS.items()):
        root = tmp_path / str(number)
        root.mkdir()
        reader.good(root)
        sys.setprofile(note)
        try:
            fuzz.attempt(reader, root, reader.files[0], (root / reader.files[0]).read_bytes())
        finally:
            sys.setprofile(None)
        assert any(call.startswith("rscir_lib") for call in called), name
    known = {reader for reader in readers() if reader.split(".")[-1] not in NO_FILE and ".cli." not in reader}
    print(f"{len(known)} functions read files, in {len(fuzz.READERS)} parts of the campaign")
    assert not known - called, f"no part of make fuzz calls {sorted(known - called)}"
