"""The one way to write a file that something else trusts: it stands whole, or not at all.

Written under another name in the same folder, brought to the disk, then renamed: a reader, or the next run after a
kill, a full disk or a power cut, meets the old file or the new one, and nothing between.
"""

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

UNFINISHED = ".unfinished"  # how a name ends while its file is being written; nothing reads those


def write_file(path: str | Path, write: Callable[[BinaryIO], object]) -> Path:
    """Let `write` fill a new binary file, put it in the place of `path`, and return the path.

    The folder must be there. Raises what `write` raises, and OSError for a full or read-only disk: `path` is then as
    it was before.
    """
    path = Path(path)
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        with new.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Write a UTF-8 text file."""
    return write_file(path, lambda file: file.write(text.encode()))


def write_json(path: str | Path, value: object, indent: int | None = 1) -> Path:
    """Write a value as JSON. Raises ValueError for NaN and infinity, which JSON doesn't know."""
    return write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def write_npy(path: str | Path, array: np.ndarray) -> Path:
    """Write an array of numbers in numpy's format."""
    return write_file(path, lambda file: np.save(file, array, allow_pickle=False))


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk: a rename is on it only then."""
    if os.name == "posix":  # elsewhere a folder can't be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
