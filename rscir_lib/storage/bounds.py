"""Files from elsewhere: what is wrong with one is said with its name, and few bytes of one stay few."""

import errno
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

# Times a file's own size that what is made of it may take, beyond the bytes that are always free: embeddings hardly
# shrink, so more is no features but few bytes, repeated, which would fill a disk or the memory
MOST_GROWTH, FREE_BYTES = 32, 2**26


@contextmanager
def of_file(path: Path, advice: str = "fetch or write it again") -> Iterator[None]:
    """Whatever its reader raises of a damaged file, as a ValueError with the file's name."""
    try:
        yield
    except Exception as error:  # readers that are fed damaged bytes raise nearly anything
        if isinstance(error, OSError) and (error.filename or error.errno == errno.ENOSPC):
            raise  # an absent file, a full disk
        reason = " ".join((str(error) or type(error).__name__).split())[:200]
        raise ValueError(f"{path} is damaged, or not what it should be ({reason}); {advice}") from None


def check_growth(path: Path, size: int) -> None:
    """Raise ValueError unless a file may become as many bytes as it says."""
    if size > max(FREE_BYTES, MOST_GROWTH * (own := path.stat().st_size)):
        limit = f"its {own:,} bytes would become {size:,}, more than {MOST_GROWTH} times as many"
        raise ValueError(f"{path}: {limit}: it repeats a few values. Leave the repeated rows out, or save it unpacked")


def read_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """Numpy's packed arrays of these names; ValueError for a file that lacks one, is damaged or grows too much."""
    with of_file(path), zipfile.ZipFile(path) as packed:
        size = sum(member.file_size for member in packed.infolist())
    check_growth(path, size)
    with of_file(path), np.load(path, allow_pickle=False) as table:
        return [table[name] for name in names]
