"""The explorer's Python side: its answers, its server, its files. The browser's side is in test_explorer_browser.py."""

import base64
import csv
import dataclasses
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from browser import served
from PIL import Image

from helpers import make_features, unit
from rscir_lib.apps.commands.cli import COMMANDS, main, parameters
from rscir_lib.apps.explorer import Explorer, Widget, marked_labels, marks_table, page, read_marks, server, session
from rscir_lib.apps.explorer.marks import add_mark
from rscir_lib.apps.explorer.opening import open_explorer
from rscir_lib.apps.explorer.page import write_page
from rscir_lib.apps.explorer.server import leave_one_core, serve
from rscir_lib.apps.explorer.thumbnails import END, Thumbnails
from rscir_lib.apps.labelling import merge_journals
from rscir_lib.archive import Archive
from rscir_lib.archive.reading import read_image
from rscir_lib.benchmarks.registry import read_benchmark
from rscir_lib.benchmarks.synthcom import draw_synthcom
from rscir_lib.encoders import load_encoder
from rscir_lib.evaluation import evaluate
from rscir_lib.features import extract_features, read_features
from rscir_lib.methods import METHODS, Questions
from rscir_lib.ranking import ImageSets, Job, top_k
from rscir_lib.search import Hits, Searcher
from rscir_lib.similarity import best_first
from rscir_lib.similarity.lambda_auto import auto_lambda, resampled
from rscir_lib.storage.cells import from_cell


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("demo", device="cpu")


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    return read_benchmark(draw_synthcom(tmp_path_factory.mktemp("explorer") / "small", images_per_class=4, workers=1))


@pytest.fixture(scope="module")
def features(benchmark, encoder, tmp_path_factory):
    folder = extract_features(benchmark.archive, encoder, tmp_path_factory.mktemp("features") / "store", workers=1)
    return read_features(folder, benchmark.archive, encoder)


@pytest.fixture
def explorer(benchmark, features, encoder, tmp_path):
    return Explorer(benchmark.archive, features, encoder, tmp_path, benchmark)


def doubles(text, dtype=np.float64):
    return np.frombuffer(base64.b64decode(text), dtype)


def error(explorer, **question):
    answer = explorer.answer(question)
    assert answer.keys() <= {"error", "malformed"}
    return answer["error"]


@pytest.mark.slow
def test_a_query_holds_the_similarities_that_the_library_ranks_by(explorer, features, encoder):
    answer = explorer.answer({"ask": "query", "images": [7], "words": "red"})
    image, text = map(doubles, answer["similarities"])
    x = features.feats.astype(np.float64)
    assert image == pytest.approx(x @ x[7], abs=1e-12)
    assert text == pytest.approx(x @ encoder.encode_texts(["red"])[0].astype(np.float64), abs=1e-12)
    assert answer["moments"][1] == pytest.approx([text.mean(), text.std(ddof=1), text.min(), text.max()])


@pytest.mark.slow
def test_an_image_has_its_own_class_however_many_classes_there_are(encoder, tmp_path, monkeypatch):
    """More than two bytes count: in the explorer, on its static page, among hits. The archive is names alone."""
    n = 66_000
    classes = tuple(f"class{k}" for k in range(n))
    archive = Archive(tmp_path, tuple(f"{name}/a.jpg" for name in classes), classes)
    features = make_features(archive, unit(np.random.default_rng(0).normal(size=(n, encoder.dim))))
    monkeypatch.setattr(Thumbnails, "of", lambda self, positions: [b""] * len(positions))
    monkeypatch.setattr(page, "TOGETHER", n)
    explorer = Explorer(archive, features, encoder, tmp_path)
    script = write_page(explorer, tmp_path / "page").with_name("data.js").read_text()
    for facts in (explorer.hello(), json.loads(script[len("globalThis.RSCIR = ") : -2])["facts"]):
        assert [facts["classes"][k] for k in facts["classIndex"]] == list(classes)
    hits = Searcher(features, encoder, archive)(None, "red", 1, top=2000).table
    assert hits["position"].max() >= 2**16
    assert list(hits["class"]) == [classes[position] for position in hits["position"]]
    monkeypatch.setattr(session, "WHOLE", 1000)  # as of a larger archive: the candidates of one class
    assert list(doubles(explorer.query([0], "red", cls=classes[-1])["positions"], np.int32)) == [n - 1]


@pytest.mark.slow
def test_several_pictures_are_their_mean_and_a_word_can_be_left_out(explorer, features, encoder):
    answer = explorer.answer({"ask": "query", "images": [3, 8], "words": "red", "without": "grass"})
    image, text = map(doubles, answer["similarities"])
    mean = features.feats[[3, 8]].mean(axis=0)
    assert image == pytest.approx(features.feats @ (mean / np.linalg.norm(mean)), abs=1e-6)
    red, grass = encoder.encode_texts(["red", "grass"])
    left = red - (red @ grass) * grass
    assert text == pytest.approx(features.feats @ (left / np.linalg.norm(left)), abs=1e-6)
    assert abs(left @ grass) < 1e-6


