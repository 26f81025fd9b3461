"""An image archive: ordered files or windows of scenes, their classes, and how one is read as 8-bit RGB."""

import hashlib
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from PIL import Image

from rscir_lib.archive.reading import DEFAULT_READING, Reading, Window, geography, read_image, read_rule
from rscir_lib.storage.atomic import write_text

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".jp2", ".j2k"}
LONGEST_LINE = 2**16  # characters
_TILE = re.compile(r"(.+)#(\d+),(\d+),(\d+),(\d+)")


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
    rule: Reading = DEFAULT_READING
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
        from rasterio.warp import transform_geom

        transform, own, size = place
        column, row, width, height = window or (0, 0, *size)
        corners = [(column, row), (column, row + height), (column + width, row + height), (column + width, row)]
        polygon = {"type": "Polygon", "coordinates": [[tuple(transform * corner) for corner in [*corners, corners[0]]]]}
        return polygon if crs is None else transform_geom(own, crs, polygon)

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

    rule: how images are read, see `Reading`; None for that of `root/reading.json`, or the default.

    Raises FileNotFoundError when there is neither listing nor images, ValueError (file, line) for a malformed line or
    rule.
    """
    root = Path(root).expanduser().resolve()
    if listing is None and (root / "patternnet.csv").exists():
        listing = root / "patternnet.csv"
    files, classes, note = _listed(Path(listing).expanduser()) if listing else _found(root)
    return Archive(root, tuple(files), tuple(classes), rule or read_rule(root), note)


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
    write_text(path, "".join(f"{file} {index[cls]} {cls or '-'}\n" for file, cls in rows))


def _found(root: Path) -> tuple[list[str], list[str], str]:
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no archive here, there is no such folder; an archive is a folder of images")
    left, outside = Counter(), []
    paths = _images(root / "images", root, left, outside)
    base = root / "images" if paths else root
    paths = paths or _images(root, root, left, outside)
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


def _images(folder: Path, root: Path, left: Counter, outside: list[str]) -> list[Path]:
    """The images in a folder and below it, sorted; counts in `left` what else lies there."""
    found, seen = [], set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        visible = [] if real in seen else [name for name in folders if not name.startswith(".")]  # a link to above
        left["hidden folders"] += 0 if real in seen else len(folders) - len(visible)
        folders[:] = sorted(visible)
        away = not Path(real).is_relative_to(root)
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
                if away or (path.is_symlink() and not path.resolve().is_relative_to(root)):
                    outside.append(str(path))
        seen.add(real)
    left += Counter()  # drops what was never counted
    return sorted(found)


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Numbered non-blank lines of a UTF-8 text file (BOM, CRLF and blank lines tolerated).

    Raises ValueError naming the line for another encoding, one above LONGEST_LINE or with a carriage return inside, and
    for a file without any line.
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
    for number, line in lines:
        if len(line) > LONGEST_LINE:
            raise ValueError(
                f"{path}, line {number}: {len(line)} characters, at most {LONGEST_LINE} make a row; mend it"
            )
        if "\r" in line:
            raise ValueError(f"{path}, line {number}: a carriage return inside {line[:80]!r}; end lines by line feeds")
    return lines
