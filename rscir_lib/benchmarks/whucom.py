"""WHUCom: composed queries over real features of CLIP and RemoteCLIP, without a picture. Both tasks are constructions.

The features are those of the 1,005 scenes and 19 classes of WHU-RS19, stored with RS-TransCLIP (Elkhoury et al., MIT);
`data/whucom` holds those of the ViT-L-14 of both. Ten scenes of each class ask, each other class being the text of
four of them, and take no part in any ranking. What answers them is made:

collages: the archive holds the other scenes and, for each pair of classes {A, B}, six normalised sums of a scene of A
    and one of B. A scene of A with the text B asks for those of {A, B}: a picture that shows both.
lookalikes: the archive holds the other scenes. A scene of A with the text B asks for the fifth of B's scenes that are
    most like A, by their similarity to the mean of A's features in *another* encoder, the judge.

`rscir whucom` draws them below data/whucom, each image a card with its name.
"""

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from rscir_lib.archive import Archive, read_archive, write_listing
from rscir_lib.benchmarks.base import LABEL_COLUMNS, QUERY_COLUMNS, Benchmark, ValidationReport
from rscir_lib.benchmarks.image_names import ImageNames
from rscir_lib.encoders.stored import TABLE
from rscir_lib.storage.atomic import read_json, write_file, write_json, write_text
from rscir_lib.storage.bounds import of_file, read_arrays
from rscir_lib.storage.digests import sha256_of
from rscir_lib.storage.project import DATA

MARKER = "whucom.json"
BUNDLES = {name: DATA / "whucom" / name / TABLE for name in ("clip", "remoteclip")}
CLASSES = (
    "airport", "beach", "bridge", "commercial", "desert", "farmland", "football field", "forest", "industrial",
    "meadow", "mountain", "park", "parking", "pond", "port", "railway station", "residential", "river", "viaduct",
)  # fmt: skip
ASKING = 10  # scenes of a class that ask: 40 or more stay to be found
ASKED = 4  # of them, in turn, ask for a class: 1,368 queries, whose intervals hardly widen and which take a few seconds
SUMS = 6  # collages of a pair of classes
SHARE = 5  # a fifth of a class looks like another


def draw_bundled(root: Path) -> None:
    """Draws the tasks of the bundled features that `root` lacks; lookalikes are judged by the other encoder."""
    for (name, table), judge in zip(BUNDLES.items(), reversed(BUNDLES.values()), strict=True):
        for task, tables in (("collages", BUNDLES), ("lookalikes", {name: table})):
            if not (root / folder_of(task, name) / MARKER).exists():
                draw_whucom(root / folder_of(task, name), task, tables, judge)


def folder_of(task: str, name: str) -> str:
    """The folder of a task for a bundled encoder: collages are the same for all of them."""
    return task if task == "collages" else f"{task}_{name}"


