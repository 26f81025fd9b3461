"""What a benchmark is: consistent from the start, restricted without a slip, open to other formats."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rscir_lib.archive import Archive, read_archive, read_lines
from rscir_lib.benchmarks import registry
from rscir_lib.benchmarks.base import LABEL_COLUMNS, QUERY_COLUMNS, Benchmark, ValidationReport
from rscir_lib.benchmarks.image_names import ImageNames
from rscir_lib.benchmarks.registry import read_benchmark


def made(tmp_path, **changes):
    """Two values over six images; `b.jpg` is asked for by one query, unknown to the other."""
    files = tuple(f"images/c/{name}.jpg" for name in "abcdef")
    queries = [
        ("shape", "c", "a.jpg", "oval", "round", 0, 0, 0),
        ("shape", "c", "c.jpg", "round", "oval", 2, 1, -1),
    ]
    labels = [("shape", "a.jpg", "c", "oval", 0), ("shape", "c.jpg", "c", "round", 2)]
    columns = ["attribute", "group", "image", "value", "text", "position", "target", "unknown"]
    benchmark = {
        "archive": Archive(tmp_path, files, ("c",) * 6),
        "protocol": "test",
        "queries": pd.DataFrame(queries, columns=columns),
        "targets": (np.array([2, 3]), np.array([0, 1])),
        "labels": pd.DataFrame(labels, columns=["attribute", "image", "group", "value", "position"]),
        "warnings": ValidationReport().table(),
        "unknowns": (np.array([1, 5]),),
    }
    return Benchmark(**benchmark | changes)


def test_counts(tmp_path):
    benchmark = made(tmp_path)
    assert list(benchmark.n_relevant) == [2, 2]
    assert list(benchmark.n_unknown) == [2, 0]
    assert list(benchmark.n_ranked) == [4, 6]
    assert list(replace(benchmark, exclude_self=True).n_ranked) == [3, 5]
    assert benchmark.counts().loc[("shape", "c"), "unknown median"] == 1


def test_without_moves_every_position(tmp_path):
    benchmark = made(tmp_path).without(["images/c/b.jpg"])
    names = np.array(benchmark.archive.names)
    assert list(names) == ["a.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg"]
    assert [list(names[t]) for t in benchmark.targets] == [["c.jpg", "d.jpg"], ["a.jpg"]]
    assert [list(names[u]) for u in benchmark.unknowns] == [["f.jpg"]]
    assert list(names[benchmark.queries["position"]]) == list(benchmark.queries["image"])
    assert list(names[benchmark.labels["position"]]) == list(benchmark.labels["image"])
    assert benchmark.warnings.empty
    less = made(tmp_path).without(["images/c/c.jpg", "images/c/d.jpg"])  # one query's image, the other's answers
    assert less.queries.empty
    assert list(less.warnings["problem"]) == ["dropped: their image is left out", "dropped: every answer is left out"]
    with pytest.raises(ValueError, match=r"'images/c/z\.jpg' is no image"):
        made(tmp_path).without(["images/c/z.jpg"])


def test_judgements_and_their_reasons(tmp_path):
    """What the text asks for, another value, no label, not known, and the query image itself."""
    labelled = [("a", "oval", 0), ("c", "round", 2), ("f", "oval", 5)]
    labels = pd.DataFrame([("shape", image, "c", value, i) for image, value, i in labelled])
    labels.columns = ["attribute", "image", "group", "value", "position"]
    queries = made(tmp_path).queries.assign(unknown=[0, -1])
    benchmark = made(tmp_path, queries=queries, labels=labels, unknowns=(np.array([1]),))
    judged = [side.rpartition(": ")[::2] for side in benchmark.judgements(0)]
    assert judged == [
        ("the query image itself", "negative"),
        ("nobody judged it", "unknown, left out of the ranking"),
        ("has the value asked for", "RELEVANT"),
        ("has the value asked for", "RELEVANT"),
        ("same class, no label", "negative"),
        ("same group, another value", "negative"),
    ]
    assert (
        replace(benchmark, exclude_self=True).judgements(0)[0] == "the query image itself: left out of its own ranking"
    )


def test_query_outside_the_archive(tmp_path):
    outside = Archive(tmp_path / "other", ("q.jpg", "r.jpg"), ("", ""))
    queries = made(tmp_path).queries.assign(position=[-1, 2], query=[1, -1])
    benchmark = made(tmp_path, queries=queries, query_archive=outside, exclude_self=True)
    assert list(benchmark.n_ranked) == [4, 5]
    assert list(benchmark.without(["q.jpg"]).queries["query"]) == [0, -1]
    assert list(benchmark.without(["r.jpg"]).queries["image"]) == ["c.jpg"]


def test_images_are_named_by_as_much_of_the_path_as_it_takes(tmp_path):
    files = ("a/x.jpg", "b/x.jpg", "x.jpg", "b/y.jpg")
    names = ImageNames(Archive(tmp_path, files, ("",) * 4))
    said = ("a/x.jpg", "b/x.jpg", "./x.jpg", "y.jpg", "b/y.jpg")
    assert [names.position(names.find(image, "")) for image in said] == [0, 1, 2, 3, 3]
    assert [names.name(file) for file in files] == ["a/x.jpg", "b/x.jpg", "x.jpg", "y.jpg"]
    with pytest.raises(ValueError, match=r"f, line 1: .*several images named 'x\.jpg'; say which: 'a/x\.jpg' or 'b/x"):
        names.find("x.jpg", "f, line 1")
    with pytest.raises(ValueError, match=r"image 'y' is not in the archive; correct the name"):
        names.find("y", "")
    assert ImageNames(Archive(tmp_path, files, ("",) * 4), suffixless=True).find("y", "") == "b/y.jpg"


def test_a_benchmark_of_another_format_is_one_function_and_one_line(tmp_path, monkeypatch):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "pairs.txt").write_text("a.jpg wetter b.jpg\n")
    monkeypatch.setitem(registry.READERS, ("pairs.txt",), read_pairs)
    benchmark = read_benchmark(tmp_path)
    assert [benchmark.archive.names[i] for i in benchmark.targets[0]] == ["b.jpg"]


def read_pairs(root, listing=None):
    archive, asked = read_archive(root, listing), []
    lines = read_lines(archive.root / "pairs.txt")
    for number, (_, line) in enumerate(lines):
        image, text, _ = line.split()
        asked.append(("pairs", "all", image, "", text, archive.names.index(image), number))
    targets = tuple(np.array([archive.names.index(line.split()[2])]) for _, line in lines)
    labels = pd.DataFrame(columns=LABEL_COLUMNS).astype({"position": int})
    return Benchmark(
        archive, "pairs", pd.DataFrame(asked, columns=QUERY_COLUMNS), targets, labels, ValidationReport().table()
    )
