"""An image archive: ordered files or windows of scenes, their classes, and how one is read as 8-bit RGB."""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from rscir_lib.archive.reading import DEFAULT_READING, Reading, Window, geography, read_image
from rscir_lib.storage.digests import sha256_of

_TILE = re.compile(r"(.+)#(\d+),(\d+),(\d+),(\d+)")


@dataclass(frozen=True)
class Archive:
    """N images in a fixed order; position i of everything else (features, scores) is image i here.

    Attributes:
        root: The dataset's folder.
        files: N posix paths relative to it and inside it, each once; `scene.tif#column,row,width,height` for a window.
        classes: N class names without underscores, "" where none is known.
        rule, note: How an image is read; what was read, and what was left out.
        nodata: N shares in [0, 1] of pixels without data, or () where nobody looked.

    Raises:
        ValueError: Naming the file, for a path that is absolute, leaves the root or stands twice.
    """

    root: Path
    files: tuple[str, ...]
    classes: tuple[str, ...]
    rule: Reading = DEFAULT_READING
    note: str = field(default="", compare=False)
    nodata: tuple[float, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", tuple(map(normal_path, self.files)))
        if len(self.classes) != len(self.files) or len(self.nodata) not in (0, len(self.files)):
            counts = f"{len(self.files)} files, {len(self.classes)} classes, {len(self.nodata)} shares of nodata"
            raise ValueError(f"{self.root}: {counts}; an archive has one of each for an image")
        if len(set(self.files)) < len(self.files):
            twice = next(file for file, count in Counter(self.files).items() if count > 1)
            raise ValueError(f"{self.root}: {twice!r} stands twice in the archive; list every image once")

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """File names without folders, as PatternCom lists them."""
        return tuple(file.rsplit("/", 1)[-1] for file in self.files)

    @property
    def name(self) -> str:
        """What to call the archive in titles and tables; says so when the images are synthetic."""
        return self.root.name + (" (synthetic)" if (self.root / "synthcom.json").exists() else "")

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the ordered files and classes: what row i of a feature matrix stands for."""
        lines = (f"{file} {cls}\n" for file, cls in zip(self.files, self.classes, strict=True))
        return sha256_of("".join(lines))

    @property
    def reading(self) -> dict[str, str]:
        """The rule by which images are read, for the provenance of their features; says nothing of the machine."""
        return {"reading": str(self.rule)}

    def path(self, position: int) -> Path:
        """The file on disk that holds image `position`, whole or as a window."""
        return self.root / split_window(self.files[position])[0]

    def read(self, position: int) -> Image.Image:
        """Image `position` as 8-bit RGB; raises as `read_image` does."""
        return read_image(self.path(position), self.rule, split_window(self.files[position])[1])

    def footprint(self, position: int, crs: str | None = "EPSG:4326") -> dict[str, Any] | None:
        """The outline of image `position` on the ground, a GeoJSON polygon; None where its file has no place.

        crs: of the coordinates, by default longitude and latitude; None for the file's own.
        """
        path, window = self.path(position), split_window(self.files[position])[1]
        try:
            place = geography(path)
        except (OSError, ValueError):  # not a raster that GDAL knows, or no rasterio: no place either
            return None
        if place is None:
            return None
        from rasterio.warp import transform_geom

        transform, own, size = place
        column, row, width, height = window or (0, 0, *size)
        corners = [(column, row), (column, row + height), (column + width, row + height), (column + width, row)]
        polygon = {"type": "Polygon", "coordinates": [[tuple(transform * corner) for corner in [*corners, corners[0]]]]}
        return polygon if crs is None else transform_geom(own, crs, polygon)

    def subset(self, positions: Iterable[int]) -> "Archive":
        """The archive of these images alone, in the order given."""
        kept, nodata = list(positions), self.nodata
        files, classes = (tuple(values[i] for i in kept) for values in (self.files, self.classes))
        return replace(self, files=files, classes=classes, nodata=tuple(nodata[i] for i in kept) if nodata else ())


def split_window(file: str) -> tuple[str, Window | None]:
    """Path and window of an archive's file; None for a whole file."""
    if match := _TILE.fullmatch(file):
        column, row, width, height = map(int, match.groups()[1:])
        return match[1], (column, row, width, height)
    return file, None


def normal_path(file: str) -> str:
    """The one spelling of a path inside the root."""
    if not file.isprintable():
        raise ValueError(f"{file!a}: a line break, control character or broken encoding in a file name; rename it")
    normal = posixpath.normpath(file)
    if not file or posixpath.isabs(file) or normal in (".", "..") or normal.startswith("../") or file[1:2] == ":":
        raise ValueError(f"{file!r} is not a path inside the archive; give it relative to the root, without '..'")
    return normal


def class_of(file_name: str) -> str:
    """Class of a PatternNet image: its file name up to the first digit (protocol, Data)."""
    return class_name(re.split(r"\d", file_name, maxsplit=1)[0])


def class_name(name: str) -> str:
    """One spelling of a class, without underscores and spaces: "golf_course" and "golf course" are "golfcourse"."""
    return "".join(name.replace("_", "").split())
