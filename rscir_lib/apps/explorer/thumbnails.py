"""Small JPEGs of an archive's images, made when first asked for and kept on disk."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from rscir_lib.archive import Archive
from rscir_lib.archive.reading import jpeg
from rscir_lib.storage.atomic import write_file
from rscir_lib.storage.digests import sha256_of

SIDE = 128  # pixels
END = b"\xff\xd9"  # of a JPEG


def thumbnail(image: Image.Image) -> bytes:
    """The middle square of an RGB image as a JPEG of `SIDE` x `SIDE` pixels."""
    return jpeg(ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.BILINEAR))


class Thumbnails:
    """Thumbnails by archive position. Size and time of the file, and the rule by which it is read, are in the name: of
    an image that was replaced, the next `Thumbnails` have a new one. These remember how every file was at their start.
    """

    def __init__(self, archive: Archive, folder: str | Path) -> None:
        self.archive, self.folder = archive, Path(folder)
        self.states = np.fromiter(map(self._state, range(len(archive))), np.int64, len(archive))
        self.pool = ThreadPoolExecutor(4)  # Pillow decodes without holding the others up

    def _state(self, position: int) -> int:
        """A number that another file in an image's place, or other content, would not have; -1 for an absent one."""
        try:
            stat = self.archive.path(position).stat()
        except OSError:
            return -1
        return hash((stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))

    def changed(self, position: int) -> str:
        """A sentence where the file of an image is not as it was at the start, "" where it is."""
        if self._state(position) == self.states[position]:
            return ""
        return f"{self.archive.files[position]} has changed, its features have not: stop the explorer and start it anew"

    def of(self, positions: Sequence[int]) -> list[bytes]:
        """JPEGs of these images; a crossed-out grey one stands for an image that can't be read, or has changed."""
        return list(self.pool.map(self._of, positions))

    def _of(self, position: int) -> bytes:
        try:
            if problem := self.changed(position):
                raise ValueError(problem)
            stat = self.archive.path(position).stat()
            name = f"{self.archive.files[position]} {stat.st_size} {stat.st_mtime_ns} {SIDE} {self.archive.rule}"
            digest = sha256_of(name)
            path = self.folder / digest[:2] / f"{digest[2:32]}.jpg"
            with suppress(OSError):  # there is none, or it can't be read
                if (data := path.read_bytes()).endswith(END):  # a power cut may have left it short
                    return data
            data = thumbnail(self.archive.read(position))
        except (OSError, ValueError):
            missing = Image.new("RGB", (SIDE, SIDE), "grey")
            ImageDraw.Draw(missing).line([0, 0, SIDE, SIDE, SIDE, 0, 0, SIDE], "white", 3)
            return jpeg(missing)
        with suppress(OSError):  # a folder that can't be written to: drawn again the next time
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, lambda file: file.write(data), durable=False)
        return data
