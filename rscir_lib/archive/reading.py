"""One image, or a window of a scene, as 8-bit RGB, whatever its format, depth and bands, by one recorded rule."""

import io
import math
import os
import re
import stat
import threading
import warnings
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError
from pillow_heif import register_heif_opener

from rscir_lib.storage.atomic import read_json

if TYPE_CHECKING:  # an optional package: it reads what isn't 8-bit RGB
    from rasterio.io import DatasetReader

Image.init()  # registers Pillow's own plugins, of which the list below takes a few
register_heif_opener()
# No other decoder ever sees a file: some of them run programs (EPS) or fetch what a file names (VRT)
_PILLOW = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "AVIF", "HEIF")
_GDAL = {  # by their first bytes
    b"II*\0": "GTiff", b"MM\0*": "GTiff", b"II+\0": "GTiff", b"MM\0+": "GTiff", b"\x89PNG": "PNG", b"BM": "BMP",
    b"\xff\xd8\xff": "JPEG", b"\0\0\0\x0cjP": "JP2OpenJPEG", b"\xff\x4f\xff\x51": "JP2OpenJPEG", b"RIFF": "WEBP",
    b"GIF8": "GIF",
}  # fmt: skip
CACHE = "128"  # MB of decoded blocks that GDAL keeps in a process; its own default is a share of the memory
# numbers of TIFF's tags
_BITS, _COMPRESSION, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _NODATA = 258, 259, 338, 339, 42113
_PILLOW_COMPRESSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946)  # none, fax, LZW, JPEG, deflate, PackBits: in any build
PngImagePlugin.MAX_TEXT_CHUNK = 2**24  # bytes of text in a PNG: cameras and editors write some MB, Pillow allows one
# Pixels a side: the stretch of a larger scene is that of 8 x 8 windows spread over it, as many pixels. Fewer would miss
# what is rare, more take longer to read.
_SAMPLE = 2048
# Times an image's width: an encoder makes its short side 224 pixels or so, and few bytes that are longer fill GBs then
LONGEST = 64
SHORT = 512  # pixels: a line up to this long, such as a row of a scene, is harmless
# Passes over a progressive JPEG; editors write about ten. Each takes some 30 bytes and, on a large image, 20 ms
MOST_SCANS = 100
# Bytes that are decoded at once, 4096 x 4096 pixels of four bands of 16 bits: a block of a few thousand bands has more
MOST_BLOCK = 2**27
NO_ROOM = "it takes more memory than is free; end other programs, or leave it out"
_ROWS = 1024  # of pixels that are stretched at once: all would take as many bytes as eight or more copies of the image

_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # of a JPEG's segment, which says its own length

Window = tuple[int, int, int, int]  # column, row, width, height in pixels of the scene
Part = tuple[tuple[int, int], tuple[int, int]]  # first and last row, first and last column: rasterio's window


