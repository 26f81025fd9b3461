"""Damaged and made-up files of every kind, given to the readers: each refuses in words, or reads what it can stand for.

    make fuzz                              a stated number of cases for every reader
    make fuzz ARGS="--quick manifest"      a tenth of them, for readers of that name
    make fuzz ARGS="--seed 7"              other cases; the same seed gives the same ones

A case is a folder of good files, one of them spoilt: bytes changed, cut, repeated or moved, a value in its JSON
replaced, or all of it made up. A reader may read it, or raise ValueError or OSError and name the file. Anything else
fails: another error, one without the file's name, more memory than `MEMORY` or time than `SECONDS`, a crash, a file
written outside, and features that are no longer those that were stored.
"""

import argparse
import contextlib
import io
import json
import math
import multiprocessing
import os
import pickle
import posixpath
import re
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import hypothesis
import numpy as np
import pandas as pd
import safetensors.torch
import shapely
import torch
import yaml
from hypothesis import strategies as st
from PIL import Image

from rscir_lib.apps.commands import workbook
from rscir_lib.apps.commands.fetch import unzip_images
from rscir_lib.apps.commands.training import _read_checkpoint
from rscir_lib.apps.explorer.marks import read_marks
from rscir_lib.apps.labelling.journal import read_journals
from rscir_lib.archive import read_archive
from rscir_lib.archive.reading import read_image, read_rule
from rscir_lib.archive.tiles import read_scenes
from rscir_lib.benchmarks.icir import read_icir, unpack_shards
from rscir_lib.benchmarks.multilabels import read_multilabels
from rscir_lib.benchmarks.patterncom import read_patterncom
from rscir_lib.benchmarks.registry import read_benchmark
from rscir_lib.benchmarks.synthcom import draw_synthcom
from rscir_lib.benchmarks.triplets import read_cirr, read_triplets
from rscir_lib.benchmarks.ucmcom import read_ucmcom
from rscir_lib.encoders import CONFIG, DEMO_FOLDER, WEIGHTS, load_encoder
from rscir_lib.encoders.checkpoints import read_tensors
from rscir_lib.features import extract_features, read_features
from rscir_lib.features.features import verify_features
from rscir_lib.features.geoparquet import read_geoparquet
from rscir_lib.methods import read_vocabulary
from rscir_lib.runs import paths as runs
from rscir_lib.runs.run import read_rows
from rscir_lib.search import search

MEMORY = 2**30  # bytes that the cases of one reader may take beyond what the process had
SECONDS = 30  # that a case may take on a loaded machine; most take a thousandth


class TooSlow(BaseException):
    """No reader catches it."""


@dataclass(frozen=True)
class Reader:
    """good(root): writes a whole folder; files: what is spoilt, relative to it; read(root): the reader at work.

    cases: in a full run. names: what the message must hold; the spoilt file's name without it.
    """

    good: Callable[[Path], object]
    files: tuple[str, ...]
    read: Callable[[Path], object]
    cases: int = 500
    names: str = ""


# --- good files

IMAGES = [f"images/{name}/{name[0]}{i}.png" for name in ("harbor", "beach") for i in range(4)]


def archive(root: Path) -> None:
    """Eight small pictures of two classes."""
    rng = np.random.default_rng(0)
    for file in IMAGES:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).save(root / file)


def text(name: str, content: str | bytes) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        archive(root)
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


