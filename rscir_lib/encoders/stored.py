"""An encoder that is a table: features that somebody else's encoder gave, of some images and of some texts."""

import re
from pathlib import Path

import numpy as np
import torch

from rscir_lib.encoders.base import normalised, one_of
from rscir_lib.storage.bounds import of_file, read_arrays
from rscir_lib.storage.digests import sha256_of_file

TABLE = "features.npz"  # images (N, d), files (N,), classes (N,), texts (T, d), phrases (T,); no pickled objects


class StoredEncoder:
    """Knows the texts of its table, and no image.

    A text that is stored gives its own feature; the start of stored phrases ("a dark satellite image of a") the mean of
    theirs; any other text the mean of the stored phrases that stand in it ("airport, dense": airport), or of all where
    none does. `unknown_words` lists the words that were ignored.
    """

    precision, device = "float32", torch.device("cpu")
    preprocess = None  # it takes no images

    def __init__(self, name: str, path: Path) -> None:
        texts, phrases, made_by = read_arrays(path, "texts", "phrases", "made_by")
        with of_file(path):
            texts, phrases = texts.astype(np.float64), np.atleast_1d(phrases).astype(str).tolist()
            self.name, self.architecture, self.dim = name, str(made_by), texts.shape[1]
            if texts.ndim != 2 or len(texts) != len(phrases) or not np.linalg.norm(texts, axis=1).all():
                raise ValueError(f"{len(phrases)} phrases for texts of shape {texts.shape}, each of a length above 0")
            if not (texts.size and np.isfinite(texts).all()):
                raise ValueError("a text has numbers that are not finite, or none")
        self._rows = dict(zip(phrases, texts, strict=True))
        self._all = texts.mean(axis=0)
        self.provenance = {"encoder": name, "architecture": str(made_by), "weights_sha256": sha256_of_file(path)}

    def _inside(self, text: str) -> list[str]:
        """The stored phrases in a text, the longest first, none inside another."""
        kept: list[str] = []
        for phrase in sorted((phrase for phrase in self._rows if phrase in text), key=len, reverse=True):
            if re.search(rf"\b{re.escape(phrase)}\b", text) and not any(phrase in longer for longer in kept):
                kept.append(phrase)
        return kept

    def _feature(self, text: str) -> np.ndarray:
        if text in self._rows:
            return self._rows[text]
        phrases = [phrase for phrase in self._rows if phrase.startswith(text + " ")] or self._inside(text)
        return np.mean([self._rows[phrase] for phrase in phrases], axis=0) if phrases else self._all

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """(len(texts), dim) float32 of unit length, from the table."""
        return normalised(torch.from_numpy(np.stack([self._feature(text) for text in texts])))

    def unknown_words(self, text: str) -> list[str]:
        """The words of a text that stand in none of the stored phrases in it."""
        known = set(" ".join(self._inside(text)).split())
        return [] if any(p.startswith(text + " ") for p in self._rows) else [w for w in text.split() if w not in known]

    def encode_images(self, batch: torch.Tensor) -> np.ndarray:
        """Raises ValueError: no image can be encoded."""
        raise ValueError(f"{self.name} is a table of features and encodes no image; FEATURES names those there are")


def load_stored(
    name: str, architecture: str | None, device: torch.device, precision: str, folder: Path
) -> StoredEncoder:
    """That of a folder with `TABLE`. Raises ValueError for another precision or a damaged table."""
    one_of(["float32"], precision, f"precision of {name}")
    return StoredEncoder(name, folder / TABLE)
