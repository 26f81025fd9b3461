"""i-CIR: a gallery for each instance, against a reference that ranks every instance by itself."""

import io
import json
import tarfile
import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import oracle
from helpers import examples, unit
from rscir_lib.benchmarks.icir import read_icir, unpack_shards
from rscir_lib.benchmarks.registry import read_benchmark
from rscir_lib.evaluation import chance, evaluate, summarize, top_lists
from rscir_lib.features import Features

TEXTS = ("at night", "as a toy, small", "in snow")
METHODS = ("text", "image", "average", "weicom", "zscore", "minmax", "product-clamped")


def encode(texts):
    """A direction for each text, whatever its words."""
    return unit(np.stack([np.random.default_rng(zlib.crc32(text.encode())).normal(size=8) for text in texts]))


def write_icir(root, database, queries, folder=""):
    """Lists of (image, text, instance), with quotes where a text holds a comma."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name, rows in (("database_files.csv", database), ("query_files.csv", queries)):
        lines = [",".join(f'"{field}"' if "," in field else field for field in row) for row in rows]
        (root / folder / name).write_text("\n".join(lines) + "\n")
    return root


@st.composite
def lists(draw):
    """Some instances; an image may be in the database of several, and be asked more than once."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    database, queries = [], []
    for instance in (f"instance{i}" for i in range(draw(st.integers(1, 4)))):
        texts = rng.choice(TEXTS, rng.integers(1, 4), replace=False)
        database += [(f"icir/database/{instance}/{i}.jpg", str(text), instance) for i, text in enumerate(texts)]
        shared = rng.choice(12, rng.integers(1, 8), replace=False)
        database += [(f"icir/database/shared/{i}.jpg", "hard negative", instance) for i in shared]
        queries += [(f"icir/query/{instance}/{i % 2}.jpg", str(text), instance) for i, text in enumerate(texts)]
    return database, queries, rng.integers(2**32)


def features_of(benchmark, seed):
    files = (*benchmark.archive.files, *benchmark.query_archive.files)
    feats = unit(np.random.default_rng(seed).normal(size=(len(files), 8)) + 0.5)
    return Features.from_arrays(feats, files, [""] * len(files), {"encoder": "made up"})


def slow_macro_map(database, queries, features, method, lam):
    """Every instance by itself: its images, its queries, the mean AP; then the mean over instances, in per cent."""
    feature = dict(zip(features.files, features.feats, strict=True))
    of_instance = {}
    for image, text, instance in queries:
        rows = {}
        for file, its_text, its_instance in database:
            if its_instance == instance:
                rows[file.removeprefix("icir/")] = its_text == text or rows.get(file.removeprefix("icir/"), False)
        files = sorted(rows, key=features.files.index)
        feats = np.stack([feature[file] for file in files])
        ranked = oracle.ranking(feats, feature[image.removeprefix("icir/")], encode([text])[0], method, lam)
        of_instance.setdefault(instance, []).append(
            oracle.metrics(ranked, [i for i, f in enumerate(files) if rows[f]])["AP"]
        )
    return 100 * np.mean([np.mean(aps) for aps in of_instance.values()])


@examples(25)
@given(case=lists(), lam=st.sampled_from([0, 0.4, 1]))
@pytest.mark.slow
def test_macro_map_is_that_of_every_instance_by_itself(tmp_path_factory, case, lam):
    database, queries, seed = case
    benchmark = read_benchmark(write_icir(tmp_path_factory.mktemp("icir"), database, queries, "annotations"))
    features = features_of(benchmark, seed)
    rows = evaluate(benchmark, features, encode, METHODS, [lam], progress=False)
    table = summarize(rows, per=benchmark.queries["group"])
    for (method, at), macro in table["Avg"].items():
        assert macro == pytest.approx(slow_macro_map(database, queries, features, method, 0.5 if pd.isna(at) else at))
    assert rows.groupby(["method", "lambda"], dropna=False).size().eq(len(queries)).all()