def test_without_words_or_picture_there_is_no_such_side(explorer):
    answer = explorer.answer({"ask": "query", "images": [], "words": " "})
    assert (list(answer["moments"]), answer["similarities"]) == ([[], []], ["", ""])


def one_question(explorer, position, words):
    feats, texts = explorer.feats[[position]], explorer.encoder.encode_texts([words])
    return Questions(feats, texts, (words,), np.zeros(1, int), np.zeros(1, int), np.array([position]))


def test_methods_offered_are_all_that_mix_and_a_strange_one_is_scored_here(explorer, monkeypatch):
    names = [method["name"] for method in explorer.hello()["methods"]]
    assert names == [name for name in METHODS if name not in ("image", "text")]
    odd = dataclasses.replace(
        METHODS["weicom"], name="odd", combine=lambda image, text, lam: image - lam * text, scope="archive"
    )
    monkeypatch.setitem(METHODS, "odd", odd)
    assert session.browser_rule("odd") == (None, None)
    assert session.browser_rule("weicom") == ("upper_tail", "mix")
    answer = explorer.answer({"ask": "scores", "images": [2], "words": "red", "lam": 0.25, "method": "odd"})
    question = one_question(explorer, 2, "red")
    expected = odd.fit(explorer.gallery, None)(question, 0.25)[0]
    assert doubles(answer["scores"]) == pytest.approx(expected)
    for wrong, said in (
        (lambda image, text, lam: text / 0 * 0, "not finite"),
        (lambda image, text, lam: text[:, :2], "shape"),
    ):
        monkeypatch.setitem(METHODS, "odd", dataclasses.replace(odd, combine=wrong))
        explorer.scorers.clear()
        answer = explorer.answer({"ask": "scores", "images": [2], "words": "red", "lam": 0.25, "method": "odd"})
        assert said in answer["error"]


def test_lambda_is_read_off_one_query_with_its_spread(explorer):
    answer = explorer.answer({"ask": "auto", "images": [2], "words": "red"})
    text = explorer.encoder.encode_texts(["red"])[0].astype(float)
    image, text = (explorer.feats.astype(float) @ side for side in (explorer.feats[2].astype(float), text))
    assert [answer["lambda"], answer["low"], answer["high"]] == pytest.approx(
        auto_lambda(resampled(image, text)), abs=0.01
    )
    assert answer["low"] - 0.005 <= answer["lambda"] <= answer["high"] + 0.005
    for half in ({"images": [2]}, {"images": [], "words": "red"}):
        assert "give both" in error(explorer, ask="auto", **half)


def test_a_method_that_reads_words_is_given_them(explorer):
    question = one_question(explorer, 2, "red")
    expected = METHODS["freedom"].fit(explorer.gallery, explorer.encoder.encode_texts)(question, 0.5)[0]
    answer = explorer.answer({"ask": "scores", "images": [2], "words": "red", "lam": 0.5, "method": "freedom"})
    assert doubles(answer["scores"]) == pytest.approx(expected)


def test_words_that_the_encoder_never_met_are_named_as_they_were_typed(explorer):
    answer = explorer.answer({"ask": "query", "images": [2], "words": "It's a (red) thing-o-matic, it's"})
    assert answer["strange"] == ["It's", "thing-o-matic", "it's"]
    answer = explorer.answer({"ask": "query", "images": [2], "words": "red zebra", "without": "cars yacht"})
    assert answer["strange"] == ["zebra", "yacht"]


def test_the_browser_knows_the_benchmark(explorer, benchmark):
    facts = json.loads(json.dumps(explorer.answer({"ask": "hello"})))
    columns = ["position", "text", "attribute", "target"]
    assert [query[:4] for query in facts["queries"]] == benchmark.queries[columns].to_numpy().tolist()
    assert facts["targets"] == [target.tolist() for target in benchmark.targets]
    unknown = np.setdiff1d(np.arange(len(benchmark.archive)), benchmark.targets[0])
    queries = benchmark.queries.assign(unknown=-1)
    queries.loc[queries.index[0], "unknown"] = 0
    explorer = Explorer(explorer.archive, explorer.features, explorer.encoder, explorer.marks.parent,
                        dataclasses.replace(benchmark, queries=queries, unknowns=(unknown,)))  # fmt: skip
    facts = explorer.answer({"ask": "hello"})
    assert facts["unknowns"] == [unknown.tolist()]
    assert [query[4] for query in facts["queries"]] == [0] + [-1] * (len(queries) - 1)


@pytest.mark.parametrize("lam", [0, 0.3, 1])
@pytest.mark.parametrize("exclude_self", [False, True])
def test_precisions_are_the_evaluators(explorer, benchmark, features, encoder, lam, exclude_self):
    explorer.benchmark = dataclasses.replace(benchmark, exclude_self=exclude_self)
    rows = evaluate(explorer.benchmark, features, encoder.encode_texts, ["weicom"], [lam], progress=False)
    assert explorer.precisions(lam).to_numpy() == pytest.approx(rows["AP"].to_numpy())


def test_queries_are_rated(explorer, monkeypatch):
    ap = explorer.precisions()
    monkeypatch.setattr(session, "JUDGED", 10)
    explorer._judged.cache_clear()
    drawn = json.loads(json.dumps(explorer.answer({"ask": "rated"})))["ap"]
    assert len(drawn) == len(ap)
    rated = {row: value for row, value in enumerate(drawn) if value is not None}
    assert len(rated) == 10
    assert rated == ap[list(rated)].to_dict()


