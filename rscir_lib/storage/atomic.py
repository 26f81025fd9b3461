"""The one way to write a file that something else trusts: it stands whole, or not at all.

Written under another name in the same folder, brought to the disk, then renamed: a reader, or the next run after a
kill, a full disk or a power cut, meets the old file or the new one, and nothing between.
"""

import errno
import io
import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

UNFINISHED = ".unfinished"  # how a name ends while its file is being written; nothing reads those


class _Written(io.BufferedWriter):
    """Takes bytes by `write` alone: with the file's number, Pillow overlooks a write that a full disk cuts short."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


def write_file(path: str | Path, write: Callable[[BinaryIO], object], durable: bool = True) -> Path:
    """Let `write` fill a new binary file, put it in the place of `path`, and return the path.

    The folder must be there. durable: wait for the disk; False for what its reader checks and can make again. Raises
    what `write` raises, and OSError naming the file for a full or read-only disk: `path` is then as it was before.
    """
    path = Path(path)
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        raw = new.open("xb", buffering=0)
        with _Written(raw) as file:
            write(file)
            file.flush()
            if durable:
                os.fsync(raw.fileno())
        os.replace(new, path)
    except BaseException as error:
        new.unlink(missing_ok=True)
        if isinstance(error, OSError) and not error.filename:  # the system names none when a disk is full
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), os.fspath(path)) from error
        raise
    if durable and os.name == "posix":  # a rename is on the disk once the folder is; elsewhere none can be opened
        handle = os.open(path.parent, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Write a UTF-8 text file."""
    return write_file(path, lambda file: file.write(text.encode()))


def copy_file(source: Path, path: str | Path) -> Path:
    """Write a copy of a file."""
    with source.open("rb") as file:
        return write_file(path, lambda copy: shutil.copyfileobj(file, copy))


def write_json(path: str | Path, value: object, indent: int | None = 1) -> Path:
    """Write a value as JSON. Raises ValueError for NaN and infinity, which JSON doesn't know."""
    return write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def write_npy(path: str | Path, array: np.ndarray) -> Path:
    """Write an array of numbers in numpy's format."""
    return write_file(path, lambda file: np.save(file, array, allow_pickle=False))


def read_json(path: Path, kind: type = dict, expected: str = "a JSON object") -> Any:
    """The value in a JSON file. Raises ValueError, naming the file and what was expected, for any but this kind."""
    try:
        value = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise ValueError(f"{path} is damaged or no JSON in UTF-8: expected {expected} ({error})") from None
    if not isinstance(value, kind):
        raise ValueError(f"{path} is damaged: expected {expected}, found a {type(value).__name__}")
    return value


def remove_unfinished(folder: Path) -> None:
    """Remove what a kill left half written in a folder and below; call it where no other process writes."""
    for path in folder.rglob(f".*{UNFINISHED}"):
        path.unlink(missing_ok=True)
