"""An image archive: ordered files or windows of scenes, their classes, and how one is read as 8-bit RGB."""

import hashlib
import os
import posixpath
import re
import stat
import threading
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, WebPImagePlugin  # noqa: F401 (the plugins: they register themselves)

if TYPE_CHECKING:  # an optional package: it reads what isn't 8-bit RGB
    from rasterio.io import DatasetReader

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".jp2", ".j2k"}
# No other decoder ever sees a file: some of them run programs (EPS) or fetch what a file names (VRT)
_PILLOW = ("JPEG", "PNG", "TIFF", "WEBP", "BMP")
_GDAL = ["GTiff", "JP2OpenJPEG", "PNG", "JPEG", "WEBP", "BMP"]
_CACHE = 128 * 2**20  # bytes of decoded blocks that GDAL keeps in a process; its own default is a share of the memory
_SAMPLE = 2048  # pixels a side; the stretch of a larger scene is that of 8 x 8 windows spread over it, as many pixels
_TILE = re.compile(r"(.+)#(\d+),(\d+),(\d+),(\d+)")

Window = tuple[int, int, int, int]  # column, row, width, height in pixels of the scene


@dataclass(frozen=True)
class Reading:
    """The rule by which a file becomes 8-bit RGB; part of the features' provenance.

    8-bit images (grey, palette, alpha, CMYK too) are converted by Pillow and turned as their EXIF says; no value of
    the rule touches them unless `bands` or `limits` are given. All else is read by rasterio, a band at a time, and
    what isn't 8-bit is stretched: from `percentiles` of the band over the file, and for a window over its whole scene,
    to 0 and 255. So an image's features depend on its own file alone. Pixels without data are black.
    """

    bands: tuple[int, ...] = ()  # one or three, from 1; (): those named red, green, blue, else the first three or one
    percentiles: tuple[float, float] = (2.0, 98.0)
    limits: tuple[float, float] | None = None  # values in place of percentiles: for images of one sensor
    nodata: float | None = None  # the value that stands for no data, where the file doesn't declare it
    most_pixels: int = 4096 * 4096  # a larger image is a scene: better tiled than shrunk to one feature

    def __post_init__(self) -> None:
        if len(self.bands) not in (0, 1, 3) or any(band < 1 for band in self.bands):
            raise ValueError(f"bands {self.bands}: name one band or three, counted from 1, or none for the default")
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"percentiles {self.percentiles}: two numbers that rise within 0 and 100 are wanted")
        if self.limits is not None and not self.limits[0] < self.limits[1]:
            raise ValueError(f"limits {self.limits}: two values that rise are wanted")
        if self.most_pixels < 1:
            raise ValueError(f"most_pixels {self.most_pixels}: at least 1 is wanted")

    def __str__(self) -> str:
        bands = " ".join(map(str, self.bands)) or "red green blue, else the first three, else the first"
        low, high = self.limits or self.percentiles
        stretch = f"values {low:g} to {high:g}" if self.limits else f"percentiles {low:g} to {high:g} of each band"
        nodata = "" if self.nodata is None else f"; no data: {self.nodata:g}"
        return f"8-bit RGB, turned by EXIF; other depths: {stretch} of the file or scene; bands {bands}{nodata}"


class _Refused(ValueError):
    """Readable, perhaps, but not so: the message says what to do instead of replacing the file."""