def test_unknown_images_take_no_rank(explorer, benchmark):
    target = benchmark.queries["target"].iloc[0]
    unknown = np.setdiff1d(np.arange(len(benchmark.archive)), benchmark.targets[target])
    queries = benchmark.queries.iloc[:1].assign(unknown=0)
    explorer.benchmark = dataclasses.replace(benchmark, queries=queries, unknowns=(unknown,))
    assert explorer.precisions().tolist() == [1.0]


def test_nothing_but_images_of_the_archive(explorer):
    for position in (-1, len(explorer.archive)):
        assert "no image" in error(explorer, ask="images", positions=[position])
        assert "no image" in error(explorer, ask="query", images=[position])
    for position in ("0", True, 1.5, None):
        assert "malformed: positions.0: " in error(explorer, ask="images", positions=[position])
    assert "unknown question '__init__'; one of hello, images" in error(explorer, ask="__init__")
    assert "malformed: path: Unexpected" in error(explorer, ask="images", positions=[], path="/etc/passwd")


def test_refused_words_say_why(explorer):
    assert "tokens" in error(explorer, ask="query", images=[0], words="red " * 60)
    assert "leaves nothing to search for" in error(explorer, ask="query", images=[0], words="red", without="red")


def uploaded(explorer, name, data):
    return explorer.answer({"ask": "upload", "name": name, "data": base64.b64encode(data).decode()})


