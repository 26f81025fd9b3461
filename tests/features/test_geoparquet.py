"""Features as GeoParquet: out and in again, read by others, others' files read."""

import json
import re
import sys

import geopandas
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import box, shape

from helpers import UTM, write_scene
from rscir_lib.apps.commands import cli
from rscir_lib.archive import read_archive
from rscir_lib.archive.tiles import read_scenes
from rscir_lib.encoders import load_encoder
from rscir_lib.features import extract_features, read_features, store
from rscir_lib.features.geoparquet import read_geoparquet, write_geoparquet
from rscir_lib.search import search

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # affine's, of rasterio's own code


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Nine tiles of a scene with a place and a date, and one picture without; their features."""
    root = tmp_path_factory.mktemp("tiles")
    values = write_scene(root / "scenes" / "scene.tif", **UTM)
    import rasterio

    with rasterio.open(root / "scenes" / "scene.tif", "r+") as file:
        file.update_tags(TIFFTAG_DATETIME="2024:05:28 10:20:30")
    from PIL import Image

    Image.fromarray((values[0] // 16).astype(np.uint8)).save(root / "scenes" / "plain.png")
    archive = read_scenes(root / "scenes", tile=300)
    folder = extract_features(archive, load_encoder("demo"), root / "features", dtype="float16")
    return archive, folder


@pytest.mark.slow
def test_out_and_in_again(tiles, tmp_path, monkeypatch):
    archive, folder = tiles
    features = read_features(folder, archive)
    written = write_geoparquet(features, tmp_path / "tiles.parquet", archive)
    table = geopandas.read_parquet(written)
    assert table["id"].tolist() == list(archive.files)
    placed = table["geometry"].notna()
    assert 0 < placed.sum() < len(table)
    for i in np.flatnonzero(placed):
        assert table["geometry"][i].equals_exact(shape(archive.footprint(i)), 1e-9)
    assert set(table["datetime"].dropna()) == {pd.Timestamp("2024-05-28 10:20:30")}
    assert np.array_equal(np.stack(table["embedding"]), next(features.shards()).feats)
    read = read_features(read_geoparquet(written, tmp_path / "again"), archive)
    assert read.provenance == features.provenance
    assert read.files == features.files
    assert [s.name for s in read.shards()] == [s.name for s in features.shards()]  # ids, stamps, provenance: all equal
    assert next(read.shards()).feats.tobytes() == next(features.shards()).feats.tobytes()
    assert read.named([0])[0][2] is None
    last = json.dumps(table["geometry"].iloc[-1].__geo_interface__)
    assert read.named([len(read) - 1])[0][2] == json.loads(last)
    assert extract_features(archive, load_encoder("demo"), tmp_path / "again", dtype="float16")  # they stand
    again = write_geoparquet(read, tmp_path / "again.parquet")  # places without the images
    assert geopandas.read_parquet(again)["geometry"].equals(table["geometry"])


def test_without_rasterio_no_place_is_left_out_in_silence(tiles, tmp_path, monkeypatch, capsys):
    archive, folder = tiles
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(ImportError, match="rasterio"):
        write_geoparquet(read_features(folder), tmp_path / "tiles.parquet", archive)
    words = ["geoparquet", "export", str(folder), str(tmp_path / "tiles.parquet"), "--archive", str(archive.root)]
    assert cli.main(words) == 1
    assert re.search(r"rasterio.*pip install .*scenes", capsys.readouterr().err)
    assert not (tmp_path / "tiles.parquet").exists()


def test_hits_of_features_alone_lie_on_the_map(tiles, tmp_path):
    archive, folder = tiles
    features = read_features(folder, archive)
    read = read_features(read_geoparquet(write_geoparquet(features, tmp_path / "a.parquet", archive), tmp_path / "a"))
    hits = search(read, len(read) - 1, None, lam=0, top=3)
    there = json.loads(hits.to_geojson(tmp_path / "hits.geojson").read_text())
    position = there["features"][0]["properties"]["position"]
    assert shape(there["features"][0]["geometry"]).equals_exact(shape(archive.footprint(position)), 1e-9)


@pytest.mark.slow
def test_embeddings_of_others(tmp_path, monkeypatch):
    """Not of unit length, float64, in other coordinates, in shards."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20_000, 4)) * 7
    table = geopandas.GeoDataFrame(
        {"chip": [f"c{i}" for i in range(len(rows))], "vector": list(rows)},
        geometry=[box(500_000 + i, 5_400_000, 500_010 + i, 5_400_010) for i in range(len(rows))],
        crs="EPSG:32633",
    )
    table.to_parquet(tmp_path / "theirs.parquet")
    monkeypatch.setattr(store, "SHARD_BYTES", 2**19)
    words = ["geoparquet", "import", str(tmp_path / "theirs.parquet"), str(tmp_path / "s")]
    assert cli.main([*words, "--embedding", "vector", "--id", "chip"]) == 0
    features = read_features(tmp_path / "s")
    assert len(list(features.shards())) > 1
    assert features.feats == pytest.approx(rows / np.linalg.norm(rows, axis=1, keepdims=True), abs=1e-6)
    assert features.provenance["encoder"] == "not recorded"
    assert features.provenance["normalised"] == "at import"
    last = shape(features.named([len(rows) - 1])[0][2]).bounds
    assert last == pytest.approx(table.geometry.iloc[[-1]].to_crs(4326).iloc[0].bounds, abs=1e-9)


