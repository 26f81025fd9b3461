"""Which images an archive has: those of a listing, or those that lie in a folder."""

import re
from collections import Counter
from pathlib import Path
from shlex import quote

from rscir_lib.archive.archive import Archive, class_name, class_of, nameable, normal_path, split_window
from rscir_lib.archive.reading import Reading, read_rule
from rscir_lib.storage.atomic import write_text
from rscir_lib.storage.folders import NO_PERMISSION, LeftOut, left_out_in_words, walk

IMAGE_SUFFIXES = {*".jpg .jpeg .png .tif .tiff .webp .bmp .gif .jp2 .j2k .heic .heif .avif".split()}
# What helps against what is left out: pictures that phones and cameras write, and that aren't read
TO_JPEG = "save them as JPEG, as ImageMagick 7 does: find ROOT -iname '*{}' -exec magick mogrify -format jpg {{}} +"
REMEDIES = {f"{s} files": TO_JPEG.format(s) for s in ".jxl .dng .cr2 .cr3 .nef .arw .orf .rw2".split()}
REMEDIES[NO_PERMISSION] = "chmod -R u+rX ROOT gives it"
TABLES = {".csv", ".tsv", ".json", ".npz"}  # what the workbook reads and writes beside the images is no lost picture
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini"}
LONGEST_LINE = 2**16  # characters: a longer line is no row of a table but another kind of file


def read_archive(root: str | Path, listing: str | Path | None = None, rule: Reading | None = None) -> Archive:
    """The archive under a dataset root: any folder of images. `archive.note` says what was read and left out.

    Its order and classes are those of `listing`, a file in the format of `patternnet.csv` (per line: path relative to
    the root, class index, class name or `-`; paths may hold spaces); without one, of `root/patternnet.csv`; without
    that, of the images in `root/images/`, or in `root`, at any depth and sorted by path. A class is then the name of
    the folder that holds the image; in a flat folder the file name up to its number where all are named as in
    PatternNet, else "". The images themselves need not be on disk for a listed archive, and none is opened here.

    Args:
        root: The dataset's folder.
        listing: The file, where it isn't `root/patternnet.csv`.
        rule: How images are read; None for the rule in `root/reading.json`, or the default.

    Raises:
        FileNotFoundError: Where there is neither listing nor images.
        ValueError: Naming file and line, for a malformed line or rule.
    """
    root = Path(root).expanduser().resolve()
    if listing is None and (root / "patternnet.csv").exists():
        listing = root / "patternnet.csv"
    files, classes, note, left = _read_listing(root, Path(listing).expanduser()) if listing else _search(root)
    note += f"; left out: {left_out_in_words(left)}" if left else ""
    return Archive(root, tuple(files), tuple(classes), rule or read_rule(root), note, left_out=tuple(left))


def _read_listing(root: Path, listing: Path) -> tuple[list[str], list[str], str, list[LeftOut]]:
    """Files, classes and a note of what a listing holds, and what of the images in the folder it doesn't."""
    if not listing.is_file():
        raise FileNotFoundError(f"{listing}: no such listing; `make fetch` gets PatternNet's")
    files: dict[str, str] = {}
    for number, line in read_lines(listing):
        where, fields = f"{listing}, line {number}", line.rsplit(maxsplit=2)
        if len(fields) != 3 or not fields[1].lstrip("-").isdecimal():
            hint = " (a header? remove the line)" if number == 1 else ""
            expected = "expected `path class-index class-name`, three fields separated by spaces, the index a number"
            raise ValueError(f"{where}: {expected}, found {line!r}{hint}")
        try:
            file = normal_path(fields[0])
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if file in files:
            raise ValueError(f"{where}: {file!r} is listed twice; remove one line")
        files[file] = "" if fields[2] == "-" else class_name(fields[2])
    _, paths, _, left = _images_below(root)
    listed = {f"{root.as_posix()}/{split_window(file)[0]}" for file in files}
    if unlisted := sum(path.as_posix() not in listed for path in paths):
        again = "write the listing again where they are to be searched too"
        left.append((f"images that {listing.name} doesn't list", unlisted, again))
    return list(files), list(files.values()), f"{len(files)} images and their classes as listed in {listing.name}", left


