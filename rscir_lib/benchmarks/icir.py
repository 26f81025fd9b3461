"""i-CIR: composed queries for instances, each with a gallery of its own, full of images that are nearly right."""

import csv
import json
import tarfile
from functools import partial
from pathlib import Path
from shutil import copyfileobj
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from rscir_lib.archive import Archive, read_lines
from rscir_lib.archive.archive import normal_path
from rscir_lib.archive.reading import read_rule
from rscir_lib.benchmarks.base import QUERY_COLUMNS, Benchmark
from rscir_lib.storage.atomic import write_file
from rscir_lib.storage.bounds import of_file

DATABASE, QUERIES = "database_files.csv", "query_files.csv"
LONGEST_NOTE = 2**16  # bytes of the JSON beside an image: a longer one is no note on an image, and is refused


def read_icir(root: str | Path) -> Benchmark:
    """i-CIR (Psomas et al., NeurIPS 2025; i-CIR v1.0.0) as it is downloaded.

    `query_files.csv` and `database_files.csv`, in the root or in `annotations`, hold lines of image path, text,
    instance (protocol, i-CIR).

    Args:
        root: The folder with `database` and `query`.

    Raises:
        FileNotFoundError: A file is missing, or the images are still in WebDataset shards (`unpack_shards`).
        ValueError: File, line and value of a malformed line; a query without any relevant image.
    """
    root = Path(root).expanduser().resolve()
    database, queries = (_read_table(root, name) for name in (DATABASE, QUERIES))
    files, asking = (tuple(dict.fromkeys(table["image"])) for table in (database, queries))
    if not (root / files[0]).is_file() and (root / "webdataset").is_dir():
        raise FileNotFoundError(f"{root}: the images are in shards; unpack them: rscir unpack {root}")
    classes = database.drop_duplicates("image").set_index("image")["instance"]
    archive = Archive(root, files, tuple(classes[list(files)]), read_rule(root), f"i-CIR: {len(files)} images")
    database["position"] = database["image"].map({file: i for i, file in enumerate(files)})
    galleries = {name: np.unique(rows["position"]) for name, rows in database.groupby("instance", sort=False)}
    relevant = {key: np.unique(rows["position"]) for key, rows in database.groupby(["instance", "text"])}
    keys = list(zip(queries["instance"], queries["text"], strict=True))
    if missing := [i for i, key in enumerate(keys) if key not in relevant]:
        line, (instance, text) = queries.index[missing[0]], keys[missing[0]]
        raise ValueError(f"{QUERIES}, line {line}: {DATABASE} lists no image of {instance!r} with the text {text!r}")
    asked = queries.groupby(["instance", "text"], sort=False)
    columns: dict[str, Any] = {
        "attribute": "instance", "group": queries["instance"], "value": "", "position": -1,
        "target": asked.ngroup(), "query": queries["image"].map(asking.index),
        "gallery": queries["instance"].map(list(galleries).index),
    }  # fmt: skip
    return Benchmark(
        archive, "icir", queries.assign(**columns)[[*QUERY_COLUMNS, "query", "gallery"]].reset_index(drop=True),
        tuple(relevant[key] for key in asked.size().index), galleries=tuple(galleries.values()),
        query_archive=Archive(root, asking, tuple(queries.drop_duplicates("image")["instance"]), archive.rule),
    )  # fmt: skip


def _read_table(root: Path, name: str) -> pd.DataFrame:
    """Columns image (its path in the root), text, instance; the index is the number of the line."""
    path = next((p for folder in ("", "annotations") if (p := root / folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{root}: no {name}, neither here nor in annotations; i-CIR comes with it")
    rows = {}
    for number, line in read_lines(path):
        fields = [field.strip() for field in next(csv.reader([line]))]
        if number == 1 and "instance" in fields[-1].lower() and "/" not in fields[0]:
            continue  # a header
        if len(fields) != 3 or not (fields[0] and fields[2]):
            raise ValueError(f"{path}, line {number}: expected image path, text, instance, found {line!r}")
        with of_file(path, f"mend line {number}"):
            rows[number] = [normal_path(_below_root(fields[0])), *fields[1:]]
    if not rows:
        raise ValueError(f"{path}: no line of image path, text, instance in it")
    return pd.DataFrame.from_dict(rows, orient="index", columns=["image", "text", "instance"])


def _below_root(file: str) -> str:
    """The path from `database` or `query` on: lists name it from the folder above the root."""
    parts = file.split("/")
    start = next((i for i, part in enumerate(parts) if part in ("database", "query")), 0)
    return "/".join(parts[start:])


def unpack_shards(root: str | Path) -> int:
    """The images of WebDataset shards (`webdataset/*/*.tar`) as the files that the lists name; how many were written.

    An image is known by the `img_path` of the JSON beside it in its shard, or by its own name. What is there already,
    in its full size, is left alone, so that an interrupted call goes on.

    Raises:
        FileNotFoundError: There are no shards.
        ValueError: Shard and member, for an image that no list names.
    """
    root = Path(root).expanduser().resolve()
    named = {file for name in (DATABASE, QUERIES) for file in _read_table(root, name)["image"]}
    shards, written = sorted(root.glob("webdataset/*/*.tar")), 0
    if not shards:
        raise FileNotFoundError(f"{root}: no shards in webdataset/database and webdataset/query")
    for shard in tqdm(shards, desc="unpack", unit=" shards"):
        with of_file(shard), tarfile.open(shard, "r:") as tar:
            members = {member.name: member for member in tar if member.isfile()}
            for name, member in members.items():
                if name.endswith(".json"):
                    continue
                folder, slash, own = name.rpartition("/")  # a sample's key ends at the first dot of its files' names
                beside = members.get(f"{folder}{slash}{own.partition('.')[0]}.json")
                note = tar.extractfile(beside) if beside else None
                said = json.loads(note.read(LONGEST_NOTE)).get("img_path", name) if note else name
                if (file := _below_root(said)) not in named:
                    raise ValueError(f"neither {DATABASE} nor {QUERIES} names its image {said!r}")
                target = root / file
                if not (target.is_file() and target.stat().st_size == member.size):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    write_file(target, partial(copyfileobj, tar.extractfile(member)), durable=False)  # type: ignore[arg-type]
                    written += 1
    return written