LISTING = "".join(f"{file} {i // 4} {file.split('/')[1]}\n" for i, file in enumerate(IMAGES))
LABELS = "".join(f"{Path(file).name},shape,{('oval', 'round')[i % 2]}\n" for i, file in enumerate(IMAGES))
MULTILABELS = "image\tship\tbare-soil\n" + "".join(f"{Path(f).stem}\t{i % 2}\t0\n" for i, f in enumerate(IMAGES))
CAPTIONS = json.dumps({Path(file).stem: [f"a {file.split('/')[1]}", "many ships"] for file in IMAGES})
TRIPLETS = [
    {"image": "h0", "text": "ships", "target": ["h1", "h2"]},
    {"image": "b0", "captions": ["a", "b"], "target": "b1"},
]
MARKS = "image,text,answer,verdict\n" + "".join(f"{IMAGES[0]},red,{file},right\n" for file in IMAGES)
JOURNAL = "image,value,proposed\n" + "".join(f"{file},oval,\n" for file in IMAGES)
RULE = {"bands": [3, 2, 1], "limits": [0, 4095], "nodata": 0, "percentiles": [2, 98], "most_pixels": 10000}
TILES = "".join(f"scene.tif#{x},{y},16,16 0 -\n" for x in (0, 16) for y in (0, 16))


def at(file: str, read: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda root: read(root / file)


def read_captions_of(root: Path) -> None:
    (root / "multilabels.tsv").write_text(MULTILABELS)
    read_ucmcom(root)


class Ones:
    """An encoder of four numbers, by the mean colour."""

    name, architecture, dim, device, precision = "ones", "none", 4, "cpu", "float32"
    provenance = {"encoder": "ones", "weights_sha256": "0"}  # noqa: RUF012

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image, np.float32).mean((0, 1)))

    def encode_images(self, batch: torch.Tensor) -> np.ndarray:
        rows = np.c_[batch.numpy(), np.ones(len(batch))].astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        return np.eye(4, dtype=np.float32)[[0] * len(texts)]


def store(root: Path) -> None:
    archive(root)
    folder = extract_features(read_archive(root), Ones(), root / "store", workers=1)
    for path in folder.iterdir():  # names without digest, for the spoiler to find
        if kind := re.fullmatch(r"[0-9a-f]{16}\.(.+)", path.name):
            (root / "names").mkdir(exist_ok=True)
            (root / "names" / kind[1]).symlink_to(path)


def read_store(root: Path) -> None:
    features = read_features(root / "store", read_archive(root))
    expected = {f: Ones().encode_images(Ones().preprocess(Image.open(root / f))[None])[0] for f in features.files}
    np.testing.assert_array_equal(features.feats, np.stack([*expected.values()]))  # whatever else it says
    assert set(features.files) | set(features.unreadable) >= set(IMAGES)
    features.moments, features.classes  # noqa: B018
    with contextlib.suppress(ValueError):  # a text that isn't there, say
        assert np.isfinite(search(features, 0, "red", encoder=Ones()).table["score"]).all()


def feature_pickle(protocol: int, root: Path) -> None:
    feats = np.random.default_rng(0).normal(size=(8, 4))
    feats = (feats / np.linalg.norm(feats, axis=1, keepdims=True)).astype(np.float32)
    content = {"feats": feats, "labels": [file.split("/")[1] for file in IMAGES], "paths": IMAGES}
    (root / "features.pkl").write_bytes(pickle.dumps(content, protocol))


def npz(root: Path) -> None:
    rows = np.eye(8, 4, dtype=np.float32)[[0, 1, 2, 3, 0, 1, 2, 3]]
    np.savez_compressed(root / "features.npz", feats=rows, files=IMAGES, classes=[f.split("/")[1] for f in IMAGES])


