"""Digests: what a file or a value is, in 64 characters."""

import hashlib
from pathlib import Path

import numpy as np


def sha256_of_file(path: str | Path) -> str:
    """sha256 of a file's bytes, in hexadecimal. Raises OSError for a file that can't be read."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(*values: str | bytes | np.ndarray) -> str:
    """sha256, in hexadecimal, of texts (in UTF-8), bytes and the bytes of arrays, one after the other."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            digest.update(np.ascontiguousarray(value).data)
        else:
            digest.update(value.encode() if isinstance(value, str) else value)
    return digest.hexdigest()
