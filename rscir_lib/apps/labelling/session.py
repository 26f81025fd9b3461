"""One person labels one attribute of an archive: what comes next, what was said, saved after every answer."""

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from PIL import ImageOps

from rscir_lib.apps.labelling.journal import HEADER, check_words, read_journal, write_rows
from rscir_lib.archive import Archive
from rscir_lib.archive.reading import jpeg
from rscir_lib.benchmarks.image_names import ImageNames


def propose(
    feats: np.ndarray, encode_texts: Callable[[list[str]], np.ndarray], prompts: dict[str, str]
) -> pd.DataFrame:
    """The value that an encoder would give each image, zero-shot, those it is least sure of first.

    feats: (N, d) L2-normalised; prompts: value -> text that stands for it, two or more. Returns columns position,
    proposed, margin (cosine of the best text less that of the second best, >= 0), ascending margin.
    """
    if len(prompts) < 2:
        raise ValueError(f"values {list(prompts)}: a choice needs two or more")
    cosines = feats @ encode_texts(list(prompts.values())).T
    order = np.argsort(-cosines, axis=1, kind="stable")
    best, second = np.take_along_axis(cosines, order[:, :2], axis=1).T
    proposed = np.array(list(prompts))[order[:, 0]]
    table = pd.DataFrame({"position": np.arange(len(feats)), "proposed": proposed, "margin": best - second})
    return table.sort_values("margin", kind="stable", ignore_index=True)


def check_proposals(proposals: pd.DataFrame, labels: pd.DataFrame | None) -> pd.DataFrame:
    """How often proposals are right where labels know: over the least sure tenth, over all, over the surest tenth.

    proposals: of `propose`; labels: columns position and value, such as a benchmark's; None for none. Labels of values
    that are not proposed are left out. Columns images, right (a share in [0, 1]; NaN without images).
    """
    known = proposals[:0][["position"]].assign(value="") if labels is None else labels[["position", "value"]]
    checked = proposals.merge(known[known["value"].isin(proposals["proposed"])], on="position")
    right, tenth = checked["proposed"] == checked["value"], -(-len(checked) // 10)
    parts = {"least sure tenth": right[:tenth], "all": right, "surest tenth": right[len(right) - tenth :]}
    rows = [(len(part), part.mean()) for part in parts.values()]
    return pd.DataFrame(rows, index=list(parts), columns=["images", "right"])


class Session:
    """Labels of one attribute by one person, in the file `path`: written whole after each answer, read at the start.

    archive: N images. values: the choices. proposals: columns position, proposed, margin (`propose`), in the order in
    which images are shown; None for archive order without proposals. Opening the same file again goes on where it
    ended; a cell that is run again takes the file over from the session that it made before. `labels` are the answers
    so far, columns image, value, proposed.

    Raises ValueError for fewer than two values, one twice or unfit for PatternCom's files, a journal that names images
    or values that are not here, and a file that another process has open.
    """

    _open: ClassVar[dict[Path, "Session"]] = {}  # of this process

    def __init__(
        self, archive: Archive, values: Sequence[str], path: str | Path, proposals: pd.DataFrame | None = None
    ) -> None:
        check_words(values, "value")
        if len(values) < 2 or len(set(values)) < len(values):
            raise ValueError(f"values {list(values)}: give two or more, each once")
        self.archive, self.values, self.path = archive, list(values), Path(path).expanduser().resolve()
        if proposals is None:
            proposals = pd.DataFrame({"position": np.arange(len(archive)), "proposed": "", "margin": np.nan})
        names = list(map(ImageNames(archive).name, archive.files))
        self.proposals = proposals.set_index(pd.Index([names[i] for i in proposals["position"]]))
        kept = read_journal(self.path)
        for column, allowed in (("image", names), ("value", [*values, ""])):
            if (strange := kept.loc[~kept[column].isin(allowed), column]).size:
                raise ValueError(f"{self.path}: {column} {strange.iloc[0]!r} is not of this archive and these values")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path in self._open:
            self._open[self.path].close()
        self._lock = FileLock(self.path.with_suffix(".lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            problem = "is open in another notebook; shut that one's kernel down, or label as another PERSON"
            raise ValueError(f"{self.path} {problem}") from None
        self._open[self.path] = self
        self.labels = read_journal(self.path)  # again: another may have written before it let go

    def close(self) -> None:
        """Let another session open the file; this one answers no more."""
        self._lock.release()
        if self._open.get(self.path) is self:
            del self._open[self.path]

    @property
    def left(self) -> list[str]:
        """Images without an answer, the one to ask for first."""
        return self.proposals.index[~self.proposals.index.isin(self.labels["image"])].tolist()

    def label(self, image: str, value: str) -> None:
        """One answer; "" for *can't tell*. Saved before this returns. Raises ValueError for what is not on offer."""
        if value not in (*self.values, ""):
            raise ValueError(f"value {value!r}: choose one of {', '.join(self.values)}")
        if image not in self.proposals.index:
            raise ValueError(f"image {image!r} is not among those to label")
        answer = pd.DataFrame([[image, value, self.proposals.at[image, "proposed"]]], columns=HEADER, dtype=str)
        self._save(pd.concat([self.labels[self.labels["image"] != image], answer], ignore_index=True))

    def undo(self) -> str | None:
        """Take the last answer back, on disk too; returns its image, None when there is nothing to take back."""
        images: list[str] = self.labels["image"].tolist()
        self._save(self.labels[:-1])
        return images[-1] if images else None

    def _save(self, labels: pd.DataFrame) -> None:
        if self._open.get(self.path) is not self:
            raise ValueError(f"{self.path} is open in a newer widget; label there, or run this cell again")
        write_rows(self.path, labels)  # first: an answer that could not be written is none
        self.labels = labels

    def picture(self, image: str, side: int = 384) -> str:
        """An image as a data URI, its longer side `side` pixels."""
        picture = ImageOps.contain(self.archive.read(int(self.proposals["position"][image])), (side, side))
        return "data:image/jpeg;base64," + base64.b64encode(jpeg(picture)).decode()