def geoparquet(packed: bool, root: Path) -> None:
    """Rows with places; not packed, so that what is spoilt are values too."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = np.eye(8, 4, dtype=np.float32)[[0, 1, 2, 3, 0, 1, 2, 3]].tolist()
    places = shapely.to_wkb(shapely.box(range(8), 0, range(1, 9), 1)).tolist()
    columns = {
        "id": IMAGES,
        "class": ["a"] * 8,
        "embedding": pa.array(rows, pa.list_(pa.float32())),
        "geometry": places,
    }
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": {"encoding": "WKB"}}}
    table = pa.table(columns).replace_schema_metadata({"geo": json.dumps(geo)})
    pq.write_table(table, root / "rows.parquet", compression="zstd" if packed else "none", use_dictionary=packed)


def import_geoparquet(root: Path) -> None:
    shutil.rmtree(root / "imported", ignore_errors=True)
    features = read_features(read_geoparquet(root / "rows.parquet", root / "imported"))
    assert np.allclose(np.linalg.norm(features.feats, axis=1), 1, atol=1e-3)
    assert all(file == posixpath.normpath(file) and not file.startswith(("/", "..")) for file in features.files)
    for _, _, place in features.named(range(len(features))):
        assert place is None or np.isfinite(shapely.geometry.shape(place).bounds).all() or not place["coordinates"]


CIRR = ("cirr/captions/cap.rc2.test1.json", "cirr/image_splits/split.rc2.test1.json")


def cirr(root: Path) -> None:
    """Pairs of images with a caption, and the split that says where they are."""
    archive(root)
    names = {Path(file).stem: file for file in IMAGES}
    first, second, *_ = names
    pairs = [{"pairid": 0, "reference": first, "caption": "many ships", "target_hard": second}]
    for file, content in zip(CIRR, (pairs, names), strict=True):
        (root / file).parent.mkdir(parents=True)
        (root / file).write_text(json.dumps(content))


def icir(root: Path) -> None:
    """One instance: two images with the text that is asked for, and one without; as lists, and in a shard."""
    lists = {
        "database_files.csv": "".join(f"icir/database/a/{i}.jpg,{t},a\n" for i, t in enumerate(("night", "snow", ""))),
        "query_files.csv": "icir/query/a/0.jpg,night,a\nicir/query/a/1.jpg,snow,a\n",
    }
    (root / "webdataset" / "database").mkdir(parents=True)
    with tarfile.open(root / "webdataset" / "database" / "0.tar", "w") as shard:
        for name, content in lists.items():
            (root / name).write_text(content)
        for i in range(3):
            for suffix, content in (
                (".jpg", b"an image"),
                (".json", json.dumps({"img_path": f"database/a/{i}.jpg"}).encode()),
            ):
                member = tarfile.TarInfo(f"{i}{suffix}")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))


def read_lists(root: Path) -> None:
    shutil.rmtree(root / "webdataset")
    assert len(read_icir(root).archive)


def whucom(root: Path) -> None:
    archive(root)
    (root / "whucom.json").write_text(json.dumps({"construction": "collages", "seed": 0, "queries": 5}))
    rows = [f"{file},{('Airport', 'Beach')[i % 2]},{('alone', 'Bridge')[i // 4]}" for i, file in enumerate(IMAGES)]
    (root / "labels.csv").write_text("\n".join(["image,group,value", *rows]) + "\n")


def stored_table(root: Path) -> None:
    (root / "encoder").mkdir()
    rows = np.eye(4)
    table = {
        "texts": rows,
        "phrases": np.array(["a ship", "a road", "a field", "a house"]),
        "made_by": np.array("none"),
    }
    np.savez(root / "encoder" / "features.npz", **table)


def result_rows(root: Path) -> None:
    rows = ["query,attribute,image,text,method,lambda,AP", "0,shape,a,oval,text,,0.5", "1,shape,b,round,weicom,0.3,1.0"]
    (root / "rows.csv").write_text("\n".join(rows))


def open_scenes(root: Path) -> None:
    tiles = read_scenes(root / "scene.tif", tile=16)
    assert len(tiles)


def run_note(root: Path) -> None:
    archive(root)
    runs.run_folder(str(root / "runs"), str(root))
    (root / "run.json").symlink_to(next(root.glob("runs/*/run.json")))


def open_folder(root: Path) -> None:
    runs.run_folder(str(root / "runs"), str(root))


def stamp(root: Path) -> None:
    (root / "run" / "tables").mkdir(parents=True)
    (root / "run" / "tables" / "a.csv").write_text("a")
    (root / "a.json").write_text(json.dumps({"made_of": "0" * 64, "results": {"tables/a.csv": "0" * 64}}))


def read_stamp(root: Path) -> None:
    notebook = sorted(workbook.NOTEBOOKS.glob("0*.ipynb"))[0]
    assert not workbook._stands(root / "a.json", notebook, {}, root / "run"), "a stamp of another notebook stands"


def open_clip(root: Path) -> None:
    shutil.copytree(DEMO_FOLDER, root / "encoder")


def hugging_face(root: Path) -> None:
    from encoder_folders import hugging_face_folder

    hugging_face_folder(root / "encoder", "clip")


def read_encoder(root: Path) -> None:
    encoder = load_encoder(str(root / "encoder"), device="cpu")
    assert encoder.encode_texts(["a"]).shape == (1, encoder.dim)


def torch_weights(root: Path) -> None:
    (root / "models").mkdir()
    torch.save({"a": torch.zeros(3), "b": torch.ones(2, 2)}, root / "models" / "CLIP-RN50.bin")


def safe_weights(root: Path) -> None:
    (root / "models").mkdir()
    safetensors.torch.save_file({"a": torch.zeros(3)}, root / "models" / "OpenAI-RN50.safetensors")


def checkpoint(root: Path) -> None:
    random = {"cpu": torch.get_rng_state(), "cuda": []}
    past = {"order": torch.arange(3), "losses": [1.0], "seconds": 1.0}
    torch.save(
        {"task": "a", "random": random, "model": torch.nn.Linear(2, 2).state_dict(), **past}, root / "training.pt"
    )


def read_checkpoint(root: Path) -> None:
    _read_checkpoint(root / "training.pt", "a", {"model": torch.nn.Linear(2, 2)}, "cpu")


PARAMETERS = {"ENCODER": ["demo"], "LAMBDAS": [0.3, 0.5], "TOP": 8, "DEVICE": "cpu", "OVERWRITE": False, "TEXTS": ["a"]}


def read_yaml(root: Path) -> None:
    """As the command does it; the notebooks' own rules say what a value may be."""
    given = workbook.read_parameters(root / "run.yaml")
    with contextlib.suppress(ValueError):  # names the parameter; the file is the user's own word
        for one in workbook.grid(given).values():
            workbook.resolve_parameters(NOTEBOOKS, one)