@dataclass(frozen=True)
class Archive:
    """N images in a fixed order; position i of everything else (features, scores) is image i here.

    root: dataset root; files: N posix paths relative to it and inside it, each once, or `scene.tif#column,row,width,
    height` for a window of a scene; classes: N class names without underscores, "" where none is known; rule: how an
    image is read; note: what was found and what was left out; nodata: N shares in [0, 1] of pixels without data, or
    () where nobody looked.

    Raises ValueError naming the file for a path that is absolute, leaves the root or stands twice.
    """

    root: Path
    files: tuple[str, ...]
    classes: tuple[str, ...]
    rule: Reading = Reading()
    note: str = field(default="", compare=False)
    nodata: tuple[float, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", tuple(map(_normal, self.files)))
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
        return hashlib.sha256("".join(lines).encode()).hexdigest()

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

    def footprint(self, position: int, crs: str | None = "EPSG:4326") -> dict | None:
        """The outline of image `position` on the ground, a GeoJSON polygon; None where its file has no place.

        crs: of the coordinates, longitude and latitude unless told; None for the file's own.
        """
        path, window = self.path(position), split_window(self.files[position])[1]
        try:
            place = geography(path)
        except (OSError, ValueError):  # not a raster that GDAL knows, or no rasterio: no place either
            return None
        if place is None:
            return None
        transform, own, (width, height) = place
        column, row, width, height = window or (0, 0, width, height)
        corners = [(column, row), (column, row + height), (column + width, row + height), (column + width, row)]
        ring = [tuple(transform * corner) for corner in [*corners, corners[0]]]
        polygon = {"type": "Polygon", "coordinates": [ring]}
        if crs is None:
            return polygon
        from rasterio.warp import transform_geom

        return transform_geom(own, crs, polygon)

    def subset(self, positions: Iterable[int]) -> "Archive":
        """The archive of these images alone, in the order given."""
        positions = list(positions)
        files, classes = (tuple(values[i] for i in positions) for values in (self.files, self.classes))
        nodata = tuple(self.nodata[i] for i in positions) if self.nodata else ()
        return Archive(self.root, files, classes, self.rule, self.note, nodata)


def split_window(file: str) -> tuple[str, Window | None]:
    """Path and window of an archive's file; None for a whole file."""
    if found := _TILE.fullmatch(file):
        return found[1], tuple(map(int, found.groups()[1:]))
    return file, None


def _normal(file: str) -> str:
    """The one spelling of a path inside the root."""
    if not file.isprintable():
        raise ValueError(f"{file!a}: a line break, control character or broken encoding in a file name; rename it")
    normal = posixpath.normpath(file)
    if not file or posixpath.isabs(file) or normal in (".", "..") or normal.startswith("../") or file[1:2] == ":":
        raise ValueError(f"{file!r} is not a path inside the archive; give it relative to the root, without '..'")
    return normal


def class_of(file_name: str) -> str:
    """Class of a PatternNet image: its file name up to the first digit (protocol, Data)."""
    return _class(re.split(r"\d", file_name, maxsplit=1)[0])


def _class(name: str) -> str:
    return "".join(name.replace("_", "").split())


def read_archive(root: str | Path, listing: str | Path | None = None, rule: Reading | None = None) -> Archive:
    """The archive under a dataset root: any folder of images. `archive.note` says what was found and left out.

    Its order and classes are those of `listing`, a file in the format of `patternnet.csv` (per line: path relative to
    the root, class index, class name or `-`; paths may hold spaces); without one, of `root/patternnet.csv`; without
    that, of the images in `root/images/`, or in `root`, at any depth and sorted by path. A class is then the name of
    the folder that holds the image; in a flat folder the file name up to its number where all are named as in
    PatternNet, else "". The images themselves need not be on disk for a listed archive, and none is opened here.

    rule: how images are read, see `Reading`.

    Raises FileNotFoundError when there is neither listing nor images, ValueError (file, line) for a malformed line.
    """
    root = Path(root).expanduser().resolve()
    if listing is None and (root / "patternnet.csv").exists():
        listing = root / "patternnet.csv"
    files, classes, note = _listed(Path(listing).expanduser()) if listing else _found(root)
    return Archive(root, tuple(files), tuple(classes), rule or Reading(), note)


def _listed(listing: Path) -> tuple[list[str], list[str], str]:
    if not listing.is_file():
        raise FileNotFoundError(f"{listing}: no such listing; `make fetch` gets PatternNet's")
    files: dict[str, str] = {}
    for number, line in read_lines(listing):
        where, fields = f"{listing}, line {number}", line.rsplit(maxsplit=2)
        if len(fields) != 3 or not fields[1].lstrip("-").isdecimal():
            hint = " (a header? remove the line)" if number == 1 else ""
            raise ValueError(
                f"{where}: expected `path class-index class-name`, three fields separated by spaces, the index a "
                f"number, found {line!r}{hint}"
            )
        try:
            file = _normal(fields[0])
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if file in files:
            raise ValueError(f"{where}: {file!r} is listed twice; remove one line")
        files[file] = "" if fields[2] == "-" else _class(fields[2])
    return list(files), list(files.values()), f"{len(files)} images and their classes as listed in {listing.name}"


def write_listing(archive: Archive, path: str | Path) -> None:
    """Write the archive's files and classes in the format of `patternnet.csv`, which `read_archive` reads."""
    index = {name: number for number, name in enumerate(sorted(set(archive.classes)))}
    rows = zip(archive.files, archive.classes, strict=True)
    Path(path).write_text("".join(f"{file} {index[cls]} {cls or '-'}\n" for file, cls in rows), encoding="utf-8")


def _found(root: Path) -> tuple[list[str], list[str], str]:
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no archive here, there is no such folder; an archive is a folder of images")
    left, outside = Counter(), []
    paths = _images(root / "images", left, outside)
    base = root / "images" if paths else root
    paths = paths or _images(root, left, outside)
    without = "; left out: " + ", ".join(f"{n} {what}" for what, n in sorted(left.items())) if left else ""
    if not paths:
        raise FileNotFoundError(
            f"{root}: no archive here, for it holds no image{without}. An archive is a folder with images "
            f"({' '.join(sorted(IMAGE_SUFFIXES))}), in any folders, or with patternnet.csv; "
            "`make fetch DATASET_ROOT=...` gets PatternNet"
        )
    classes = [_class(path.parent.name) if path.parent != base else "" for path in paths]
    source = "folders"
    if not any(classes):
        source = "file names, as in PatternNet"
        named = Counter(class_of(p.name) for p in paths if re.fullmatch(r"[a-z_]+\d+\.\w+", p.name))
        if named.total() == len(paths) and len(named) > 1 and min(named.values()) > 1:
            classes = [class_of(path.name) for path in paths]
    known = len(set(classes) - {""})
    what = f"{known} classes from their {source}" if known else "no classes"
    some = f", {classes.count('')} images without" if known and "" in classes else ""
    links = f"; {len(outside)} lie outside the folder, through links (first {outside[0]})" if outside else ""
    return (
        [path.relative_to(root).as_posix() for path in paths],
        classes,
        f"{len(paths)} images, {what}{some}{links}{without}",
    )


def _images(folder: Path, left: Counter, outside: list[str]) -> list[Path]:
    """The images in a folder and below it, sorted; counts in `left` what else lies there."""
    found, home, seen = [], folder.parent.resolve(), set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        visible = [] if real in seen else [name for name in folders if not name.startswith(".")]  # a link to above
        left["hidden folders"] += 0 if real in seen else len(folders) - len(visible)
        folders[:] = sorted(visible)
        away = not Path(real).is_relative_to(home)
        for name in files if real not in seen else ():
            path = Path(here, name)
            if name.startswith("."):
                left["hidden files"] += 1
            elif path.suffix.lower() not in IMAGE_SUFFIXES:
                left[f"{path.suffix.lower()} files" if path.suffix else "files without suffix"] += 1
            elif not path.is_file():
                left["pipes, devices or broken links"] += 1
            elif not name.isprintable() or not here.isprintable():
                left["files with a control character in their path"] += 1
            else:
                found.append(path)
                if away or (path.is_symlink() and not path.resolve().is_relative_to(home)):
                    outside.append(str(path))
        seen.add(real)
    left += Counter()  # drops what was never counted
    return sorted(found)


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Numbered non-blank lines of a UTF-8 text file (BOM, CRLF and blank lines tolerated).

    Raises ValueError naming the line for another encoding, and for a file without any line.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: not a regular file; a folder, pipe or device can't be read as text")
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {number}: not UTF-8 text; save the file as UTF-8") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{path}: the file is empty; fetch it again")
    return lines