def write_listing(archive: Archive, path: str | Path) -> None:
    """Write the archive's files and classes in the format of `patternnet.csv`, which `read_archive` reads."""
    index = {name: number for number, name in enumerate(sorted(set(archive.classes)))}
    rows = zip(archive.files, archive.classes, strict=True)
    # a name that begins with a blank keeps it behind the folder's dot
    lines = (f"{'./' if file[0].isspace() else ''}{file} {index[cls]} {cls or '-'}\n" for file, cls in rows)
    write_text(path, "".join(lines))


def _search(root: Path) -> tuple[list[str], list[str], str, list[LeftOut]]:
    """Files, classes, a note of what lies in a folder, and what is left out of it."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no archive here, there is no such folder; an archive is a folder of images")
    base, paths, outside, left = _images_below(root)
    if not paths:
        without = f"; left out: {left_out_in_words(left)}" if left else ""
        wanted = f"a folder with images ({' '.join(sorted(IMAGE_SUFFIXES))}), in any folders, or with patternnet.csv"
        none = f"no archive here, for it holds no image{without}. An archive is {wanted}"
        raise FileNotFoundError(f"{root}: {none}; `make fetch DATASET_ROOT=...` gets PatternNet")
    classes = [class_name(path.parent.name) if path.parent != base else "" for path in paths]
    source = "folders"
    if not any(classes):
        source = "file names, as in PatternNet"
        named = Counter(class_of(p.name) for p in paths if re.fullmatch(r"[a-z_]+\d+\.\w+", p.name))
        if named.total() == len(paths) and len(named) > 1 and min(named.values()) > 1:
            classes = [class_of(path.name) for path in paths]
    known = len(set(classes) - {""})
    named_by = f"{known} classes from their {source}" if known else "no classes"
    unnamed = f", {classes.count('')} images without" if known and "" in classes else ""
    links = f"; {len(outside)} lie outside the folder, through links (first {outside[0]})" if outside else ""
    files = [path.relative_to(root).as_posix() for path in paths]
    return files, classes, f"{len(paths)} images, {named_by}{unnamed}{links}", left


def _images_below(root: Path) -> tuple[Path, list[Path], list[Path], list[LeftOut]]:
    """Where the images of a dataset lie, in `images/` or in its folder; they; those outside; what is left out."""
    for base in (root / "images", root):
        paths, left, outside = _images(base, root)
        if paths:
            break
    remedies = {kind: REMEDIES.get(kind, "").replace("ROOT", quote(str(root))) for kind in left}
    return base, paths, outside, [(kind, number, remedies[kind]) for kind, number in sorted(left.items())]


def _images(folder: Path, root: Path) -> tuple[list[Path], Counter[str], list[Path]]:
    """The images in a folder and below it, sorted; how many of what else lies there; which lie outside, by links."""
    images: list[Path] = []
    outside: list[Path] = []
    left: Counter[str] = Counter()
    for here, real, files, reasons in walk(folder):
        left.update(reasons)
        for path in (here / name for name in files):
            if path.name.startswith("."):
                left["hidden files"] += 1
            elif path.name.lower() in SYSTEM_FILES:
                left["system files"] += 1
            elif (suffix := path.suffix.lower()) not in IMAGE_SUFFIXES:
                left[f"{suffix} files" if suffix else "files without suffix"] += suffix not in TABLES
            elif not path.is_file():
                left["pipes, devices or broken links"] += 1
            elif not nameable(str(path)):
                left["files with a control character in their path"] += 1
            else:
                images.append(path)
                if not (path.resolve() if path.is_symlink() else real).is_relative_to(root):
                    outside.append(path)
    return sorted(images), +left, outside


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
        where = f"{path}, line {number}"
        if len(line) > LONGEST_LINE:
            raise ValueError(f"{where}: {len(line)} characters, at most {LONGEST_LINE} make a row; mend it")
        if "\r" in line:
            raise ValueError(f"{where}: a carriage return inside {line[:80]!r}; end lines by line feeds")
    return lines