NOTEBOOKS = sorted(workbook.NOTEBOOKS.glob("0[1-6]*.ipynb"))


def picture(suffix: str, root: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
    path = root / f"picture{suffix}"
    if suffix == ".jp2":
        import rasterio

        lossless = {"QUALITY": "100", "REVERSIBLE": "YES", "transform": rasterio.transform.from_origin(0, 24, 1, 1)}
        with rasterio.open(path, "w", "JP2OpenJPEG", 32, 24, 3, dtype="uint8", **lossless) as file:
            file.write(np.moveaxis(pixels, -1, 0))
    elif suffix == ".16.tif":
        Image.fromarray(rng.integers(0, 60_000, (24, 32), dtype=np.uint16)).save(path)
    else:
        Image.fromarray(pixels).save(path)


def scene(root: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(root / "scene.tif")
    (root / "tiles.csv").write_text(TILES)


def read_tiles(root: Path) -> None:
    found = read_archive(root, root / "tiles.csv")
    for position in range(min(len(found), 8)):
        with contextlib.suppress(FileNotFoundError, ValueError):  # of the image, which is another file
            assert found.read(position).mode == "RGB"


def images_zip(root: Path) -> None:
    archive(root / "source")
    with zipfile.ZipFile(root / "images.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted((root / "source").rglob("*.png")):
            file.write(path, f"PatternNet/images/{path.parent.name}/{path.stem}.jpg")


def synthcom(root: Path) -> None:
    (root / "synthcom.json").write_text(json.dumps({"synthetic": True, "version": 1, "seed": 0}))
    (root / "images").mkdir()


READERS: dict[str, Reader] = {
    **{
        f"pickle, protocol {number}": Reader(
            partial(feature_pickle, number), ("features.pkl",), at("features.pkl", read_features)
        )
        for number in (0, 2, 4, 5)
    },
    "GeoParquet": Reader(partial(geoparquet, False), ("rows.parquet",), import_geoparquet),
    "GeoParquet, packed": Reader(partial(geoparquet, True), ("rows.parquet",), import_geoparquet),
    "npz of features": Reader(npz, ("features.npz",), at("features.npz", read_features)),
    "CIRR's pairs and split": Reader(cirr, CIRR, read_cirr, names=".rc2.test1.json"),
    "i-CIR's lists": Reader(icir, ("database_files.csv", "query_files.csv"), read_lists, names="_files.csv"),
    "i-CIR's shards": Reader(icir, ("webdataset/database/0.tar",), unpack_shards),
    "WHUCom": Reader(whucom, ("whucom.json", "labels.csv"), read_benchmark),
    "encoder: a table": Reader(stored_table, ("encoder/features.npz",), read_encoder, 300),
    "rows of results": Reader(result_rows, ("rows.csv",), at("rows.csv", read_rows)),
    "scenes": Reader(scene, ("scene.tif",), open_scenes),
    "store: verified": Reader(
        store, ("names/npy", "names/json", "store/manifest.json"), at("store", verify_features), names="store"
    ),
    "listing": Reader(text("patternnet.csv", LISTING), ("patternnet.csv",), read_archive),
    "reading rule": Reader(text("reading.json", json.dumps(RULE)), ("reading.json",), read_rule),
    "labels": Reader(text("PatternCom/shape.csv", LABELS), ("PatternCom/shape.csv",), read_patterncom),
    "multi-labels": Reader(text("multilabels.tsv", MULTILABELS), ("multilabels.tsv",), read_multilabels),
    "captions": Reader(text("captions.json", CAPTIONS), ("captions.json",), read_captions_of),
    "triplets, CSV": Reader(
        text("triplets.csv", "image,text,target\nh0,ships,h1;h2\nb0,sand,b1\n"), ("triplets.csv",), read_triplets
    ),
    "triplets, JSON": Reader(text("triplets.json", json.dumps(TRIPLETS)), ("triplets.json",), read_triplets),
    "marks of the explorer": Reader(
        text("marks.csv", MARKS), ("marks.csv",), lambda root: read_marks(root / "marks.csv", read_archive(root))
    ),
    "journal of labels": Reader(text("ada.csv", JOURNAL), ("ada.csv",), read_journals),
    "vocabulary": Reader(text("words.txt", "ship\nhouse\nroad\n"), ("words.txt",), at("words.txt", read_vocabulary)),
    "tile listing": Reader(scene, ("tiles.csv",), read_tiles),
    "store: manifest": Reader(store, ("store/manifest.json",), read_store, names="store"),
    "store: ids": Reader(store, ("names/json",), read_store, names="store"),
    "store: rows and moments": Reader(store, ("names/npy", "names/moments.npy"), read_store, names="store"),
    "run.json": Reader(run_note, ("run.json",), open_folder, names="runs"),
    "stamp of a notebook": Reader(stamp, ("a.json",), read_stamp, 100),
    "parameters in YAML": Reader(text("run.yaml", yaml.safe_dump(PARAMETERS)), ("run.yaml",), read_yaml, 200),
    "encoder: open_clip's config": Reader(open_clip, (f"encoder/{CONFIG}",), read_encoder, 100, "encoder"),
    "encoder: open_clip's weights": Reader(open_clip, (f"encoder/{WEIGHTS}",), read_encoder, 50, "encoder"),
    "encoder: Hugging Face's configs": Reader(
        hugging_face,
        ("encoder/config.json", "encoder/preprocessor_config.json", "encoder/tokenizer_config.json"),
        read_encoder,
        100,
        "encoder",
    ),
    "encoder: Hugging Face's tokenizer": Reader(
        hugging_face, ("encoder/tokenizer.json",), read_encoder, 100, "encoder"
    ),
    "checkpoint, torch": Reader(
        torch_weights, ("models/CLIP-RN50.bin",), at("models/CLIP-RN50.bin", read_tensors), 300
    ),
    "checkpoint, safetensors": Reader(
        safe_weights, ("models/OpenAI-RN50.safetensors",), at("models/OpenAI-RN50.safetensors", read_tensors), 300
    ),
    "checkpoint of a training": Reader(checkpoint, ("training.pt",), read_checkpoint),
    **{
        f"image {suffix}": Reader(partial(picture, suffix), (f"picture{suffix}",), at(f"picture{suffix}", read_image))
        for suffix in (".jpg", ".png", ".tif", ".16.tif", ".webp", ".bmp", ".jp2", ".gif", ".avif", ".heic")
    },
    "zip of images": Reader(
        images_zip, ("images.zip",), lambda root: unzip_images(root / "images.zip", root / "images"), 300
    ),
    "synthcom.json": Reader(synthcom, ("synthcom.json",), lambda root: draw_synthcom(root, 1, workers=1), 200, "holds"),
}


# --- what spoils them

WORDS = [
    b"\0",
    b"\xff",
    b"\x80",
    b"\x7f",
    b"\xc3\x28",
    b"\xfe\xff",
    b"\xef\xbb\xbf",
    b"\xff" * 8,
    b"[" * 3000,
    b"x" * 100_000,
]
WORDS += [b"&a [*a]", b"!!python/object/apply:os.system [ls]", b"*", b"../..", b"/etc/passwd", b'{"a":', b"\r\n"]
WORDS += [
    word.encode()
    for word in "ä \u202e \\ .. # %s {} 0 1 -1 2 1e999 NaN Infinity 99999999999999999999 null true []".split()
]
WORDS += [bytes([byte]) for byte in b"\n\r\t,;'\"- "] + ["\u2028".encode()]
VALUES = st.one_of(
    st.sampled_from(
        [None, True, -1, 0, 1, 2**31, 2**63, 10**30, 0.5, math.nan, math.inf, "", " ", "..", "/etc", [], {}]
    ),
    st.text(max_size=8),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    ),
)


@st.composite
def spoilt(draw: st.DrawFn, good: bytes) -> bytes:
    """Another content in the place of a good one."""
    way = draw(st.sampled_from(["bytes", "bytes", "bytes", "json", "json", "cut", "any", "text"]))
    if way == "json":
        with contextlib.suppress(ValueError):
            return json.dumps(replaced(draw, json.loads(good))).encode()
    if way == "cut":
        return good[: draw(st.integers(0, len(good)))]
    if way == "any":
        return good[: draw(st.sampled_from([0, 4, 8]))] + draw(st.binary(max_size=64))
    if way == "text":
        return draw(st.text(max_size=64)).encode(errors="surrogatepass")
    changed = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(changed)))
        piece = draw(st.integers(0, len(changed)))
        new = draw(st.sampled_from(WORDS) | st.binary(max_size=4) | st.just(bytes(changed[piece : piece + 40])))
        changed[start : start + draw(st.sampled_from([0, len(new), 1, 8]))] = new
    return bytes(changed)


