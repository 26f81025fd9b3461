"""An image archive: ordered files or windows of scenes, their classes, and how one is read as 8-bit RGB."""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from unicodedata import category

import numpy as np
from PIL import Image

from rscir_lib.archive.reading import DEFAULT_READING, Reading, Window, geography, read_image
from rscir_lib.storage.digests import sha256_of
from rscir_lib.storage.folders import LeftOut

EARTH = 6_378_137  # metres, WGS 84; that of every other ellipsoid of the Earth differs by less than a thousandth
_TILE = re.compile(r"(.+)#(\d+),(\d+),(\d+),(\d+)")


@dataclass(frozen=True)
class Archive:
    """N images in a fixed order; position i of everything else (features, scores) is image i here.

    Attributes:
        root: The dataset's folder.
        files: N posix paths relative to it and inside it, each once; `scene.tif#column,row,width,height` for a window.
        classes: N class names without underscores, "" where none is known.
        rule, note: How an image is read; what was read, and what was left out.
        left_out: What lies beside the images: its kind, how many, and what helps, "" where nothing has to.
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
    left_out: tuple[LeftOut, ...] = field(default=(), compare=False)

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
        """What to call the archive in titles and tables; says so when images or answers are made up."""
        made_up = {"synthcom.json": " (synthetic)", "whucom.json": " (constructed)"}
        return self.root.name + "".join(words for file, words in made_up.items() if (self.root / file).exists())

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the ordered files and classes: what row i of a feature matrix stands for."""
        lines = (f"{file} {cls}\n" for file, cls in zip(self.files, self.classes, strict=True))
        return sha256_of("".join(lines))

    @property
    def reading(self) -> dict[str, str]:
        """The rule by which images are read, for the provenance of their features; says nothing of the machine."""
        pairs = "; before and after a disaster by one stretch" * any("_disaster" in file for file in self.files)
        return {"reading": str(self.rule) + pairs}

    def path(self, position: int) -> Path:
        """The file on disk that holds image `position`, whole or as a window."""
        return self.root / split_window(self.files[position])[0]

    def read(self, position: int) -> Image.Image:
        """Image `position` as 8-bit RGB; raises as `read_image` does."""
        path = self.path(position)
        return read_image(path, self.rule, split_window(self.files[position])[1], other_of_pair(path))

    def footprint(self, position: int) -> dict[str, Any] | None:
        """The outline of image `position` on the ground, in longitude and latitude; None without a place on Earth.

        It is a GeoJSON polygon, or two in a MultiPolygon where it crosses the antimeridian.
        """
        path, window = self.path(position), split_window(self.files[position])[1]
        try:
            place = geography(path)
        except (OSError, ValueError):  # not a raster that GDAL knows, or no rasterio: no place either
            return None
        if place is None:
            return None
        from rasterio.warp import transform as project

        transform, own, size = place
        column, row, width, height = window or (0, 0, *size)
        corners = [(column, row), (column, row + height), (column + width, row + height), (column + width, row)]
        ring = [tuple(transform * corner) for corner in corners]
        wide = own.is_geographic and np.ptp([x for x, _ in ring]) >= 180  # half the Earth: corners say which way round
        try:
            ring = list(zip(*project(own, "EPSG:4326", *zip(*ring, strict=True)), strict=True))
        except Exception:  # GDAL's errors have no class in common: a local system, coordinates beyond a projection
            return None
        return polygon_on_earth(ring, wide) if np.isfinite(ring).all() and is_of_earth(own) else None

    def subset(self, positions: Iterable[int]) -> "Archive":
        """The archive of these images alone, in the order given."""
        kept, nodata = list(positions), self.nodata
        files, classes = (tuple(values[i] for i in kept) for values in (self.files, self.classes))
        return replace(self, files=files, classes=classes, nodata=tuple(nodata[i] for i in kept) if nodata else ())


@lru_cache(maxsize=64)
def is_of_earth(crs: Any) -> bool:
    """Whether a coordinate system, of any library, is of the Earth: not of the Moon, and not of a building site."""
    import pyproj

    ellipsoid = pyproj.CRS.from_user_input(crs).ellipsoid
    return ellipsoid is not None and abs(ellipsoid.semi_major_metre / EARTH - 1) < 0.01


def polygon_on_earth(ring: list[tuple[float, float]], wide: bool = False) -> dict[str, Any]:
    """GeoJSON (RFC 7946) of a quadrilateral's corners in longitude and latitude: counterclockwise, `on_earth`. Edges go
    the short way round the Earth, unless it is `wide`."""
    import shapely
    from shapely.geometry import mapping

    points = np.array(ring, float)
    if not wide:
        points[:, 0] = np.unwrap(points[:, 0], period=360)
    return mapping(shapely.orient_polygons(on_earth(shapely.Polygon(points))))


def on_earth(shape: Any) -> Any:
    """A shape of shapely's whose longitudes go beyond the antimeridian, cut there and turned back to -180 to 180."""
    import shapely

    west, _, east, _ = shape.bounds
    if west >= -180 and east <= 180:
        return shape
    turns = 360 * np.arange(np.floor((west + 180) / 360), np.ceil((east + 180) / 360))
    parts = [shape & shapely.box(turn - 180, -90, turn + 180, 90) for turn in turns]
    return shapely.union_all(
        [shapely.transform(p, lambda xy, t=t: xy - [t, 0]) for p, t in zip(parts, turns, strict=True)]
    )


def other_of_pair(path: Path) -> Path | None:
    """Of a scene before or after a disaster, as xBD and xView2-CIR name them, the other; None where it isn't there."""
    names = {"_pre_disaster": "_post_disaster", "_post_disaster": "_pre_disaster"}
    others = (path.with_name(path.name.replace(here, there)) for here, there in names.items() if here in path.name)
    return next((other for other in others if other.is_file()), None)


def split_window(file: str) -> tuple[str, Window | None]:
    """Path and window of an archive's file; None for a whole file."""
    if match := _TILE.fullmatch(file):
        column, row, width, height = map(int, match.groups()[1:])
        return match[1], (column, row, width, height)
    return file, None


def nameable(path: str) -> bool:
    """Whether lists can hold a path: no control character, line break or broken encoding in it."""
    return path.isprintable() or not any(category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in path)


def normal_path(file: str) -> str:
    """The one spelling of a path inside the root."""
    if not nameable(file):
        raise ValueError(f"{file!a}: a line break, control character or broken encoding in a file name; rename it")
    normal, outside = posixpath.normpath(file), posixpath.isabs(file) or re.match(r"[A-Za-z]:", file)
    if not file or outside or normal in (".", "..") or normal.startswith("../"):
        raise ValueError(f"{file!r} is not a path inside the archive; give it relative to the root, without '..'")
    return normal


def class_of(file_name: str) -> str:
    """Class of a PatternNet image: its file name up to the first digit (protocol, Data)."""
    return class_name(re.split(r"\d", file_name, maxsplit=1)[0])


def class_name(name: str) -> str:
    """One spelling of a class, without underscores and spaces: "golf_course" and "golf course" are "golfcourse"."""
    return "".join(name.replace("_", "").split())