@dataclass(frozen=True)
class Reading:
    """The rule by which a file becomes 8-bit RGB; part of the features' provenance.

    8-bit images (grey, palette, alpha, CMYK too; HEIC and AVIF of any depth; the first picture of a GIF) are converted
    by Pillow and turned as their EXIF says; no value of the rule touches them unless `bands` or `limits` are given.
    All else is read by rasterio, and what isn't 8-bit is stretched to 0 and 255, over the file, a window over its whole
    scene: an image's features depend on its own file. Each band is stretched from its `percentiles`. Where these span a
    quarter of the bits in use (0 to 2^k - 1, the least that holds every value; fractions: 0 to 2^k), the file is a
    picture already, and all bands are scaled by those bits: to stretch a band alone changes colours. Pixels without
    data are black.
    """

    bands: tuple[int, ...] = ()  # one or three, from 1; (): those named red, green, blue, else the first three or one
    percentiles: tuple[float, float] = (2.0, 98.0)
    limits: tuple[float, float] | None = None  # values in place of percentiles: for images of one sensor
    nodata: float | None = None  # the value that stands for no data, where the file doesn't declare it
    most_pixels: int = 4096 * 4096  # a larger image is a scene: better tiled than shrunk to one feature

    def __post_init__(self) -> None:
        nodata = 0 if self.nodata is None else self.nodata
        numbers = (*self.bands, *self.percentiles, *(self.limits or ()), nodata, self.most_pixels)
        if wrong := [n for n in numbers if isinstance(n, bool) or not isinstance(n, int | float) or abs(n) > 1e300]:
            raise ValueError(f"{wrong[0]!r}: a number is wanted")
        if len(self.bands) not in (0, 1, 3) or any(type(band) is not int or band < 1 for band in self.bands):
            raise ValueError(f"bands {self.bands}: name one band or three, counted from 1, or none for the default")
        if len(self.percentiles) != 2 or not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"percentiles {self.percentiles}: two numbers that rise within 0 and 100 are wanted")
        if self.limits is not None and (len(self.limits) != 2 or not self.limits[0] < self.limits[1]):
            raise ValueError(f"limits {self.limits}: two values that rise are wanted")
        if not self.most_pixels >= 1:
            raise ValueError(f"most_pixels {self.most_pixels}: at least 1 is wanted")

    def __str__(self) -> str:
        bands = " ".join(map(str, self.bands)) or "red green blue, else the first three, else the first"
        low, high = self.limits or self.percentiles
        bits = "of each band, or the bits in use where these span a quarter of them, over the file or scene"
        stretch = f"values {low:g} to {high:g}" if self.limits else f"percentiles {low:g} to {high:g} {bits}"
        nodata = "" if self.nodata is None else f"; no data: {self.nodata:g}"
        turned = "" if self.bands or self.limits else ", turned by EXIF"
        return f"8-bit RGB{turned}; other depths: {stretch}; bands {bands}{nodata}"


DEFAULT_READING = Reading()
RULE = "reading.json"


def read_rule(root: Path) -> Reading:
    """The rule in `root/reading.json`, such as {"bands": [4, 3, 2], "limits": [0, 4095]}; the default without the file.

    Raises ValueError naming the file for what is no rule.
    """
    path = root / RULE
    if not path.exists():
        return DEFAULT_READING
    try:
        values: dict[str, Any] = read_json(path)
        values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return Reading(**values)
    except (OSError, ValueError, TypeError) as error:
        names = ", ".join(field.name for field in fields(Reading))
        raise ValueError(f"{path}: {error}; expected a JSON object of {names}") from None


class _Refused(ValueError):
    """The file may be whole, but can't be read this way; the message says what to do about it."""


def jpeg(image: Image.Image, quality: int = 85) -> bytes:
    """An image as a JPEG. At 85 nobody sees what is lost; 95 takes twice the bytes, below 75 blocks show."""
    image.save(file := io.BytesIO(), "JPEG", quality=quality)
    return file.getvalue()


