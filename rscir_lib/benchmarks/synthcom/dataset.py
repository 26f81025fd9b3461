"""The benchmark on disk."""

from functools import partial
from pathlib import Path

from tqdm.auto import tqdm

from rscir_lib.benchmarks.base import ATTRIBUTES
from rscir_lib.benchmarks.synthcom.canvas import SIZE
from rscir_lib.benchmarks.synthcom.scenes import describe, paint
from rscir_lib.benchmarks.synthcom.things import CLASSES
from rscir_lib.storage.atomic import read_json, remove_unfinished, write_file, write_json, write_text
from rscir_lib.storage.folders import check_ours
from rscir_lib.storage.locks import folder_lock
from rscir_lib.storage.parallel import parallel_map

MARKER = "synthcom.json"
VERSION = 1  # of the drawing; same seed and number: same pixels, with the pinned numpy and Pillow


def draw_synthcom(root: str | Path, seed: int = 0, images_per_class: int = 36, workers: int | None = None) -> Path:
    """Writes the synthetic benchmark in PatternNet's and PatternCom's layout, and returns the folder.

    It makes `images/<class>/<class>NNN.jpg` (256 x 256 RGB), `patternnet.csv`, `PatternCom/<attribute>.csv` and the
    marker `synthcom.json`. What is there already is kept, so that an interrupted call resumes. A scene depends on
    (seed, class, number) alone, not on `images_per_class` or `workers`.

    Args:
        root: The folder to write to; made where it isn't there.
        seed: 0 or more; another one draws other scenes.
        images_per_class: 1 or more.
        workers: How many processes draw, as in `parallel_map`.

    Raises:
        ValueError: A number is impossible, or the folder holds something else.
    """
    if images_per_class < 1 or seed < 0 or (workers is not None and workers < 1):
        raise ValueError(
            f"images_per_class {images_per_class} and workers {workers} must be at least 1, seed {seed} at least 0"
        )
    root = Path(root).expanduser()
    facts = {"synthetic": True, "version": VERSION, "seed": seed, "images_per_class": images_per_class, "size": SIZE}
    digits = max(3, len(str(images_per_class)))
    files = {
        (name, number): f"images/{name}/{name}{number:0{digits}d}.jpg"
        for name in sorted(CLASSES)
        for number in range(1, images_per_class + 1)
    }
    tables = ["patternnet.csv", *(f"PatternCom/{attribute}.csv" for attribute in ATTRIBUTES)]
    if not _marked(root, facts) or not all((root / file).exists() for file in [*files.values(), *tables]):
        with folder_lock(root):
            if not _marked(root, facts):  # again: another process may have been here
                write_json(root / MARKER, facts, indent=2)  # first: images without it are somebody else's
            remove_unfinished(root)
            jobs = [(root / file, seed, *scene) for scene, file in files.items() if not (root / file).exists()]
            chunks = [jobs[start : start + 16] for start in range(0, len(jobs), 16)]
            with tqdm(total=len(jobs), desc="SynthCom (synthetic)", unit="image", disable=not jobs) as bar:
                for done in parallel_map(_draw, chunks, workers):
                    bar.update(done)
            _write_tables(root, seed, files)
    return root


def _marked(root: Path, facts: dict[str, bool | int]) -> bool:
    """Whether the folder holds this benchmark, begun or whole. Raises ValueError where it holds something else."""
    try:
        held = read_json(root / MARKER) if (root / MARKER).exists() else None
    except ValueError as error:
        held = f"a damaged {MARKER} ({error})"
    if held not in (None, facts):
        raise ValueError(f"{root} holds {held}, not {facts}: choose another folder")
    check_ours(root, MARKER)
    return held is not None


def _draw(jobs: list[tuple[Path, int, str, int]]) -> int:
    for path, seed, name, number in jobs:
        image = paint(describe(seed, number, name))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, partial(image.save, format="JPEG", quality=92))
    return len(jobs)


def _write_tables(root: Path, seed: int, files: dict[tuple[str, int], str]) -> None:
    """The attribute files and patternnet.csv, from the descriptions alone."""
    classes, listing = sorted(CLASSES), []
    rows: dict[str, list[str]] = {attribute: [] for attribute in ATTRIBUTES}
    for (name, number), file in files.items():
        listing.append(f"{file} {classes.index(name)} {name}\n")
        scene = describe(seed, number, name)
        for attribute, value in scene.values.items() if scene.listed else ():
            rows[attribute].append(f"{Path(file).name},{attribute},{value}\n")
    (root / "PatternCom").mkdir(exist_ok=True)
    for attribute, lines in rows.items():
        write_text(root / "PatternCom" / f"{attribute}.csv", "".join(lines))
    write_text(root / "patternnet.csv", "".join(listing))