def replaced(draw: st.DrawFn, value: object) -> object:
    """A value in a tree of JSON, or an entry's name, replaced, taken out or repeated."""
    if isinstance(value, dict | list) and value and draw(st.integers(0, 3)):
        place = draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
        way = draw(st.sampled_from(["in", "in", "in", "out", "again", "name"]))
        if way == "out":
            value.pop(place)
        elif way == "again" and isinstance(value, list):
            value.append(value[place])
        elif way == "name" and isinstance(value, dict):
            value[draw(st.text(max_size=6))] = value.pop(place)
        else:
            value[place] = replaced(draw, value[place])
        return value
    return draw(VALUES)


# --- the campaign


def attempt(reader: Reader, root: Path, file: str, content: bytes) -> str:
    """Give a spoilt file to its reader: "read" or "refused". Raises AssertionError for what must not be."""
    (root / file).write_bytes(content)  # through a link where it is one
    before, quiet = set(root.parent.iterdir()), io.StringIO()
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(root)
    except (ValueError, OSError) as error:
        said, cause = str(error), error
        while cause:
            assert not isinstance(cause, MemoryError), f"more than {MEMORY} bytes of memory: {said}"
            cause = cause.__cause__ or cause.__context__
        assert (reader.names or Path(file).name) in said, f"the message doesn't name the file: {said}"
        assert len(said) < 2**20, f"a message of {len(said)} characters"
        return "refused"
    finally:
        signal.alarm(0)
        assert set(root.parent.iterdir()) == before, "something was written outside the folder"
    return "read"