def read_image(path: str | Path, rule: Reading | None = None, window: Window | None = None) -> Image.Image:
    """An image, or a window of it, as 8-bit RGB, whatever its depth, bands and mode (see `Reading`).

    Raises FileNotFoundError for an absent file; ValueError naming file, reason and what to do for one that can't be
    decoded, is larger than `rule.most_pixels`, or needs a package that isn't there.
    """
    path, rule = Path(path), rule or Reading()
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for a writer for ever
            raise ValueError("a folder, pipe or device")
        if window is None and not (rule.bands or rule.limits) and (image := _read_plain(path, rule)):
            return image
        return _read_raster(path, rule, window)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: the archive lists this image, but it is not on disk") from None
    except _Refused:
        raise
    except Exception as error:  # decoders that are fed damaged bytes raise nearly anything
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: not a readable image ({reason}); replace the file") from None


def _read_plain(path: Path, rule: Reading) -> Image.Image | None:
    """An 8-bit image; None for one of another depth, whose values Pillow would cut, and for one it doesn't know."""
    if path.suffix.lower() in (".jp2", ".j2k"):  # Pillow doesn't say how deep it is
        return None
    if Image.MAX_IMAGE_PIXELS and rule.most_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = rule.most_pixels  # asked for: Pillow's own bound would refuse it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the check below says it better
            image = Image.open(path, formats=_PILLOW)
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error), rule) from None
    except Image.UnidentifiedImageError:
        if path.suffix.lower() in (".tif", ".tiff"):  # several bands of 16 bits, say
            return None
        raise ValueError("its content is no image format that is read here") from None
    with image:
        _check_size(path, *image.size, rule)
        deep = (
            image.mode == "F"
            or image.mode.startswith("I")
            or (image.format == "TIFF" and max(image.tag_v2.get(258, (1,))) > 8)
            or (image.format == "PNG" and any("16" in str(tile[3]) for tile in image.tile))
        )
        if deep:
            return None
        ImageOps.exif_transpose(image, in_place=True)
        return image.convert("RGB")


