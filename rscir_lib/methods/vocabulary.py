"""The workbook's own lists of words (data/vocabulary)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rscir_lib.storage.project import DATA

if TYPE_CHECKING:
    from rscir_lib.encoders import Encoder

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


def known_words(encoder: "Encoder", words: str | Path | Sequence[str] = "subjects") -> tuple[str, ...]:
    """The entries of a list of words (`read_vocabulary`) in which the encoder knows every word; all if it can't tell.

    A word that it never met has a feature that means nothing, and leads the method that uses it astray.
    """
    from rscir_lib.encoders import unknown_words

    return tuple(word for word in read_vocabulary(words) if not unknown_words(encoder, word))