def read_image(
    path: str | Path, rule: Reading = DEFAULT_READING, window: Window | None = None, beside: Path | None = None
) -> Image.Image:
    """An image, or a window of it, as 8-bit RGB, whatever its depth, bands and mode (see `Reading`).

    beside: an image of the same place, at another time: where they are stretched, both are by one stretch, from the
    darker of their dark ends to the brighter of their bright ends, so that what changed is what differs.

    Raises FileNotFoundError for an absent file; ValueError naming file, reason and what to do for one that can't be
    decoded, is larger than `rule.most_pixels`, or needs a package that isn't there.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for a writer for ever
            raise ValueError("a folder, pipe or device")
        state, plain = (path.stat().st_mtime_ns, path.stat().st_size), None
        if not (rule.bands or rule.limits):
            plain = _plain_scene(path, state, rule) if window else _read_plain(path, rule)
        if plain and window:
            plain = plain.crop(_box(plain.size, window))
        return _proportioned(plain or _read_raster(path, rule, window, beside), path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: the archive lists this image, but it is not on disk") from None
    except _Refused:
        raise
    except MemoryError:
        raise _Refused(f"{path}: {NO_ROOM}") from None
    except Exception as error:  # decoders that are fed damaged bytes raise nearly anything
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: not a readable image ({reason}); replace the file") from None


def _proportioned(image: Image.Image, name: str | Path) -> Image.Image:
    """The image, unless it is a line rather than a picture."""
    if max(image.size) > max(SHORT, LONGEST * min(image.size)):
        size, tile = f"{image.width} x {image.height} pixels", min(256, LONGEST * min(image.size))
        advice = f'crop it, or cut it into windows by make tiles DATASET_ROOT=... ARGS="--tile {tile}"'
        raise _Refused(f"{name}: a line rather than a picture ({size}, the limit is {LONGEST} to 1); {advice}")
    return image


@lru_cache(maxsize=1)  # the windows of a scene come one after the other; a whole image is read once, and not kept
def _plain_scene(path: Path, state: tuple[int, int], rule: Reading) -> Image.Image | None:
    return _read_plain(path, rule, windowed=True)


def _read_plain(path: Path, rule: Reading, windowed: bool = False) -> Image.Image | None:
    """An 8-bit image, by Pillow; None for one that rasterio reads: of another depth, whose values Pillow would cut,
    with pixels that declare to be no data, of a compression that Pillow lacks, or too large to decode for a window."""
    driver = _driver(path)
    if driver == "JP2OpenJPEG":  # Pillow doesn't say how deep it is
        return None
    if Image.MAX_IMAGE_PIXELS and rule.most_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = rule.most_pixels  # asked for: Pillow's own bound would refuse it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the check below says it better
            image = Image.open(path, formats=_PILLOW)
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error), rule) from None
    except UnidentifiedImageError as error:
        if driver == "GTiff":  # several bands of 16 bits, say
            return None
        raise ValueError(f"a damaged {driver} header") from error
    with image:
        if image.width * image.height > rule.most_pixels:
            if windowed and driver != "HEIF":
                return None
            raise _too_large(path, f"{image.width} x {image.height} pixels", rule)
        if image.info.get("progressive") and (scans := _scans(path.read_bytes())) > MOST_SCANS:
            advice = "save it again as a plain JPEG"
            raise _Refused(f"{path}: a JPEG of {scans} scans, which takes long; the limit is {MOST_SCANS}; {advice}")
        if _is_deep(image) or (isinstance(image, TiffImagePlugin.TiffImageFile) and _wants_gdal(image.tag_v2)):
            return None
        ImageOps.exif_transpose(image, in_place=True)
        return image.convert("RGB")


def _scans(data: bytes) -> int:
    """How many passes the data of a JPEG make over its pixels."""
    scans, at = 0, 2
    while (marker := _MARKER.search(data, at)) and marker[1] != b"\xd9":  # the end; another picture may follow
        scans += marker[1] == b"\xda"
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
    return scans


def _is_deep(image: Image.Image) -> bool:
    """Whether its values are of more than 8 bits, or signed, or fractions."""
    sixteen = image.format == "PNG" and any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    return image.mode == "F" or image.mode.startswith("I") or sixteen


def _wants_gdal(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    """Whether a TIFF holds what Pillow cuts, overlooks or can't decode, as its tags say."""
    depths, formats = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (1,))
    unknown = tags.get(_COMPRESSION, 1) not in _PILLOW_COMPRESSIONS
    return max(depths) > 8 or set(formats) != {1} or _NODATA in tags or _EXTRA_SAMPLES in tags or unknown


def _box(size: tuple[int, int], window: Window) -> tuple[int, int, int, int]:
    """Left, upper, right and lower edge of a window in an image of this size."""
    column, row, width, height = window
    if column + width > size[0] or row + height > size[1] or not width * height:
        raise ValueError(f"window {window} lies outside its {size[0]} x {size[1]} pixels")
    return column, row, column + width, row + height


def rgb_of(image: Image.Image) -> Image.Image:
    """A picture in memory as 8-bit RGB, as `read_image` would read its file."""
    if not _is_deep(_proportioned(image, "a picture in memory")):
        return ImageOps.exif_transpose(image).convert("RGB")
    values = np.asarray(image)
    valid = np.isfinite(values)
    (limit,) = _stretch([values[valid]], values.dtype, DEFAULT_READING)
    return Image.fromarray(_stretched(values, valid, limit)).convert("RGB")


def _too_large(path: Path, size: str, rule: Reading) -> _Refused:
    first = "save it as JPEG, then " if _driver(path) == "HEIF" else ""
    advice = f"{first}cut it into windows by make tiles DATASET_ROOT=... ARGS=--scenes, or raise most_pixels in {RULE}"
    return _Refused(f"{path}: a scene, too large for one feature ({size}, the limit is {rule.most_pixels:,}); {advice}")