@pytest.mark.parametrize(
    ("rows", "ids", "message"),
    [
        ([[1.0, 0.0], [0.0, 0.0]], ["a", "b"], "row 1: an embedding of length 0 has no direction"),
        ([[1.0, 0.0], [np.nan, 0.0]], ["a", "b"], "row 1: an embedding of length nan has no direction"),
        ([[1.0, 0.0], [1.0]], ["a", "b"], "row 1: the embedding is no list"),
        ([[1.0, 0.0], None], ["a", "b"], "row 1: the embedding is no list"),
        ([["x"], ["y"]], ["a", "b"], "row 0: the embedding is no list"),
        ([1.0, 2.0], ["a", "b"], "row 0: the embedding is no list"),
        ([[1.0, 0.0], [0.0, 1.0]], ["a", "a"], "id 'a' stands twice"),
        ([[1.0, 0.0], [0.0, 1.0]], ["a", None], "row 1: no id"),
        ([[1.0, 0.0], [0.0, 1.0], [1.0]], ["a", "b", "c"], "row 2: the embedding is no list of 2"),
    ],
)
def test_what_can_not_be_features(tmp_path, capsys, rows, ids, message):
    pd.DataFrame({"id": ids, "embedding": rows}).to_parquet(tmp_path / "bad.parquet")
    with pytest.raises(ValueError, match=message):
        read_geoparquet(tmp_path / "bad.parquet", tmp_path / "s")
    assert cli.main(["geoparquet", "import", str(tmp_path / "bad.parquet"), str(tmp_path / "s")]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_classes_of_any_type_and_places_in_no_known_coordinates(tmp_path):
    table = geopandas.GeoDataFrame({"id": ["a", "b"], "embedding": [[1.0, 0.0], [0.0, 1.0]], "class": [0, 1]},
                                   geometry=[box(5e5, 5e6, 6e5, 6e6)] * 2)  # fmt: skip
    table.to_parquet(tmp_path / "t.parquet")
    features = read_features(read_geoparquet(tmp_path / "t.parquet", tmp_path / "s"))
    assert features.classes == ("0", "1")
    assert features.named([0])[0][2] is None


def test_a_folder_that_holds_anything_is_left_alone(tmp_path):
    pd.DataFrame({"id": ["a"], "embedding": [[1.0, 0.0]]}).to_parquet(tmp_path / "t.parquet")
    (tmp_path / "s").mkdir()
    progress = tmp_path / "s" / f"{'0' * 16}.json"
    progress.write_text("{}")
    with pytest.raises(FileExistsError, match="name another folder"):
        read_geoparquet(tmp_path / "t.parquet", tmp_path / "s")
    assert progress.exists()


def test_other_files_and_folders(tiles, tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no such thing PAR1")
    with pytest.raises(ValueError, match=r"x\.parquet is damaged, or not what it should be"):
        read_geoparquet(tmp_path / "x.parquet", tmp_path / "s")
    pd.DataFrame({"id": ["a"], "other": [[1.0]]}).to_parquet(tmp_path / "y.parquet")
    with pytest.raises(ValueError, match="no column 'embedding' for embedding; it has id, other"):
        read_geoparquet(tmp_path / "y.parquet", tmp_path / "s")
    archive, folder = tiles
    with pytest.raises(FileExistsError, match="holds a store already"):
        read_geoparquet(tmp_path / "y.parquet", folder)
    with pytest.raises(ValueError, match="not those of scenes"):
        write_geoparquet(read_features(folder), tmp_path / "z.parquet", read_archive(archive.root))
    assert not (tmp_path / "z.parquet").exists()