def _check_size(path: Path, width: int, height: int, rule: Reading) -> None:
    if width * height > rule.most_pixels:
        raise _too_large(path, f"{width} x {height} pixels", rule)


def _too_large(path: Path, size: str, rule: Reading) -> _Refused:
    return _Refused(
        f"{path}: a scene, too large for one feature ({size}, the limit is {rule.most_pixels:,}); cut it into tiles "
        "with read_scenes (TILE in the notebooks), or raise the limit with Reading(most_pixels=...)"
    )


def open_raster(path: Path) -> "DatasetReader":
    """A file opened by rasterio, once a process and thread. Raises ValueError when rasterio isn't installed."""
    state = path.stat()
    return _opened(path, (state.st_mtime_ns, state.st_size), os.getpid(), threading.get_ident())


@lru_cache(maxsize=4)
def _opened(path: Path, state: tuple[int, int], process: int, thread: int) -> "DatasetReader":
    try:
        import rasterio
    except ImportError:
        raise _Refused(
            f"{path}: this file is read with rasterio (depths other than 8 bits, JPEG 2000, tiles of scenes), which is "
            "not installed; pip install rasterio"
        ) from None
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=_CACHE):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        return rasterio.open(path, driver=_GDAL)


def geography(path: Path) -> tuple | None:
    """Affine transform (pixel to ground), CRS and size (width, height) of a file; None where it has no place."""
    scene = open_raster(path)
    return None if scene.crs is None or scene.transform.is_identity else (scene.transform, scene.crs, scene.shape[::-1])


