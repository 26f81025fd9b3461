"""The benchmark on disk."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from rscir_lib.benchmarks.base import ATTRIBUTES
from rscir_lib.benchmarks.patterncom import read_patterncom
from rscir_lib.benchmarks.synthcom.canvas import SIZE
from rscir_lib.benchmarks.synthcom.registry import CLASSES
from rscir_lib.benchmarks.synthcom.scenes import describe, paint
from rscir_lib.storage.atomic import read_json, remove_unfinished, write_file, write_json, write_text
from rscir_lib.storage.locks import folder_lock
from rscir_lib.storage.parallel import parallel_map

MARKER = "synthcom.json"
VERSION = 1  # of the drawing; same seed and number: same pixels, with the pinned numpy and Pillow
Names = dict[tuple[str, int], str]  # (class, number) -> file


def draw_synthcom(root: str | Path, seed: int = 0, images_per_class: int = 36, workers: int | None = None) -> Path:
    """Writes the synthetic benchmark in PatternNet's and PatternCom's layout.

    It makes `images/<class>/<class>NNN.jpg` (256 x 256 RGB), `patternnet.csv`, `PatternCom/<attribute>.csv` and the
    marker `synthcom.json`. What is there already is kept, so that an interrupted call resumes. A scene depends on
    (seed, class, number) alone, not on `images_per_class` or `workers`.

    Args:
        root: The folder to write to; made where it isn't there.
        seed: 0 or more; another one draws other scenes.
        images_per_class: 1 or more.
        workers: How many processes draw, as in `parallel_map`.

    Returns:
        The folder.

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
    numbers = range(1, images_per_class + 1)
    names = {(name, number): f"{name}{number:0{digits}d}.jpg" for name in sorted(CLASSES) for number in numbers}
    if not _marked(root, facts) or _missing(root, names) or not _has_tables(root):
        with folder_lock(root):
            if not _marked(root, facts):  # again: another process may have been here
                write_json(root / MARKER, facts, indent=2)  # first: images without it are somebody else's
            remove_unfinished(root)
            _draw_missing(root, seed, names, workers)
            if not _has_tables(root):
                _write_tables(root, seed, names)
    return root


def _marked(root: Path, facts: dict[str, bool | int]) -> bool:
    """Whether the folder holds this benchmark, begun or whole. Raises ValueError where it holds something else."""
    marker = root / MARKER
    try:
        held = read_json(marker) if marker.exists() else None
    except ValueError as error:
        held = f"a damaged {MARKER} ({error})"
    if held != facts and (held is not None or (root / "images").exists()):
        raise ValueError(f"{root} holds {held or 'images that are not SynthCom'}, not {facts}: choose another folder")
    return held is not None


def _has_tables(root: Path) -> bool:
    return all((root / file).exists() for file in ("patternnet.csv", *(f"PatternCom/{a}.csv" for a in ATTRIBUTES)))


def _missing(root: Path, names: Names) -> list[tuple[str, int]]:
    return [scene for scene, file in names.items() if not (root / "images" / scene[0] / file).exists()]


def _draw_missing(root: Path, seed: int, names: Names, workers: int | None) -> None:
    for name in CLASSES:
        (root / "images" / name).mkdir(parents=True, exist_ok=True)
    jobs = [
        (root / "images" / name / names[name, number], seed, number, name) for name, number in _missing(root, names)
    ]
    chunks = [jobs[start : start + 16] for start in range(0, len(jobs), 16)]
    with tqdm(total=len(jobs), desc="SynthCom (synthetic)", unit="image", disable=not jobs) as bar:
        for done in parallel_map(_draw, chunks, workers):
            bar.update(done)


def _draw(jobs: list[tuple[Path, int, int, str]]) -> int:
    for path, seed, number, name in jobs:
        image = paint(describe(seed, number, name))
        write_file(path, lambda file, image=image: image.save(file, "JPEG", quality=92))
    return len(jobs)


def _write_tables(root: Path, seed: int, names: Names) -> None:
    """The attribute files and patternnet.csv, from the descriptions alone."""
    classes, listing = sorted(CLASSES), []
    rows: dict[str, list[str]] = {attribute: [] for attribute in ATTRIBUTES}
    for (name, number), file in names.items():
        listing.append(f"images/{name}/{file} {classes.index(name)} {name}\n")
        scene = describe(seed, number, name)
        for attribute, value in scene.values.items() if scene.listed else ():
            rows[attribute].append(f"{file},{attribute},{value}\n")
    (root / "PatternCom").mkdir(exist_ok=True)
    for attribute, lines in rows.items():
        write_text(root / "PatternCom" / f"{attribute}.csv", "".join(lines))
    write_text(root / "patternnet.csv", "".join(listing))


def contact_sheet(root: str | Path) -> Figure:
    """One scene for each attribute, class and value of a folder that `draw_synthcom` wrote."""
    benchmark = read_patterncom(root)
    labels = benchmark.labels.assign(name=[benchmark.archive.classes[i] for i in benchmark.labels["position"]])
    scenes = labels.drop_duplicates(["attribute", "name", "value"]).sort_values(["attribute", "name", "value"])
    rows = -(-len(scenes) // 12)
    figure, axes = plt.subplots(rows, 12, figsize=(20, 2 * rows), layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for ax, scene in zip(axes.flat, scenes.itertuples(), strict=False):
        ax.imshow(benchmark.archive.read(scene.position))
        ax.set_title(f"{scene.name}\n{scene.attribute}: {scene.value}", fontsize=9, loc="left")
    figure.suptitle("SynthCom (synthetic): a scene for each attribute, class and value")
    plt.close(figure)  # else a notebook shows it twice
    return figure
