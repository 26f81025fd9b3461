"""One question to an archive: the same order as `evaluate`, whatever the similarities; and what is made of the hits."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import oracle
from rscir_lib.archive import Archive
from rscir_lib.encoders import load_encoder
from rscir_lib.features import Features, read_features, store
from rscir_lib.features import features as features_module
from rscir_lib.methods.pairwise import TwoSimilarities
from rscir_lib.methods.registry import METHODS
from rscir_lib.ranking import topk
from rscir_lib.search import Searcher, search, top_k
from rscir_lib.similarity import similarities

PAIRED = sorted(name for name, method in METHODS.items() if isinstance(method, TwoSimilarities))


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@st.composite
def archives(draw):
    """Features in a cloud or a cone, with duplicates, near-duplicates of one image and, sometimes, of all."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, d = draw(st.integers(2, 60)), draw(st.sampled_from([3, 8, 64]))
    feats = rng.normal(size=(n, d)) + draw(st.sampled_from([0.0, 3.0])) * rng.normal(size=d)
    near = rng.choice(n, draw(st.integers(0, n)), replace=False)
    feats[near] = feats[0] + draw(st.sampled_from([0, 1e-7, 1e-3])) * rng.normal(size=(len(near), d))
    return unit(feats), unit(rng.normal(size=d))


def exact_scores(feats, image, text, name, lam):
    """By the oracle, equal features given equal similarities."""
    s_image, s_text = ([oracle.dot(row, query) for row in feats] for query in (image, text))
    return np.array(oracle.scores(name, s_image, s_text, lam))


@settings(deadline=None)
@given(case=archives(), name=st.sampled_from(PAIRED), lam=st.sampled_from([0, 0.3, 0.95, 1]), top=st.integers(1, 70))
def test_top_k_is_the_head_of_the_exact_ranking(case, name, lam, top):
    feats, text = case
    image = feats[0]
    expected = exact_scores(feats, image, text, name, lam)
    positions, scores = top_k(feats, image, text, lam, top, name)
    assert len(positions) == min(top, len(feats)) == len(set(positions))
    assert (np.diff(scores) <= 0).all()
    # the same images up to float64's own rounding: no other order than that of scores which it can't tell apart
    assert expected[positions] == pytest.approx(-np.sort(-expected)[: len(positions)], rel=1e-9, abs=1e-11)
    ties = np.diff(scores) == 0
    assert (np.diff(positions)[ties] > 0).all()


@pytest.mark.parametrize("lam", [0, 0.5, 1])
@pytest.mark.parametrize("name", ["weicom", "zscore", "linear", "minmax"])
def test_a_hundred_near_duplicates_are_told_apart(name, lam):
    """100 near-duplicates in 30,400: z is 17, where the normal CDF is exactly 1."""
    rng = np.random.default_rng(0)
    feats = rng.normal(size=(30_400, 32))
    feats[::304] = feats[0] + 1e-3 * rng.normal(size=(100, 32))
    feats = unit(feats)
    image, text = feats[0], unit(rng.normal(size=32))
    exact = feats.astype(np.float64)
    method = METHODS[name]
    scores = method.score(*(torch.from_numpy(similarities(feats, query[None])) for query in (image, text)), lam)[
        0
    ].numpy()
    expected = np.argsort(-scores, kind="stable")[:20]
    positions, _ = top_k(feats, image, text, lam, 20, name)
    assert positions.tolist() == expected.tolist()
    if lam == 0:
        assert positions.tolist() == np.argsort(-(exact @ image), kind="stable")[:20].tolist()
        assert set(positions) <= set(range(0, 30_400, 304))


def test_few_exact_scores_are_enough(monkeypatch):
    """Of 30,400 images in a cloud, all but some hundred are ruled out by the bounds."""
    rng = np.random.default_rng(0)
    feats, text = unit(rng.normal(size=(30_400, 64)) + 1), unit(rng.normal(size=64))
    asked = []
    monkeypatch.setattr(topk, "similarities", lambda rows, pair: asked.append(len(rows)) or similarities(rows, pair))
    top_k(feats, feats[5], text, 0.5, 20)
    assert 20 <= sum(asked) < 300


