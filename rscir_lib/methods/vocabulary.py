"""The workbook's own lists of words (data/vocabulary)."""

from collections.abc import Sequence
from pathlib import Path

from rscir_lib.storage.project import DATA

VOCABULARY = DATA / "vocabulary"


def read_vocabulary(words: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Words: those of "subjects" or "styles", of a text file, one entry a line, or as given.

    Raises FileNotFoundError for a missing file, ValueError for fewer than two words and for one that is listed twice.
    """
    where: str | Path = "vocabulary"
    if isinstance(words, str | Path):
        path = VOCABULARY / f"{words}.txt" if words in ("subjects", "styles") else Path(words).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f'{path}: no such list of words; name a text file, "subjects" or "styles"')
        try:
            words = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text ({error}); save the file as UTF-8") from None
        where = path
    found = [word.strip() for word in words if word.strip()]
    if len(found) < 2 or len(set(found)) < len(found):
        twice = next((word for i, word in enumerate(found) if word in found[:i]), None)
        raise ValueError(f"{where}: {f'{twice!r} is listed twice' if twice else 'at least two words are needed'}")
    return tuple(found)