def open_raster(path: Path) -> "DatasetReader":
    """A file opened by rasterio, once a process and thread.

    Raises OSError for a file that GDAL can't open, ValueError when rasterio isn't installed.
    """
    state = path.stat()
    return _opened(path, (state.st_mtime_ns, state.st_size), os.getpid(), threading.get_ident())


@lru_cache(maxsize=4)
def _opened(path: Path, state: tuple[int, int], process: int, thread: int) -> "DatasetReader":
    try:
        import rasterio
    except ImportError:
        which = "(depths other than 8 bits, JPEG 2000, tiles of scenes), which is not installed; pip install rasterio"
        raise _Refused(f"{path}: this file is read with rasterio {which}") from None
    os.environ.setdefault("GDAL_CACHEMAX", CACHE)  # GDAL looks once, at its first block
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        scene = rasterio.open(path, driver=_driver(path))
    bands = scene.count if scene.profile.get("interleave") == "pixel" else 1
    size = math.prod(scene.block_shapes[0]) * np.dtype(scene.dtypes[0]).itemsize * bands
    if size > MOST_BLOCK:
        advice = "write it in small blocks: rio convert FILE NEW.tif --co TILED=YES --co INTERLEAVE=BAND"
        raise _Refused(f"{path}: {size:,} bytes of {bands} bands in one block, the limit is {MOST_BLOCK:,}; {advice}")
    return scene


def _driver(path: Path) -> str:
    """GDAL's name of the format of a file. Raises OSError for any other file."""
    with path.open("rb") as file:
        start = file.read(8)
    driver = next((driver for magic, driver in _GDAL.items() if start.startswith(magic)), None)
    driver = "HEIF" if start[4:] == b"ftyp" else driver  # AVIF too; GDAL may lack it, and says so by an OSError
    if driver is None:
        raise OSError("its content is not of an image format that is read here" if start else "the file is empty")
    return driver


def geography(path: Path) -> tuple[Any, Any, tuple[int, int]] | None:
    """Affine transform (pixel to ground), CRS and size (width, height) of a file; None where it has no place."""
    scene = open_raster(path)
    points, crs = scene.gcps
    if scene.transform.is_identity and len(points) >= 3 and crs:  # ground control points alone
        from rasterio.transform import from_gcps

        return from_gcps(points), crs, scene.shape[::-1]
    return None if scene.crs is None or scene.transform.is_identity else (scene.transform, scene.crs, scene.shape[::-1])


def _read_raster(path: Path, rule: Reading, window: Window | None, beside: Path | None) -> Image.Image:
    scene = open_raster(path)
    column, row, width, height = window or (0, 0, scene.width, scene.height)
    _box((scene.width, scene.height), (column, row, width, height))
    if width * height > rule.most_pixels:
        raise _too_large(path, f"{width} x {height} pixels", rule)
    kinds = [kind.name for kind in scene.colorinterp]
    where = ((row, row + height), (column, column + width))
    if kinds[0] == "palette" and not rule.bands:
        colours = scene.colormap(1)
        table = np.zeros((max(256, *colours) + 1, 3), np.uint8)
        for index, colour in colours.items():
            table[index] = colour[:3]
        return Image.fromarray(table[scene.read(1, window=where)])
    if kinds[:4] == ["cyan", "magenta", "yellow", "black"] and not rule.bands:
        return Image.fromarray(np.moveaxis(scene.read((1, 2, 3, 4), window=where), 0, -1), "CMYK").convert("RGB")
    bands = colour_bands(scene, rule)
    if max(bands) > scene.count:
        raise _Refused(f"{path}: band {max(bands)} is asked for, it has {scene.count}; choose other bands")
    limits = _limits(path, (path.stat().st_mtime_ns, path.stat().st_size), bands, rule)
    if beside and all(limits):
        others = _limits(beside, (beside.stat().st_mtime_ns, beside.stat().st_size), bands, rule)
        pairs = zip(limits, others, strict=True)
        limits = tuple((min(a[0], b[0]), max(a[1], b[1])) if a and b else a for a, b in pairs)
    rgb = np.empty((height, width, len(bands)), np.uint8)
    for i, (band, limit) in enumerate(zip(bands, limits, strict=True)):
        for top in range(0, height, _ROWS):
            part = (row + top, row + min(top + _ROWS, height)), where[1]
            rgb[top : top + _ROWS, :, i] = _stretched(*band_values(scene, band, part, rule), limit)
    return Image.fromarray(rgb if len(bands) == 3 else rgb[..., 0]).convert("RGB")


