"""Digests: what a file or a value is, in 64 characters."""

import hashlib
from pathlib import Path

import numpy as np


def sha256_of_file(path: str | Path) -> str:
    """sha256 of a file's bytes, in hexadecimal. Raises OSError for a file that can't be read."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_sample(path: Path, block: int) -> str:
    """sha256 of a file of up to 64 blocks of so many bytes; of a larger one, of about 64 blocks spread over it."""
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb", buffering=0) as file:
        for start in range(0, size, max(block, size // 64)):
            file.seek(start)
            digest.update(file.read(block))
    return digest.hexdigest()


def sha256_of(*values: str | bytes | np.ndarray) -> str:
    """sha256, in hexadecimal, of texts (in UTF-8), bytes and the bytes of arrays, one after the other."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            digest.update(np.ascontiguousarray(value).data)
        else:
            digest.update(value.encode() if isinstance(value, str) else value)
    return digest.hexdigest()