def campaign(name: str, cases: int, seed: int) -> dict[str, int]:
    """Run one reader's cases in this process; returns how many it read and refused. Raises at the first that fails."""
    reader, counts = READERS[name], {"read": 0, "refused": 0}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        base, whole = Path(place) / "case", Path(place) / "whole"
        whole.mkdir()
        reader.good(whole)
        contents = {file: (whole / file).read_bytes() for file in reader.files}

        def one(data: st.DataObject) -> None:
            file = data.draw(st.sampled_from(reader.files))
            content = data.draw(spoilt(contents[file]))
            copy(whole, base)
            counts[attempt(reader, base, file, content)] += 1

        copy(whole, base)
        assert attempt(reader, base, reader.files[0], contents[reader.files[0]]) == "read" or name == "synthcom.json"
        wanted = hypothesis.settings(
            max_examples=cases,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        hypothesis.seed(seed)(wanted(hypothesis.given(st.data())(one)))()
    return counts


def copy(whole: Path, to: Path) -> None:
    """A fresh copy of the good folder, with its links and times."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(whole, to, symlinks=True)
    for link in to.rglob("*"):
        if link.is_symlink():
            target = to / os.path.relpath(os.readlink(link), whole)
            link.unlink()
            link.symlink_to(target)


def guarded(name: str, cases: int, seed: int, result: object) -> None:
    """In a process of its own, with bounds on memory and time."""
    torch.set_num_threads(1)
    pd.Index(["a"])  # Arrow sets a gigabyte of addresses apart when it is first used
    room = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY

    def alarm(*_) -> None:
        raise TooSlow(f"more than {SECONDS} seconds")

    signal.signal(signal.SIGALRM, alarm)
    unlimited = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_AS, (room, unlimited))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        result.put(campaign(name, cases, seed))
    except BaseException:  # whatever it is, the report names it
        resource.setrlimit(resource.RLIMIT_AS, (unlimited, unlimited))  # the report needs memory, too
        traceback.print_exc()
        result.put(None)
        result.close()
        result.join_thread()
        os._exit(1)


def main(arguments: list[str] | None = None) -> int:
    """The command line; exit code 1 where any reader failed."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("readers", nargs="*", help="parts of the readers' names; all without any")
    parser.add_argument("--quick", action="store_true", help="a tenth of the cases")
    parser.add_argument("--seed", type=int, default=0, help="which cases")
    given = parser.parse_args(arguments)
    names = [name for name in READERS if not given.readers or any(part in name for part in given.readers)]
    os.environ["HF_HUB_OFFLINE"] = "1"
    total, failed = 0, []
    context = multiprocessing.get_context("fork")
    for name in names:
        cases, result, start = (
            max(READERS[name].cases // (10 if given.quick else 1), 5),
            context.Queue(),
            time.monotonic(),
        )
        process = context.Process(target=guarded, args=(name, cases, given.seed, result))
        process.start()
        process.join(60 + cases * SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        counts = result.get() if process.exitcode == 0 else None
        if counts is None:
            failed.append(name)
            print(f"{name:34} FAILED, exit code {process.exitcode}", flush=True)
            continue
        total += sum(counts.values())
        print(
            f"{name:34} {sum(counts.values()):5} cases: {counts['refused']:5} refused, {counts['read']:5} read, "
            f"{time.monotonic() - start:6.1f} s",
            flush=True,
        )
    print(f"\n{len(names)} readers, {total} cases, seed {given.seed}: {len(failed)} readers failed {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))  # what the tests share
    sys.exit(main())
