"""What lies below a folder."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

NO_PERMISSION = "folders without permission"
# Folders that network drives, Windows and macOS keep beside people's own; what lies there are thumbnails and rubbish
SYSTEM = frozenset(
    "@eadir #recycle @recycle @tmp #snapshot @recently-snapshot $recycle.bin system_volume_information recycler "
    "__macosx lost+found found.000".split()
)

LeftOut = tuple[str, int, str]  # a kind of files or folders, how many, and what helps


def left_out_in_words(left: Iterable[LeftOut]) -> str:
    """What is left out, by its kind, with what helps."""
    return ", ".join(f"{count} {kind}" + f" ({remedy})" * bool(remedy) for kind, count, remedy in left)


def walk(folder: Path) -> Iterator[tuple[Path, Path, list[str], list[str]]]:
    """The visible folders from one on, through links too, but none twice: links may lead in a circle.

    Each with the place that it really has, the names of its files, and why each folder in it is left out that is.
    """
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        reasons = {name: _why_not(here, name) for name in folders}
        real, visible = os.path.realpath(here), sorted(name for name in folders if not reasons[name])
        folders[:] = visible if real not in seen else []
        if real not in seen:
            seen.add(real)
            yield Path(here), Path(real), files, list(filter(None, reasons.values()))


def _why_not(here: str, name: str) -> str:
    """Why a folder is left out, as a plural; "" where it isn't."""
    if name.startswith("."):
        return "hidden folders"
    if name.lower().replace(" ", "_") in SYSTEM:
        return "system folders"
    return "" if os.access(os.path.join(here, name), os.R_OK | os.X_OK) else NO_PERMISSION


def files_below(place: Path) -> dict[str, Path]:
    """The files below a folder, by their posix path in it, sorted, without hidden ones; a file itself as ".".

    Where a link leads to their folder, the paths are those behind it.
    """
    if place.is_file():
        return {".": place}
    visible = (
        ((here / name).relative_to(place).as_posix(), real / name)
        for here, real, names, _ in walk(place)
        for name in names
        if not name.startswith(".")
    )
    return {file: path for file, path in sorted(visible) if path.is_file()}


def check_ours(folder: Path, mark: str) -> None:
    """Raises ValueError for a folder with files that a command mustn't mix its own with: all but hidden ones, unless
    `mark` is there, the name of what the command writes first."""
    others = sorted(path.name for path in folder.glob("[!.]*")) if not (folder / mark).exists() else []
    if others:
        raise ValueError(f"{folder} holds other things ({others[0]}) and nothing made here: choose another folder")