@examples(10)
@given(case=lists())
def test_lists_hold_the_gallery_alone(tmp_path_factory, case):
    database, queries, seed = case
    benchmark = read_benchmark(write_icir(tmp_path_factory.mktemp("icir"), database, queries))
    features = features_of(benchmark, seed)
    ranks = evaluate(benchmark, features, encode, ["weicom"], progress=False, return_ranks=True)["ranks"]
    lists = top_lists(benchmark, features, encode, k=100, progress=False)
    for query, (row, ranked) in enumerate(zip(benchmark.queries.itertuples(), lists, strict=True)):
        there = ranked[ranked >= 0]
        assert sorted(there) == benchmark.galleries[row.gallery].tolist()
        assert len(there) == benchmark.n_ranked[query]
        assert np.flatnonzero(np.isin(there, benchmark.targets[row.target])) + 1 == pytest.approx(ranks[row.Index])
    assert 0 < chance(benchmark)["Avg"] <= 100


def test_without_images_that_cannot_be_read(tmp_path):
    database = [
        ("icir/database/a/0.jpg", "x", "a"),
        ("icir/database/b/0.jpg", "y", "b"),
        ("icir/database/b/1.jpg", "y", "b"),
    ]
    benchmark = read_icir(
        write_icir(tmp_path, database, [("icir/query/a.jpg", "x", "a"), ("icir/query/b.jpg", "y", "b")])
    )
    kept = benchmark.without(["database/a/0.jpg"])
    assert kept.queries["image"].tolist() == ["query/b.jpg"]
    assert kept.in_gallery(1).archive.files == ("database/b/0.jpg", "database/b/1.jpg")


def test_shards_are_unpacked_once(tmp_path):
    database, queries = [("icir/database/a/0.png", "x", "a")], [("icir/query/a/0.png", "x", "a")]
    write_icir(tmp_path, database, queries, "annotations")
    for split, member in (("database", "000"), ("query", "query/a/0")):
        (tmp_path / "webdataset" / split).mkdir(parents=True)
        with tarfile.open(tmp_path / "webdataset" / split / f"{split}-000000.tar", "w") as tar:
            Image.new("RGB", (4, 4), "red").save(png := io.BytesIO(), "PNG")
            note = json.dumps({"img_path": "icir/database/a/0.png", "instance": "a", "text": "x"}).encode()
            for name, data in [
                (f"{member}.png", png.getvalue()),
                *([("000.json", note)] if split == "database" else []),
            ]:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    with pytest.raises(FileNotFoundError, match="in shards; unpack them: rscir unpack"):
        read_benchmark(tmp_path)
    assert unpack_shards(tmp_path) == 2
    assert unpack_shards(tmp_path) == 0
    assert read_benchmark(tmp_path).archive.read(0).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("database", "queries", "message"),
    [
        (
            [("database/0.jpg", "x", "a")],
            [("query/0.jpg", "y", "a")],
            "line 1: database_files.csv lists no image of 'a'",
        ),
        ([("database/0.jpg", "x")], [], "line 1: expected image path, text, instance, found 'database/0.jpg,x'"),
        ([("database/../../etc/passwd", "x", "a")], [], "is not a path inside the archive"),
    ],
)
def test_lists_that_do_not_fit(tmp_path, database, queries, message):
    with pytest.raises(ValueError, match=message):
        read_icir(write_icir(tmp_path, database, queries or [("query/0.jpg", "x", "a")]))


def test_a_part_of_it_is_refused(tmp_path):
    write_icir(tmp_path, [("database/0.jpg", "x", "a")], [("query/0.jpg", "x", "a")])
    with pytest.raises(ValueError, match=r"listing 'part\.csv': this benchmark has no other .* leave LISTING"):
        read_benchmark(tmp_path, listing="part.csv")


def test_a_gallery_without_its_answer_is_refused(tmp_path):
    from dataclasses import replace

    benchmark = read_icir(write_icir(tmp_path, [("database/0.jpg", "x", "a")], [("query/0.jpg", "x", "a")]))
    with pytest.raises(ValueError, match=r"galleries\[0\]: database/0.jpg is missing, though relevant there"):
        replace(benchmark, galleries=(np.empty(0, np.int64),))
