"""The benchmark on disk."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm

from rscir_lib.benchmarks.patterncom import ATTRIBUTES, read_patterncom
from rscir_lib.benchmarks.synthcom.canvas import SIZE
from rscir_lib.benchmarks.synthcom.classes import CLASSES
from rscir_lib.benchmarks.synthcom.scenes import describe, paint
from rscir_lib.storage.atomic import alone_in, remove_unfinished, write_file, write_json, write_text
from rscir_lib.storage.parallel import parallel_map

MARKER = "synthcom.json"
VERSION = 1  # of the drawing; same seed and number: same pixels, with the pinned numpy and Pillow


def _draw(jobs: list[tuple[Path, int, int, str]]) -> int:
    for path, seed, number, name in jobs:
        image = paint(describe(seed, number, name))
        write_file(path, lambda file, image=image: image.save(file, "JPEG", quality=92))
    return len(jobs)


def draw_synthcom(root: str | Path, seed: int = 0, images_per_class: int = 36, workers: int | None = None) -> Path:
    """Write the synthetic benchmark in PatternNet's and PatternCom's layout under ``root`` and return it.

    Writes ``images/<class>/<class>NNN.jpg`` (256 x 256 RGB), ``patternnet.csv``, ``PatternCom/<attribute>.csv`` and
    the marker ``synthcom.json``. What is there already is kept, so an interrupted call resumes. A scene depends on
    (seed, class, number) alone, not on ``images_per_class`` or ``workers`` (as in `parallel_map`).
    Raises ValueError for impossible numbers and for a folder that holds something else.
    """
    if images_per_class < 1 or seed < 0 or (workers is not None and workers < 1):
        raise ValueError(
            f"images_per_class {images_per_class} and workers {workers} must be at least 1, seed {seed} at least 0"
        )
    root = Path(root).expanduser()
    facts = {"synthetic": True, "version": VERSION, "seed": seed, "images_per_class": images_per_class, "size": SIZE}
    digits = max(3, len(str(images_per_class)))
    names = {
        (name, number): f"{name}{number:0{digits}d}.jpg"
        for name in sorted(CLASSES)
        for number in range(1, images_per_class + 1)
    }
    if not _marked(root, facts) or not _complete(root, names):
        root.mkdir(parents=True, exist_ok=True)
        with alone_in(root):
            if not _marked(root, facts):  # again: another process may have been here
                write_json(root / MARKER, facts, indent=2)  # first: images without it are somebody else's
            remove_unfinished(root)
            _draw_missing(root, seed, names, workers)
    return root


Names = dict[tuple[str, int], str]  # (class, number) -> file


def _marked(root: Path, facts: dict) -> bool:
    marker = root / MARKER
    try:
        found = json.loads(marker.read_bytes()) if marker.exists() else None
    except (ValueError, RecursionError) as error:
        found = f"a damaged {MARKER} ({error})"
    if found != facts and (found is not None or (root / "images").exists()):
        raise ValueError(f"{root} holds {found or 'images that are not SynthCom'}, not {facts}: choose another folder")
    return found is not None


def _tables(root: Path) -> list[Path]:
    return [root / "patternnet.csv", *(root / "PatternCom" / f"{attribute}.csv" for attribute in ATTRIBUTES)]


def _missing(root: Path, names: Names) -> list[tuple[str, int]]:
    return [scene for scene, file in names.items() if not (root / "images" / scene[0] / file).exists()]


def _complete(root: Path, names: Names) -> bool:
    return all(table.exists() for table in _tables(root)) and not _missing(root, names)


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
    if not all(table.exists() for table in _tables(root)):
        _write_tables(root, seed, names)


def _write_tables(root: Path, seed: int, names: Names) -> None:
    """The attribute files and patternnet.csv, from the descriptions alone."""
    listing, rows = [], {attribute: [] for attribute in ATTRIBUTES}
    for (name, number), file in names.items():
        listing.append(f"images/{name}/{file} {sorted(CLASSES).index(name)} {name}\n")
        scene = describe(seed, number, name)
        for attribute, value in scene.values.items() if scene.listed else ():
            rows[attribute].append(f"{file},{attribute},{value}\n")
    (root / "PatternCom").mkdir(exist_ok=True)
    for attribute, lines in rows.items():
        write_text(root / "PatternCom" / f"{attribute}.csv", "".join(lines))
    write_text(root / "patternnet.csv", "".join(listing))


def contact_sheet(root: str | Path) -> Figure:
    """One synthetic scene per labelled class and value of a folder that ``draw_synthcom`` wrote, by attribute."""
    benchmark = read_patterncom(root)
    archive = benchmark.archive
    labels = benchmark.labels.assign(name=[archive.classes[i] for i in benchmark.labels["position"]])
    rows = list(labels.drop_duplicates(["attribute", "name", "value"]).groupby(["attribute", "name"]))
    width = max(len(cells) for _, cells in rows)
    blocks = -(-len(rows) // 3)
    figure, axes = plt.subplots(blocks, 3 * width, figsize=(4.2 * width, 1.65 * blocks), layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    columns = [axes[:, start : start + width] for start in range(0, 3 * width, width)]
    for line, ((attribute, name), cells) in zip(np.concatenate(columns), rows, strict=False):
        title = f"{attribute}: {name}\n"  # over the row's first scene
        for ax, (value, position) in zip(line, cells[["value", "position"]].sort_values("value").values, strict=False):
            with Image.open(archive.path(position)) as image:
                ax.imshow(image)
            ax.set_title(title + value, fontsize=9, loc="left")
            title = ""
    figure.suptitle("SynthCom (synthetic): a scene for each attribute, class and value")
    plt.close(figure)  # else a notebook shows it twice
    return figure