def test_constant_similarities_are_in_archive_order():
    feats = unit(np.ones((50, 4)))
    for name in PAIRED:
        assert top_k(feats, feats[0], feats[0], 0.5, 10, name)[0].tolist() == list(range(10))


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("demo", device="cpu")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Twelve pictures of uneven sizes, names that need escaping, two classes."""
    root = tmp_path_factory.mktemp("archive")
    rng = np.random.default_rng(0)
    files = [f"{'sea' if i % 2 else 'town'}/a & <b> {i:02d}.png" for i in range(12)]
    for file in files:
        (root / file).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(root / file)
    return Archive(root, tuple(files), tuple(file.split("/")[0] for file in files))


@pytest.fixture(scope="module")
def features(archive, encoder):
    feats = np.concatenate(
        [encoder.encode_images(encoder.preprocess(archive.read(i))[None]) for i in range(len(archive))]
    )
    return Features.from_arrays(feats, archive.files, archive.classes, {"encoder": "demo", "archive": archive.name})


@pytest.fixture(scope="module")
def ask(features, encoder, archive):
    return Searcher(features, encoder, archive)


def test_hits_are_what_top_k_finds(ask, features, encoder, archive):
    hits = search(features, 3, " red   many ", 0.4, top=5, encoder=encoder, archive=archive)
    positions, scores = top_k(features.feats, features.feats[3], encoder.encode_texts(["red many"])[0], 0.4, 5)
    assert hits.table["position"].tolist() == positions.tolist()
    assert hits.table["rank"].tolist() == [1, 2, 3, 4, 5]
    assert hits.table["file"].tolist() == [archive.files[i] for i in positions]
    assert hits.table["class"].tolist() == [archive.classes[i] for i in positions]
    assert hits.table["score"].to_numpy() == pytest.approx(scores + 1)  # WeiCom's own scale
    mixed = 0.6 * hits.table["normal_image"] + 0.4 * hits.table["normal_text"]
    assert hits.table["score"].to_numpy() == pytest.approx(mixed.to_numpy())
    assert hits.table["cosine_image"].to_numpy() == pytest.approx(features.feats[positions] @ features.feats[3])
    assert hits.table["footprint"].isna().all()
    assert hits.question["text"] == "red many"


def test_an_image_from_anywhere(ask, archive, tmp_path):
    """A position, a file of the archive, a path outside it and a picture in memory are the same question."""
    by_position = ask(4, "red").table
    archive.read(4).save(tmp_path / "elsewhere.png")
    assert ask(archive.files[4], "red").table.equals(by_position)
    for image in (tmp_path / "elsewhere.png", str(tmp_path / "elsewhere.png"), archive.read(4)):
        found = ask(image, "red")
        assert found.table["file"].tolist() == by_position["file"].tolist()
        assert found.image.size == (60, 40)


@pytest.mark.parametrize("with_archive", [True, False])
def test_large_features_are_scanned_and_never_held(features, archive, encoder, with_archive, tmp_path, monkeypatch):
    """Hit for hit what is found with all of them in memory, but for the last digits of the moments."""
    archive = archive if with_archive else None
    parts, made = [slice(i, i + 5) for i in range(0, len(features), 5)], features.provenance
    shards = [
        store.write_shard(
            tmp_path, features.feats[part], store.columns(features.files[part], features.classes[part]), made
        )
        for part in parts
    ]
    store.write_manifest(tmp_path, shards, made, {})
    stored = read_features(tmp_path)
    asked = [
        (3, "red", 0.4, "weicom"), (features.files[7], "many", 0.9, "zscore"), (None, "red", 1, "weicom"),
        (11, None, 0, "linear"),
    ]  # fmt: skip
    held = Searcher(features, encoder, archive)
    expected = [held(*question, top=4) for question in asked]
    monkeypatch.setattr(features_module, "HELD_BYTES", 0)
    for what in ("feats", "files", "classes"):
        monkeypatch.setattr(Features, what, property(lambda self: pytest.fail("all names or rows were asked for")))
    scanned = Searcher(stored, encoder, archive)
    for question, of_held in zip(asked, expected, strict=True):
        found = scanned(*question, top=4)
        assert found.question == of_held.question
        pd.testing.assert_frame_equal(found.table, of_held.table, rtol=1e-12)
    if not with_archive:
        with pytest.raises(FileNotFoundError, match="nothing"):
            scanned("nothing.png", "red")
    with pytest.raises(ValueError, match="0 to 11"):
        scanned(12, "red")


def test_a_part_of_large_features_is_all_that_is_read(features, archive, encoder, tmp_path, monkeypatch):
    turned = archive.subset([7, 2, 9])
    expected = Searcher(features, encoder, turned)(0, "red", top=3)
    monkeypatch.setattr(features_module, "HELD_BYTES", 0)
    again = Features.from_arrays(features.feats, features.files, features.classes, features.provenance)
    monkeypatch.setattr(Features, "feats", property(lambda self: pytest.fail("all rows were asked for")))
    pd.testing.assert_frame_equal(Searcher(again, encoder, turned)(0, "red", top=3).table, expected.table)
    with pytest.raises(IndexError, match="position 12 is outside: there are 12 rows"):
        again.rows([3, 12])


def test_words_are_encoded_once(features, archive, encoder, monkeypatch):
    ask, asked = Searcher(features, encoder, archive), []
    monkeypatch.setattr(ask, "encode_texts", lambda texts: asked.extend(texts) or encoder.encode_texts(texts))
    for lam in (0.2, 0.4, 0.6):
        ask(0, "red", lam)
    assert asked == ["red"]


def test_one_modality_alone(ask):
    for method, lam in (("weicom", 0), ("image", 0.5)):
        alone = ask(2, "", lam, method)
        assert alone.table["position"][0] == 2
        assert alone.table["cosine_text"].isna().all()
    for method, lam in (("weicom", 1), ("text", 0.5)):
        alone = ask(None, "red", lam, method)
        assert alone.image is None
        assert alone.table["position"].tolist() == ask(7, "red", lam, method).table["position"].tolist()
        assert alone.table["cosine_image"].isna().all()


def test_every_method_answers(ask):
    for name in METHODS:
        assert sorted(ask(1, "red", 0.5, name, top=12).table["position"]) == list(range(12))


def test_without_archive_and_encoder(features):
    hits = search(features, 0, "red", top=3)  # the demo encoder is known by name
    assert len(hits) == 3
    with pytest.raises(ValueError, match="pass archive= to search"):
        hits.gallery()
    other = Features.from_arrays(features.feats, features.files, features.classes, {"encoder": "clip"})
    with pytest.raises(ValueError, match=r"pass encoder=, the one that made these features \(clip\)"):
        search(other, 0, "red")


def test_files_of_the_hits(ask, archive, tmp_path):
    with pytest.warns(UserWarning, match="has never seen 'script', 'alert'"):
        hits = ask(0, "<script>alert(1)</script>", top=4)
    read = pd.read_csv(hits.to_csv(tmp_path / "hits.csv"))
    assert read["file"].tolist() == hits.table["file"].tolist()
    page = hits.to_html(tmp_path / "hits.html").read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 1
    assert page.count('src="data:image/jpeg;base64,') == 5
    assert len(re.findall('alt="[^"]+"', page)) == 5
    assert not re.search(r"(src|href)=\"(?!data:)", page)  # self-contained
    for file in hits.table["file"]:
        assert file not in page  # but escaped
        assert file.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in page
    figure = hits.gallery()
    assert "4 images" in figure.description
    with pytest.raises(ValueError, match="none of the hits has a place on the ground"):
        hits.to_geojson(tmp_path / "hits.geojson")


def test_unknown_words_are_told(features, archive, encoder):
    class Knowing:
        name, preprocess = encoder.name, encoder.preprocess
        encode_texts, encode_images = encoder.encode_texts, encoder.encode_images

        def unknown_words(self, text):
            return ("qwxz",) if "qwxz" in text else ()

    ask = Searcher(features, Knowing(), archive)
    with pytest.warns(UserWarning, match="has never seen 'qwxz'"):
        hits = ask(0, "red qwxz")
    assert hits.unknown_words == ("qwxz",)


def test_geojson_lies_where_the_images_do(tmp_path, encoder):
    """GeoTIFFs in UTM: the polygons are in longitude and latitude, within a pixel, as a GIS library reads them."""
    rasterio, geopandas = pytest.importorskip("rasterio"), pytest.importorskip("geopandas")
    rng = np.random.default_rng(0)
    for i in range(3):
        transform = rasterio.transform.from_origin(500_000 + 320 * i, 4_200_000, 10, 10)
        with rasterio.open(
            tmp_path / f"{i}.tif", "w", driver="GTiff", width=32, height=32, count=3, dtype="uint8", crs="EPSG:32634",
            transform=transform,
        ) as file:  # fmt: skip
            file.write(rng.integers(0, 255, (3, 32, 32), dtype=np.uint8))
    archive = Archive(tmp_path, ("0.tif", "1.tif", "2.tif"), ("", "", ""))
    feats = np.concatenate([encoder.encode_images(encoder.preprocess(archive.read(i))[None]) for i in range(3)])
    features = Features.from_arrays(feats, archive.files, archive.classes)
    hits = search(features, 1, "red", encoder=encoder, archive=archive)
    path = hits.to_geojson(tmp_path / "hits.geojson")
    assert json.loads(path.read_text())["features"][0]["properties"]["file"] == hits.table["file"][0]
    read = geopandas.read_file(path)
    assert read.crs.to_epsg() == 4326
    back = read.to_crs("EPSG:32634").set_index("file").bounds
    for i in range(3):
        bounds = (500_000 + 320 * i, 4_199_680, 500_320 + 320 * i, 4_200_000)
        assert back.loc[f"{i}.tif"].tolist() == pytest.approx(bounds, abs=10)