def _read_raster(path: Path, rule: Reading, window: Window | None) -> Image.Image:
    scene = open_raster(path)
    column, row, width, height = window or (0, 0, scene.width, scene.height)
    if column + width > scene.width or row + height > scene.height or not width * height:
        raise ValueError(f"window {window} lies outside its {scene.width} x {scene.height} pixels")
    _check_size(path, width, height, rule)
    kinds = [kind.name for kind in scene.colorinterp]
    where = ((row, row + height), (column, column + width))
    if kinds[0] == "palette" and not rule.bands:
        table = np.zeros((256, 3), np.uint8)
        for index, colour in scene.colormap(1).items():
            table[index] = colour[:3]
        return Image.fromarray(table[scene.read(1, window=where)])
    if kinds[:4] == ["cyan", "magenta", "yellow", "black"] and not rule.bands:
        return Image.fromarray(np.moveaxis(scene.read((1, 2, 3, 4), window=where), 0, -1), "CMYK").convert("RGB")
    bands = rule.bands or _default_bands(kinds)
    if max(bands) > scene.count:
        raise _Refused(f"{path}: band {max(bands)} is asked for, it has {scene.count}; choose other bands")
    limits = _limits(path, (path.stat().st_mtime_ns, path.stat().st_size), bands, rule)
    rgb = np.empty((height, width, len(bands)), np.uint8)
    for i, (band, limit) in enumerate(zip(bands, limits, strict=True)):
        values, valid = _values(scene, band, where, rule)
        if limit:
            low, high = limit
            scale = 255 / (high - low) if high > low else 0
            values = np.rint(((np.where(valid, values, low) - low) * scale).clip(0, 255))
        rgb[..., i] = np.where(valid, values, 0)
    return Image.fromarray(rgb if len(bands) == 3 else rgb[..., 0]).convert("RGB")


def _default_bands(kinds: list[str]) -> tuple[int, ...]:
    if {"red", "green", "blue"} <= set(kinds):
        return tuple(kinds.index(colour) + 1 for colour in ("red", "green", "blue"))
    colours = [number for number, kind in enumerate(kinds, 1) if kind != "alpha"]
    return tuple(colours[:3] if len(colours) >= 3 else colours[:1])


def _values(scene: "DatasetReader", band: int, where: tuple, rule: Reading) -> tuple[np.ndarray, np.ndarray]:
    """A band's values in a window, and which of them are data."""
    values = scene.read(band, window=where)
    valid = (scene.read_masks(band, window=where) > 0) & np.isfinite(values)
    return values, valid if rule.nodata is None else valid & (values != rule.nodata)


@lru_cache(maxsize=64)
def _limits(path: Path, state: tuple[int, int], bands: tuple[int, ...], rule: Reading) -> tuple:
    """Of each band the values that become 0 and 255; None for a band of 8 bits, which stays as it is."""
    scene, limits = open_raster(path), []
    whole = scene.width * scene.height <= _SAMPLE**2
    side = _SAMPLE // 8
    windows = [((0, scene.height), (0, scene.width))] if whole else []
    if not whole:
        rows, columns = (np.linspace(0, max(0, n - side), 8).astype(int) for n in scene.shape)
        windows = [((r, min(r + side, scene.height)), (c, min(c + side, scene.width))) for r in rows for c in columns]
    for band in bands:
        dtype = np.dtype(scene.dtypes[band - 1])
        if rule.limits or dtype == np.uint8:
            limits.append(rule.limits)
            continue
        if dtype.kind not in "uif":
            raise ValueError(f"values of type {dtype}")
        sample = np.concatenate([values[valid] for values, valid in (_values(scene, band, w, rule) for w in windows)])
        if not sample.size:
            raise _Refused(f"{path}: band {band} holds no data where it was sampled; give Reading(limits=...)")
        limits.append(tuple(float(value) for value in np.percentile(sample, rule.percentiles)))
    return tuple(limits)
