"""The short form of `make fuzz`, and that the campaign can fail."""

import fuzz
import pytest


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