def _stretched(values: np.ndarray, valid: np.ndarray, limit: tuple[float, float] | None) -> np.ndarray:
    """Values as 8 bits, those at the limits as 0 and 255; 0 where there are no data."""
    if limit:
        low, high = limit
        scale = 255 / (high - low) if high > low else 0
        values = np.rint(((np.where(valid, values, low) - low) * scale).clip(0, 255))
    return np.where(valid, values, 0).astype(np.uint8)


def colour_bands(scene: "DatasetReader", rule: Reading) -> tuple[int, ...]:
    """The bands of a file, from 1, that become its picture."""
    kinds = [kind.name for kind in scene.colorinterp]
    if rule.bands:
        return rule.bands
    if {"red", "green", "blue"} <= set(kinds):
        return tuple(kinds.index(colour) + 1 for colour in ("red", "green", "blue"))
    colours = [number for number, kind in enumerate(kinds, 1) if kind != "alpha"]
    return tuple(colours[:3] if len(colours) >= 3 else colours[:1])


def band_values(scene: "DatasetReader", band: int, where: Part, rule: Reading) -> tuple[np.ndarray, np.ndarray]:
    """A band's values in a window, and which of them are data."""
    values = scene.read(band, window=where)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The dataset's nodata attribute is shadowing")  # both are no data to us
        valid = (scene.read_masks(band, window=where) > 0) & np.isfinite(values)
    return values, valid if rule.nodata is None else valid & (values != rule.nodata)


@lru_cache(maxsize=64)
def _limits(
    path: Path, state: tuple[int, int], bands: tuple[int, ...], rule: Reading
) -> tuple[tuple[float, float] | None, ...]:
    """Of each band the values that become 0 and 255; None for a band of 8 bits, which stays as it is."""
    scene = open_raster(path)
    if (name := scene.dtypes[bands[0] - 1]).startswith("complex"):
        raise _Refused(f"{path}: values of type {name} are no brightness; convert the file first")
    dtype, bits = np.dtype(name), int(scene.tags(bands[0], ns="IMAGE_STRUCTURE").get("NBITS", 8))
    if rule.limits or dtype == np.uint8:
        return (rule.limits or (None if bits >= 8 else (0, 2**bits - 1)),) * len(bands)
    number, side = (1, _SAMPLE**2) if scene.width * scene.height <= _SAMPLE**2 else (8, _SAMPLE // 8)
    rows, columns = (np.linspace(0, max(0, n - side), number).astype(int) for n in scene.shape)
    windows = [((r, min(r + side, scene.height)), (c, min(c + side, scene.width))) for r in rows for c in columns]
    samples = []
    for band in bands:
        sampled = (band_values(scene, band, window, rule) for window in windows)
        samples.append(np.concatenate([values[valid] for values, valid in sampled]))
        if not samples[-1].size:
            raise _Refused(f"{path}: band {band} holds no data where it was sampled; give Reading(limits=...)")
    return _stretch(samples, dtype, rule)


def _stretch(samples: list[np.ndarray], dtype: np.dtype, rule: Reading) -> tuple[tuple[float, float], ...]:
    """Of each band the values that become 0 and 255, from a sample of its data (see `Reading`)."""
    highest = max(float(sample.max(initial=0)) for sample in samples)
    ends = (np.percentile(sample, rule.percentiles) for sample in samples)
    limits = [(float(dark), float(bright)) for dark, bright in ends]
    low, high = min(low for low, _ in limits), max(high for _, high in limits)
    # 2^k - 1, or 2^k for fractions, k the least that holds all values
    full = 2.0 ** np.ceil(np.log2(highest + (dtype.kind != "f"))) - (dtype.kind != "f") if highest > 0 else 1.0
    picture = low >= 0 and (high - low >= full / 4 or any(low == high for low, high in limits))
    return ((0.0, float(full)),) * len(samples) if picture else tuple(limits)