def draw_whucom(root: Path, task: str, tables: dict[str, Path], judge: Path | None = None, seed: int = 0) -> Path:
    """Writes a task under `root`: listing, labels, cards that bear the images' names, and the archive's features.

    Args:
        task: "collages" or "lookalikes".
        tables: name -> table (see `bundle`) whose features are written, as `<name>.npz`.
        judge: the table that says what is alike, for "lookalikes".
        seed: decides by digests, not by a random generator, so that every machine draws the same.
    """
    _, files, classes = _read(next(iter(tables.values())))

    def shuffled(cls: str, purpose: str) -> list[int]:
        members = np.flatnonzero(classes == cls).tolist()
        return sorted(members, key=lambda i: sha256_of(f"{seed} {purpose} {files[i]}"))

    asking = {i for cls in CLASSES for i in shuffled(cls, "asks")[:ASKING]}
    labels = [(files[i], cls, "alone") for cls in CLASSES for i in sorted(asking) if classes[i] == cls]
    names, kinds, parts = files.tolist(), classes.tolist(), []
    if task == "collages":
        for a, b in itertools.combinations(CLASSES, 2):
            sides = [[i for i in shuffled(cls, f"{a}+{b}") if i not in asking][:SUMS] for cls in (a, b)]
            for number, pair in enumerate(zip(*sides, strict=True), 1):
                parts.append(pair)
                names.append(f"collages/{a}+{b}{number}.png".replace(" ", ""))
                kinds.append("collage")
                labels += [(names[-1], a, b), (names[-1], b, a)]
    else:
        likeness, *_ = _read(judge)
        for a, b in itertools.permutations(CLASSES, 2):
            mean = likeness[[i for i in shuffled(a, "") if i not in asking]].mean(axis=0)
            there = np.array([i for i in np.flatnonzero(classes == b) if i not in asking])
            # rounded: no processor's last digit decides
            best = there[np.argsort(-np.round(likeness[there] @ mean, 9), kind="stable")[: len(there) // SHARE]]
            labels += [(files[i], a, b) for i in best]
    root.mkdir(parents=True, exist_ok=True)
    plain = tuple(cls.replace(" ", "") for cls in kinds)
    write_listing(Archive(root, tuple(names), plain), root / "patternnet.csv")
    write_text(root / "labels.csv", pd.DataFrame(labels).to_csv(index=False, header=["image", "group", "value"]))
    for name, table in tables.items():
        rows, *_ = _read(table)
        sums = np.array([rows[i] + rows[j] for i, j in parts]).reshape(-1, rows.shape[1])
        feats = np.concatenate([rows, sums / np.linalg.norm(sums, axis=1, keepdims=True)]).astype(np.float32)
        arrays = {"feats": feats, "files": np.array(names), "classes": np.array(kinds)}
        write_file(root / f"{name}.npz", lambda file, arrays=arrays: np.savez(file, **arrays))
    font = ImageFont.load_default_imagefont()
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        card = Image.new("L", (96, 96), 255)
        ImageDraw.Draw(card).multiline_text((4, 30), Path(name).stem.replace("+", "\n+ "), font=font)
        write_file(root / name, partial(card.save, format="PNG", compress_level=1))
    write_json(root / MARKER, {"construction": task, "seed": seed, "queries": ASKING})
    return root


def _read(table: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (N, d) float64 of unit length, their files (N,) and classes (N,)."""
    images, files, classes = read_arrays(table, "images", "files", "classes")
    images = images.astype(np.float64)
    return images / np.linalg.norm(images, axis=1, keepdims=True), files, classes


def read_whucom(root: str | Path, listing: str | Path | None = None) -> Benchmark:
    """The task that `draw_whucom` wrote: the scenes labelled "alone" ask for each other class beside their own.

    A group is the query image's class A, a value the other class B. The scenes that ask are unknown in every ranking.
    Raises ValueError for a damaged file.
    """
    archive = read_archive(root, listing)
    names = ImageNames(archive, listing)
    attribute = read_json(archive.root / MARKER).get("construction")
    if not isinstance(attribute, str) or not attribute.strip():
        raise ValueError(f"{archive.root / MARKER}: construction is {attribute!r}, no word; draw it again")
    with of_file(path := archive.root / "labels.csv", "draw it again"):
        read = pd.read_csv(path, dtype=str, keep_default_na=False)[["image", "group", "value"]]
    if strange := sorted(set(read["image"]) - set(names.whole.files)):
        raise ValueError(f"{path}: image {strange[0]!r} is not in the archive; draw it again")
    labels = read.assign(attribute=attribute, position=[names.position(file) for file in read["image"]])
    labels = labels[labels["position"] >= 0].assign(image=[names.name(f) for f in labels["image"]])[LABEL_COLUMNS]
    alone = labels["value"] == "alone"
    targets = {key: np.sort(rows["position"].to_numpy()) for key, rows in labels[~alone].groupby(["group", "value"])}
    number = {key: i for i, key in enumerate(targets)}
    queries = [
        (attribute, group, image, "alone", text, position, number[group, text], 0)
        for scene, (_, image, group, _, position) in enumerate(labels[alone].itertuples(index=False))
        for column, text in enumerate(CLASSES)
        if (group, text) in number and (scene + column) % ASKING < ASKED
    ]
    return Benchmark(
        archive, "whucom", pd.DataFrame(queries, columns=[*QUERY_COLUMNS, "unknown"]), tuple(targets.values()), labels,
        ValidationReport().table(), (np.sort(labels.loc[alone, "position"].to_numpy()),),
    )  # fmt: skip
