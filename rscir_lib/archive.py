"""An image archive: ordered file names, their classes, their paths, and how an image is read."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Archive:
    """N images in a fixed order; position i of everything else (features, scores) is image i here.

    root: dataset root; files: N posix paths relative to it; classes: N class names, underscores dropped.
    """

    root: Path
    files: tuple[str, ...]
    classes: tuple[str, ...]

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

    def path(self, position: int) -> Path:
        """Where image `position` lies on disk."""
        return self.root / self.files[position]

    def subset(self, positions: Iterable[int]) -> "Archive":
        """The archive of these images alone, in the order given."""
        positions = list(positions)
        return Archive(self.root, tuple(self.files[i] for i in positions), tuple(self.classes[i] for i in positions))


def class_of(file_name: str) -> str:
    """Class of a PatternNet image: its file name up to the first digit (protocol, Data)."""
    return re.split(r"\d", file_name, maxsplit=1)[0].replace("_", "")


def read_archive(root: str | Path, listing: str | Path | None = None) -> Archive:
    """The archive under a dataset root.

    Its order is that of `listing`, a file in the format of `patternnet.csv` (per line: path relative to the root,
    class index, class name); without one, of `root/patternnet.csv`; without that, of the sorted images in
    `root/images/<class>/`. The images themselves need not be on disk for a listed archive.

    Raises FileNotFoundError when there is neither listing nor images, ValueError (file, line) for a malformed line.
    """
    root = Path(root).expanduser().resolve()
    if listing is None and (root / "patternnet.csv").exists():
        listing = root / "patternnet.csv"
    files, classes = _listed(Path(listing).expanduser()) if listing else _found(root)
    return Archive(root, tuple(files), tuple(classes))


def _listed(listing: Path) -> tuple[list[str], list[str]]:
    if not listing.is_file():
        raise FileNotFoundError(f"{listing}: no such listing; `make fetch` gets PatternNet's")
    files: dict[str, str] = {}
    for number, line in read_lines(listing):
        fields = line.split()
        if len(fields) != 3:
            raise ValueError(
                f"{listing}, line {number}: expected `path class-index class-name`, three fields separated by "
                f"spaces, found {len(fields)}: {line!r}"
            )
        if fields[0] in files:
            raise ValueError(f"{listing}, line {number}: {fields[0]!r} is listed twice; remove one line")
        files[fields[0]] = fields[2].replace("_", "")
    return list(files), list(files.values())


def _found(root: Path) -> tuple[list[str], list[str]]:
    paths = sorted(p for p in (root / "images").glob("*/*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise FileNotFoundError(
            f"{root}: no archive here. Expected patternnet.csv, or images/<class>/<image>; "
            "`make fetch DATASET_ROOT=...` gets PatternNet"
        )
    return [p.relative_to(root).as_posix() for p in paths], [p.parent.name.replace("_", "") for p in paths]


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Numbered non-blank lines of a UTF-8 text file (BOM, CRLF and blank lines tolerated).

    Raises ValueError naming the line for another encoding, and for a file without any line.
    """
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


def read_image(path: str | Path) -> Image.Image:
    """An image as RGB, whatever its mode and size. Raises ValueError naming the file when it can't be decoded."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: the archive lists this image, but it is not on disk") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable image ({error}); replace the file") from None
