"""PatternCIR, and CIRR itself, as they are downloaded: captions of pairs, and the images of a split."""

from pathlib import Path

from rscir_lib.archive import Archive
from rscir_lib.archive.archive import class_name
from rscir_lib.archive.reading import read_rule
from rscir_lib.benchmarks.base import Benchmark
from rscir_lib.benchmarks.image_names import ImageNames
from rscir_lib.benchmarks.triplets import benchmark_of_triplets
from rscir_lib.storage.atomic import read_json

SPLITS = ("test1", "val")  # the first whose answers are there: CIRR keeps those of its test to itself


def read_cirr(root: str | Path) -> Benchmark:
    """PatternCIR (Liang et al., IJCAI 2025, whose method is TisCIR), and CIRR (Liu et al., ICCV 2021).

    `cirr/captions/cap.rc2.<split>.json` has the queries, `cirr/image_splits/split.rc2.<split>.json` says where under
    the root each image of the split lies (protocol, Triplets); the split is the first of `SPLITS` with targets.

    Args:
        root: The folder with `cirr` and the images, or one with `captions`, `image_splits` and the images.

    Raises:
        FileNotFoundError: No split has both files.
        ValueError: No split has targets; file, entry and value of what can't be used.
    """
    root = Path(root).expanduser().resolve()
    folder = root / "cirr" if (root / "cirr" / "captions").is_dir() else root
    places = {s: (folder / f"captions/cap.rc2.{s}.json", folder / f"image_splits/split.rc2.{s}.json") for s in SPLITS}
    there = {split: paths for split, paths in places.items() if all(path.is_file() for path in paths)}
    if not there:
        raise FileNotFoundError(f"{folder}: no {' with '.join(p.name for p in places['test1'])}, nor those of val")
    for split in there:
        captions, images = there[split]
        if any(isinstance(one, dict) and "target_hard" in one for one in read_json(captions, list, "a list of pairs")):
            break
    else:
        asked = " and ".join(str(pairs) for pairs, _ in there.values())
        raise ValueError(f"{asked}: no pair has a target_hard: its answers aren't published")
    named = read_json(images, expected="names of images -> their paths below the root")
    if not named or not all(isinstance(file, str) for file in named.values()):
        raise ValueError(f"{images}: expected names of images -> their paths below {root}")
    files = tuple(dict.fromkeys(named.values()))
    classes = tuple(class_name(Path(file).parent.name) for file in files)
    try:
        archive = Archive(root, files, classes, read_rule(root), f"split {split}: {len(files)} images")
    except ValueError as error:
        raise ValueError(f"{images}: {error}") from error
    names = ImageNames(archive, suffixless=True)
    names.call(dict(zip(named, (archive.files[files.index(file)] for file in named.values()), strict=True)))
    return benchmark_of_triplets(names, f"cirr-{split}", captions)