def test_upload(explorer, tmp_path):
    explorer.archive.read(5).save(tmp_path / "own.png")
    data = (tmp_path / "own.png").read_bytes()
    own = uploaded(explorer, "own.png", data)
    assert base64.b64decode(own["jpeg"])[:2] == b"\xff\xd8"
    answer = explorer.answer({"ask": "query", "images": [own["key"]]})
    assert doubles(answer["similarities"][0]).argmax() == 5
    for broken in (b"", b"no picture", data[: len(data) // 2]):
        assert uploaded(explorer, "broken.png", broken)["error"].startswith("broken.png: not a readable image")
    for key in (own["key"][:16], base64.b64encode(np.full(explorer.feats.shape[1], np.nan, np.float32)).decode()):
        assert "upload it again" in error(explorer, ask="query", images=[key])
    assert "error" in explorer.answer({"ask": "query", "images": ["no key"]})


def test_an_upload_is_read_by_the_archives_rule(explorer, tmp_path):
    """16 bits are stretched as they are in the archive, not cut; and what runs programs is not opened."""
    values = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint16) * 500
    Image.fromarray(values).save(tmp_path / "deep.tif")
    answer = uploaded(explorer, "deep.tif", (tmp_path / "deep.tif").read_bytes())
    picture = read_image(tmp_path / "deep.tif")
    expected = explorer.encoder.encode_images(explorer.encoder.preprocess(picture)[None])[0]
    np.testing.assert_array_equal(doubles(answer["key"], np.float32), expected)
    answer = uploaded(explorer, "a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert answer["error"].startswith("a.eps: not a readable image")


@pytest.mark.slow
def test_thumbnails_are_made_once_and_anew_for_a_replaced_image(tmp_path):
    archive = read_benchmark(draw_synthcom(tmp_path / "tiny", images_per_class=2, workers=1)).archive
    thumbnails = Thumbnails(archive, tmp_path / "thumbnails")
    (first,) = thumbnails.of([0])
    (kept,) = (tmp_path / "thumbnails").rglob("*.jpg")
    assert kept.read_bytes() == first
    kept.write_bytes(kept.read_bytes()[:-9])  # cut short, as by a power cut
    assert thumbnails.of([0]) == [first]
    kept.write_bytes(b"from the disk" + END)
    assert thumbnails.of([0]) == [b"from the disk" + END]
    Image.new("RGB", (40, 20), "red").save(archive.path(0))
    assert thumbnails.of([0])[0] not in (first, b"from the disk" + END)  # no picture: the features are of the old one
    thumbnails = Thumbnails(archive, tmp_path / "thumbnails")
    assert thumbnails.of([0])[0] not in (first, b"from the disk" + END)
    archive.path(1).write_bytes(b"damaged")
    archive.path(2).unlink()
    broken, absent = thumbnails.of([1, 2])
    assert broken == absent
    (kept,) = {*(tmp_path / "thumbnails").rglob("*.jpg")} - {kept}
    whole = kept.read_bytes()
    kept.unlink()
    kept.mkdir()  # what can't be read is drawn again
    assert thumbnails.of([0]) == [whole]
    kept.rmdir()
    kept.write_bytes(whole)
    assert len(list((tmp_path / "thumbnails").rglob("*.jpg"))) == 2


@pytest.mark.parametrize("cls", ["", "beach"])
@pytest.mark.parametrize("method", ["average", "weicom", "linear", "zscore", "sum", "minimum"])
def test_candidates_of_a_large_archive_give_the_same_first_hits(explorer, monkeypatch, method, cls):
    """All that the browser gets of an archive over the limit is enough for `HITS` hits at any lambda."""
    sides = [*map(doubles, explorer.answer({"ask": "query", "images": [9], "words": "grass"})["similarities"])]
    monkeypatch.setattr(session, "WHOLE", 10)
    monkeypatch.setattr(session, "HITS", 3)
    monkeypatch.setattr("rscir_lib.ranking.skyband.CHUNK", 4)
    assert [m["name"] for m in explorer.hello()["methods"]] == [
        "average", "weicom", "linear", "zscore", "sum", "minimum",
    ]  # fmt: skip
    question = {"ask": "query", "images": [9], "words": "grass", "method": method, "cls": cls}
    answer = explorer.answer(question)
    positions = doubles(answer["positions"], np.int32)
    np.testing.assert_array_equal(doubles(answer["similarities"][0]), sides[0][positions])
    percentiles = 100 * (sides[0] < sides[0][positions, None]).sum(axis=1) / 107
    assert doubles(answer["percentiles"][0]) == pytest.approx(percentiles)
    allowed = np.flatnonzero([not cls or other == cls for other in explorer.archive.classes])
    assert np.isin(positions, allowed).all()
    assert cls or len(positions) < len(explorer.archive) / 2
    one = one_question(explorer, 9, "grass")
    others = ImageSets([np.setdiff1d(np.arange(len(explorer.archive)), allowed)], np.zeros(1, int))
    for lam in (0, 1e-9, 0.123, 1 / 3, 0.5, 0.987, 1):
        ((*found,),), _ = top_k(one, 3, explorer.gallery, Job(METHODS[method], lam), others)
        assert np.isin(found, positions).all()
    answer = explorer.answer(question | {"images": []})  # words alone
    assert answer["similarities"][0] == answer["percentiles"][0] == ""
    assert doubles(answer["positions"], np.int32).tolist() == sorted(allowed[best_first(sides[1][allowed], 3)])


def test_marks_are_kept_and_evaluated(explorer, features, encoder):
    files = explorer.archive.files
    for answer, verdict in ((4, "right"), (9, "wrong"), (7, "right"), (7, "")):
        question = {"ask": "mark", "image": files[2], "text": "two, red", "answer": files[answer], "verdict": verdict}
        assert "saved" in explorer.answer(question)
    table = marks_table(explorer.marks)
    assert table.to_numpy().tolist() == [
        [files[2], "two, red", files[4], "right"], [files[2], "two, red", files[9], "wrong"]
    ]  # fmt: skip
    benchmark = read_marks(explorer.marks, explorer.archive)
    rows = evaluate(benchmark, features, encoder.encode_texts, ["image"], progress=False)
    s = features.feats @ features.feats[2]
    assert rows["AP"].tolist() == [1.0 if s[4] > s[9] else 0.5]
    again = Explorer(explorer.archive, features, encoder, explorer.marks.parent)
    assert again.answer({"ask": "hello"})["marks"] == table.to_numpy().tolist()
    assert "verdict" in error(explorer, ask="mark", image=files[2], text="a", answer=files[1], verdict="perhaps")
    assert "has no image 'x.jpg'" in error(explorer, ask="mark", image=files[2], text="a", answer="x.jpg", verdict="")


def test_marks_that_no_method_is_compared_on_are_reported(explorer):
    image, answer = explorer.archive.files[2], explorer.archive.files[4]
    for text in ("", "two - red", "- red"):
        question = {"ask": "mark", "image": image, "text": text, "answer": answer, "verdict": "right"}
        assert "saved" in explorer.answer(question)
    assert marks_table(explorer.marks)["text"].tolist() == ["", "two - red", "- red"]
    with pytest.raises(ValueError, match="no answer to a picture and words is marked right"):
        read_marks(explorer.marks, explorer.archive)
    add_mark(explorer.marks, explorer.archive.files[2], "two", explorer.archive.files[4], "right")
    benchmark = read_marks(explorer.marks, explorer.archive)
    assert benchmark.queries["text"].tolist() == ["two"]
    assert sorted(benchmark.warnings["value"]) == ["", "- red", "two - red"]


def test_marks_are_labels(explorer):
    files, names = explorer.archive.files, [file.rsplit("/", 1)[-1] for file in explorer.archive.files]
    for text, answer, verdict in (
        ("two", 4, "right"), ("three", 5, "right"), ("two", 6, "wrong"), ("red", 7, "right"), ("three", 4, "right"),
    ):  # fmt: skip
        add_mark(explorer.marks, files[2], text, files[answer], verdict)
    labels = marked_labels(explorer.marks, explorer.archive, ["two", "three"])
    assert labels.to_numpy().tolist() == [[names[4], "", ""], [names[5], "three", ""]]
    merged, left_open = merge_journals({"explorer": labels})
    assert merged.to_numpy().tolist() == [[names[5], "three"]]
    assert left_open["image"].tolist() == [names[4]]


def test_damaged_marks_are_named(tmp_path, explorer):
    path = tmp_path / "m.csv"
    path.write_text("image,text,answer,verdict\na,b,c,maybe\n")
    with pytest.raises(ValueError, match=r"m\.csv, line 2"):
        marks_table(path)
    path.write_text("a,b\n")
    with pytest.raises(ValueError, match="line 1: expected the header"):
        marks_table(path)
    path.unlink()
    add_mark(path, "no.jpg", "red", "no.jpg", "right")
    with pytest.raises(ValueError, match=r"1 images that .* lacks \(no\.jpg\)"):
        read_marks(path, explorer.archive)
    assert marks_table(tmp_path / "absent.csv").empty


KEPT = (
    "a\nb", 'a "b", c', "- red", "=HYPERLINK(A1)", "+1", "@a", "\tx", "'=a", "''=a", "'a", "''", "é\u2028雪",
    "x" * 131_000,
)  # fmt: skip


@pytest.mark.parametrize("text", KEPT, ids=lambda text: ascii(text[:9]))
def test_a_mark_is_read_back_as_it_was(tmp_path, text):
    for image in ("1.jpg", text):
        add_mark(tmp_path / "m.csv", image, text, text, "right")
    marks = [[image, text, text, "right"] for image in ("1.jpg", text)]
    assert marks_table(tmp_path / "m.csv").to_numpy().tolist() == marks


@pytest.mark.parametrize("text", ["x" * 131_073, "half \ud800", "a\rb", "\r", "a\0b"], ids=lambda text: ascii(text[:9]))
def test_a_mark_that_could_not_be_read_back_is_not_written(tmp_path, text):
    path = tmp_path / "m.csv"
    add_mark(path, "1.jpg", "red", "2.jpg", "right")
    before, message = path.read_bytes(), ""
    try:  # one version of Python writes some of these so that it can be read, another doesn't
        add_mark(path, "1.jpg", text, "3.jpg", "wrong")
    except ValueError as error:
        message = str(error)
    if not message:
        assert text.startswith(("a", "\r"))
        assert marks_table(path)["text"].tolist() == ["red", text]
    else:
        assert re.search(r"m\.csv can't hold this: .*; write it in other words|surrogates not allowed", message)
        assert path.read_bytes() == before
    with pytest.raises(ValueError, match="write it in other words"):
        add_mark(path, "", "red", "3.jpg", "wrong")


def test_no_cell_of_a_table_is_a_formula(tmp_path):
    """Whoever names a file or types words decides nothing in somebody's spreadsheet; numbers stay numbers."""
    texts = ["=1+1", "+1", "-1", "@a", "\t=1", "red"]
    for text in texts:
        add_mark(tmp_path / "m.csv", text, text, "=1.jpg", "right")
    assert marks_table(tmp_path / "m.csv").to_numpy().tolist() == [[text, text, "=1.jpg", "right"] for text in texts]
    table = pd.DataFrame({"file": texts, "score": np.arange(6) - 3.5, "footprint": None})
    Hits(table, None, {"text": "- red", "lambda": 0.5}, None).to_csv(tmp_path / "hits.csv")
    hits = pd.read_csv(tmp_path / "hits.csv")
    assert hits["score"].tolist() == table["score"].tolist()
    assert hits["file"].map(from_cell).tolist() == texts
    assert hits["query_text"].map(from_cell).tolist() == ["- red"] * 6
    for name in ("m.csv", "hits.csv"):
        rows = list(csv.reader(io.StringIO((tmp_path / name).read_bytes().decode(), newline="")))
        texts_in = [cell for row in rows for cell in row if not re.fullmatch(r"-?[\d.]+", cell)]
        assert not [cell for cell in texts_in if cell[:1] in tuple("=+-@\t\r\n")]


def test_with_damaged_marks_questions_are_answered_and_it_is_said(explorer):
    explorer.marks.write_text("image,text,answer,verdict\na,b,c,maybe\n")
    facts = explorer.answer({"ask": "hello"})
    assert facts["marks"] == []
    assert re.search(
        r"marks\.csv, line 2: .* mend or remove it\. Until then there are answers, but no marks", facts["warning"]
    )
    assert "similarities" in explorer.answer({"ask": "query", "images": [2], "words": "red"})
    image = explorer.archive.files[0]
    assert "line 2" in error(explorer, ask="mark", image=image, text="a", answer=image, verdict="right")
    assert explorer.marks.read_text().endswith("maybe\n")


def test_a_page_that_was_left_open_over_a_restart_is_told_to_reload(explorer, benchmark, features, tmp_path):
    """Positions of the page are others by now, so no question with its identity is answered."""
    archive, order = benchmark.archive, np.r_[1 : len(benchmark.archive)]
    smaller = Explorer(archive.subset(order), features, explorer.encoder, tmp_path)
    swapped = features.feats.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    other = Explorer(archive, make_features(archive, swapped), explorer.encoder, tmp_path)
    again = Explorer(archive, features, explorer.encoder, tmp_path, benchmark)
    page = explorer.answer({"ask": "hello"})["archive"]
    mark = {"image": archive.files[1], "text": "red", "answer": archive.files[2], "verdict": "right"}
    questions = (
        {"ask": "query", "images": [1]}, {"ask": "images", "positions": [1]}, {"ask": "rated"}, {"ask": "mark"} | mark,
        {"ask": "picture", "position": 1},
        {"ask": "scores", "images": [1], "words": "red", "lam": 0.5, "method": "freedom"},
        {"ask": "upload", "data": "", "name": "a.png"}, {"ask": "auto", "images": [1], "words": "red"},
    )  # fmt: skip
    for served_now in (smaller, other):
        assert "error" not in served_now.answer({"ask": "hello", "archive": page})
        for question in questions:
            assert "reload" in error(served_now, **question, archive=page)
        assert not served_now.marks.exists()
    assert {question["ask"] for question in questions} == {*session.ASKED} - {"hello"}
    for question in questions[:3]:
        assert "error" not in again.answer(question | {"archive": page})


@pytest.mark.slow
def test_an_image_that_is_replaced_while_it_is_served(encoder, tmp_path):
    """Of the same size and time, too: its features are of the one before, so nobody is shown the new one as a hit."""
    archive = read_benchmark(draw_synthcom(tmp_path / "tiny", images_per_class=2, workers=1)).archive
    feats = np.random.default_rng(0).normal(size=(len(archive), encoder.dim))
    explorer = Explorer(archive, make_features(archive, unit(feats)), encoder, tmp_path / "run")
    first, second = explorer.answer({"ask": "images", "positions": [0, 1]})["jpegs"]
    path, before = archive.path(0), archive.path(0).stat()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    answer = explorer.answer({"ask": "images", "positions": [1, 0]})
    assert answer["jpegs"][0] == second
    assert answer["jpegs"][1] != first
    changed = f"{archive.files[0]} has changed, its features have not: stop the explorer and start it anew"
    assert answer["warning"] == changed
    assert error(explorer, ask="query", images=[0]) == changed
    mark = {"ask": "mark", "text": "red", "verdict": "right", "image": archive.files[1], "answer": archive.files[0]}
    assert error(explorer, **mark) == changed
    assert not explorer.marks.exists()
    assert "similarities" in explorer.answer({"ask": "query", "images": [1]})


@pytest.mark.parametrize("before", ["", "image,text,answer,verdict\n1.jpg,red,2.jpg,right"])
def test_a_mark_goes_on_a_line_of_its_own(tmp_path, before):
    path = tmp_path / "m.csv"
    path.write_text(before)
    add_mark(path, "1.jpg", "red", "3.jpg", "wrong")
    assert len(marks_table(path)) == before.count("right") + 1


def fetch(url, data=None, **headers):
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as problem:
        return problem.code, problem.read()


def test_the_server_answers_its_addresses_and_no_other(explorer):
    with served(explorer) as address:
        assert "127.0.0.1" in address
        assert [fetch(address + path)[0] for path in ("", "explorer.js", "explorer.css")] == [200] * 3
        for path in (
            "../pyproject.toml", "%2e%2e/%2e%2e/etc/passwd", "static/x", "marks.csv", "session.py", "thumbnails/",
            "explorer.js/../session.py", "//etc/passwd", "ask", "http.js",
        ):  # fmt: skip
            assert fetch(address + path)[0] in (404, 405)
        status, reply = fetch(address + "ask", b'{"ask": "images", "positions": ["/etc/passwd"]}')
        assert status == 400
        assert "positions.0: Input should be a valid integer" in json.loads(reply)["error"]
        question = b'{"ask": "hello"}'
        assert fetch(address + "ask", question, Origin="http://example.org")[0] == 403
        assert fetch(address + "ask", question, Host="example.org")[0] == 403
        assert fetch(address, Host="localhost:1")[0] == 200
        assert json.loads(fetch(address + "ask", question)[1])["files"] == list(explorer.archive.files)


@pytest.mark.slow
def test_a_query_is_worked_out_once_until_its_picture_changes(encoder, tmp_path, monkeypatch):
    """Two hundred visitors ask the same: they get the same bytes, of which so many are kept."""
    archive = read_benchmark(draw_synthcom(tmp_path / "tiny", images_per_class=2, workers=1)).archive
    feats = np.random.default_rng(0).normal(size=(len(archive), encoder.dim))
    explorer = Explorer(archive, make_features(archive, unit(feats)), encoder, tmp_path / "run")
    count, answer = [], explorer.answer
    monkeypatch.setattr(explorer, "answer", lambda question: count.append(question["images"]) or answer(question))
    asked = [json.dumps({"ask": "query", "images": [k], "words": "red"}).encode() for k in range(20)]
    with served(explorer) as address:
        status, reply = fetch(address + "ask", asked[0])
        assert status == 200
        assert json.loads(reply) == json.loads(json.dumps(answer(json.loads(asked[0]))))
        assert fetch(address + "ask", asked[0]) == (status, reply)
        assert count == [[0]]
        path = archive.path(0)
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        for _ in range(2):
            assert "has changed" in json.loads(fetch(address + "ask", asked[0])[1])["error"]
        monkeypatch.setattr(server, "KEPT", 3 * len(reply) + 99)  # three are kept, and no more
        for question in [*asked[1:], asked[19], asked[1]]:
            assert "similarities" in json.loads(fetch(address + "ask", question)[1])
        assert [count.count([k]) for k in (1, 19)] == [2, 1]


CAPTURED = {"capture_output": True, "text": True, "timeout": 300, "check": False}
QUESTIONS = {
    "hello": {},
    "images": {"positions": [0]},
    "query": {"images": [0], "words": "red", "without": "car", "method": "weicom", "cls": ""},
    "scores": {"images": [0], "words": "red", "without": "", "method": "freedom", "lam": 0.5},
    "auto": {"images": [0], "words": "red", "without": ""},
    "upload": {"data": "AAAA", "name": "a.png"},
    "rated": {},
    "mark": {"image": "a", "text": "b", "answer": "c", "verdict": "right"},
}
BAD = (
    None, True, -1, 0, 1.5, 1e308, float("nan"), float("-inf"), 10**30, "", "x", "\ud800", "x" * 20_000, [], {}, [[]],
    [{}], [None], ["x"], ["AAAA"], [-1], [10**30], [0] * 2000, [True], {"a": 1},
)  # fmt: skip


def malformed():
    """Bodies that no page sends."""
    yield from (
        b"",
        b"nonsense",
        b"[1]",
        b'"hello"',
        b"17",
        b"null",
        b"NaN",
        b'{"ask": "hello"',
        b"\xff",
        b"\0",
        b"[" * 100_000,
    )
    yield from (b'{"ask": "query", "images": [' + b"9" * 5000 + b"]}", b'{"a":' * 50_000)
    for ask, arguments in QUESTIONS.items():
        for value in BAD:
            yield from (
                json.dumps(arguments | {"ask": value}).encode(),
                json.dumps({"ask": ask, "more": value}).encode(),
            )
            for name in arguments:
                yield json.dumps({"ask": ask, **arguments, name: value}).encode()
        for name in arguments:
            yield json.dumps({"ask": ask} | {key: value for key, value in arguments.items() if key != name}).encode()
        for name in ("self", "__class__", "", "ask\0", "archive"):
            yield json.dumps({"ask": ask, **arguments, name: 1}).encode()


@pytest.mark.slow
def test_malformed_questions_are_refused_in_a_sentence(explorer, caplog):
    good = json.dumps({"ask": "query", "images": [3], "words": "red"}).encode()
    statuses = Counter()
    with served(explorer) as address:
        expected = fetch(address + "ask", good)
        for body in malformed():
            status, reply = fetch(address + "ask", body)
            statuses[status] += 1
            answer = json.loads(reply)
            assert status in (200, 400), (status, body[:200])
            if status == 400:
                assert len(answer["error"].split()) > 3, (answer, body[:200])
                assert "can't be answered" not in answer["error"], (answer, body[:200])
        assert fetch(address + "ask", good) == expected
    assert caplog.records == []
    assert statuses[400] > 250, statuses


def connected(address):
    host, port = address[7:-1].split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def test_whose_question_it_is_is_looked_at_before_its_body_is_read(explorer):
    with served(explorer) as address, connected(address) as line:
        head = f"POST /ask HTTP/1.1\r\nHost: {address[7:-1]}\r\nOrigin: http://example.org\r\nContent-Length: 60000000"
        line.sendall(f"{head}\r\n\r\n".encode())
        assert line.recv(100).startswith(b"HTTP/1.1 403")


@pytest.mark.slow
def test_without_file_handles_it_waits_and_says_nothing(explorer, caplog):
    resource = pytest.importorskip("resource", reason="limits are POSIX's")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with served(explorer) as address:
        lines = [socket.socket() for _ in range(9)]
        highest = os.open(os.devnull, os.O_RDONLY)
        os.close(highest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))  # one is left
        try:
            for line in lines:
                line.connect(("127.0.0.1", int(address[:-1].rsplit(":")[-1])))
            time.sleep(1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for line in lines:
            line.close()
        assert fetch(address + "ask", b'{"ask": "hello"}')[0] == 200
    assert caplog.records == []


def test_a_port_that_is_taken_or_none(explorer, capsys):
    with served(explorer) as address:
        port = address[:-1].rsplit(":")[-1]
        with pytest.raises(OSError, match=f"port {port} can't be served .* choose another by --port, or 0"):
            serve(explorer, int(port))
    for port in ("99999", "-1", "65536", "x"):
        with pytest.raises(SystemExit):
            main(["explore", "--port", port])
        assert "--port: " in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_still_ends_the_command(monkeypatch, capsys):
    class Cleared:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def page():
        Cleared()  # what is raised in there goes nowhere
        print("written")

    monkeypatch.setitem(COMMANDS, "page", (page, ()))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts `make test &` has it ignored
    assert main(["page"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_features_that_are_cut_short_while_they_are_served(benchmark, features, encoder, tmp_path):
    """In a process of its own: reading beyond the end of a mapped file is a signal that ends it."""
    shutil.copytree(features._shards[0].folder, tmp_path / "store")
    code = """if True:
        import os, sys
        from pathlib import Path
        from rscir_lib.apps.explorer import Explorer
        from rscir_lib.encoders import load_encoder
        from rscir_lib.features import read_features
        from rscir_lib.benchmarks.registry import read_benchmark
        archive, store = read_benchmark(Path(sys.argv[1])).archive, Path(sys.argv[2])
        explorer = Explorer(archive, read_features(store), load_encoder("demo", device="cpu"), store.parent / "run")
        features = read_features(store)
        features.rows([0])
        for path in store.glob("*.npy"):
            os.truncate(path, 100)
        print(len(explorer.answer({"ask": "query", "images": [3], "words": "red"})["similarities"]))
        try:
            features.rows([5])
        except ValueError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code, benchmark.archive.root, tmp_path / "store"], **CAPTURED)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "2"), done.stderr
    assert re.search(r"\.npy is damaged \(.*run extract_features", done.stdout)


def test_uploads_hold_nobody_up(explorer, monkeypatch):
    """Six people's pictures, each slow to read; meanwhile others ask."""
    going_on = threading.Event()
    monkeypatch.setattr(session, "read_image", lambda *_: going_on.wait(60) and Image.new("RGB", (64, 64)))
    with served(explorer) as address, ThreadPoolExecutor(6) as people:
        upload = json.dumps({"ask": "upload", "name": "a.png", "data": "AAAA"}).encode()
        answers = [people.submit(fetch, address + "ask", upload) for _ in range(6)]
        try:
            for _ in range(20):
                assert fetch(address + "ask", b'{"ask": "query", "images": [3], "words": "red"}')[0] == 200
            assert not any(answer.done() for answer in answers)
        finally:
            going_on.set()
        assert all(b'"key"' in answer.result()[1] for answer in answers)


def test_page_escapes_names(explorer, tmp_path):
    explorer.title = "</title><script>alert(1)</script>"
    index = write_page(explorer, tmp_path / "page", words=["of my own"])
    text = index.read_text()
    assert "<script>alert" not in text
    assert text.count("</script>") == 2
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    data = json.loads((tmp_path / "page" / "data.js").read_text().removeprefix("globalThis.RSCIR = ").rstrip(";\n"))
    assert "of my own" in data["facts"]["words"]
    assert len(data["facts"]["queries"]) == len(data["rated"]["ap"]) == len(explorer.benchmark.queries)
    assert len(list((tmp_path / "page" / "thumbnails").iterdir())) == -(-len(explorer.archive) // 50)


def test_the_widget_answers_by_messages_and_keeps_no_picture_in_its_state(explorer, monkeypatch):
    widget, sent = Widget(explorer, 3, "red"), []
    monkeypatch.setattr(widget, "send", sent.append)
    widget._handle_custom_msg({"id": 0.7, "question": {"ask": "query", "images": [3], "words": "red"}}, [])
    (message,) = sent
    assert message["id"] == 0.7
    assert doubles(message["answer"]["similarities"][0]).argmax() == 3
    state = widget.get_state()
    assert (
        len(json.dumps({key: value for key, value in state.items() if key not in ("_esm", "_css")}, default=str)) < 2000
    )


def test_servers_leave_one_core_between_them():
    before, cores = torch.get_num_threads(), os.cpu_count()
    torch.set_num_threads(cores)
    try:
        for _ in range(2):
            leave_one_core()
            assert torch.get_num_threads() == max(cores - 1, 1)
    finally:
        torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore:.*can't be read")
@pytest.mark.parametrize("others", [0, 3], ids=["a scene alone", "among photographs"])
@pytest.mark.slow
def test_a_large_scene_names_make_tiles_and_the_command_works_as_it_stands(others, tmp_path, capsys):
    """In the terminal, in the explorer and in the notebooks' report; then with the listing that it writes."""
    root, runs = tmp_path / "my scenes ü", f"OUTPUT_ROOT={tmp_path / 'runs'}"
    root.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (260, 300, 3), np.uint8)
    Image.fromarray(pixels).save(root / "scene.tif")
    (root / "reading.json").write_text('{"most_pixels": 70000}')  # 256 x 256 and a few more
    for number in range(others):
        Image.fromarray(pixels[:, number : number + 260]).save(root / f"{number}.jpg")  # larger than a window
    (root / "phone.DNG").touch()
    command = f"make tiles DATASET_ROOT='{root}' ARGS=--scenes"
    if others:
        for _ in range(2):  # when its features are made, and when they stand
            explorer = open_explorer({"DATASET_ROOT": str(root), "OUTPUT_ROOT": str(tmp_path / "runs")})
            assert capsys.readouterr().out.count(command) == 1
            assert explorer.notice.count(command) == explorer.hello()["notice"].count(command) == 1
            assert ". Left out: 1 .dng files (" in explorer.notice
        assert command in explorer.features.unreadable["scene.tif"]  # notebook 02's table
    else:
        assert main(["explore", f"DATASET_ROOT={root}", runs]) == 1
        assert capsys.readouterr().err.count(command) == 1
    assert main(["tiles", *(word.partition("=")[2] for word in shlex.split(command)[2:])]) == 0
    _, name, *given = shlex.split(re.search(r"next: (make explore .*?),", capsys.readouterr().out)[1])
    assert name == "explore"
    explorer = open_explorer(parameters([*given, runs]))
    assert len(explorer.archive) == 4 + others
    assert given[0] in explorer.notice.replace("'", "")  # the listing is kept where another encoder is advised
    assert " LISTING=" in explorer.notice.partition("What helps: ")[2].partition(" ENCODER")[0]
