"""Parquet files as people have them: each is imported with its places, or refused in a sentence that names the file."""

import json
from collections import Counter
from functools import partial

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from rscir_lib.apps.commands import cli
from rscir_lib.features import read_features
from rscir_lib.features.geoparquet import read_geoparquet
from rscir_lib.storage.bounds import FREE_BYTES, check_growth
from test_bombs import holds, measured

N = 4
ROWS = np.eye(N, 8, dtype=np.float32)
BOXES = [shapely.box(10 + i, 50, 10.5 + i, 50.5) for i in range(N)]
WKB = shapely.to_wkb(BOXES).tolist()
IDS = [f"tile {i}" for i in range(N)]
EMBEDDING = pa.array(ROWS.tolist(), pa.list_(pa.float32()))


def described(**facts):
    """Metadata as GeoParquet has it, with other facts on the column."""
    column = {"encoding": "WKB", "geometry_types": []} | facts
    return {"geo": json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}})}


def write(path, metadata=None, **columns):
    table = pa.table({"id": IDS, "embedding": EMBEDDING} | {name: c for name, c in columns.items() if c is not None})
    pq.write_table(table.replace_schema_metadata(metadata or {}), path)


def with_one(value, at=2):
    return [*IDS[:at], value, *IDS[at + 1 :]]


# what one file has that is wrong, by kind; "" where it is taken as it is
NAMES = {
    "line break": (with_one("a\nb"), "row 2: id 'a\\nb': a line break"),
    "carriage return": (with_one("a\rb"), "row 2: id"),
    "NUL": (with_one("a\0b"), "row 2: id"),
    "line separator": (with_one("a\u2028b"), "row 2: id"),
    "above the root": (with_one("../../etc/passwd"), "row 2: id '../../etc/passwd' is not a path inside"),
    "absolute": (with_one("/etc/passwd"), "row 2: id '/etc/passwd' is not a path"),
    "of Windows": (with_one("C:\\a"), "row 2: id 'C:\\\\a'"),
    "two points": (with_one(".."), "row 2: id '..'"),
    "empty": (with_one(""), "row 2: no id, but ''; give every row a name"),
    "blank": (with_one(" \t"), "row 2: no id"),
    "null": (with_one(None), "row 2: no id"),
    "twice": (with_one("tile 1"), "row 2: id 'tile 1' stands twice"),
    "twice, in another spelling": (with_one("./tile 1"), "row 2: id 'tile 1' stands twice"),
    "long": (with_one("x" * 20_000), "row 2: id has 20,000 bytes, at most 16,384"),
    "lists": ([[1], [2], [3], [4]], "row 0: id [[1]] is of type list<"),
    "structs": ([{"a": i} for i in range(N)], "is of type struct<"),
    "bytes": ([b"a", b"b", b"\xff", b"d"], "is of type binary"),
    "fixed bytes": (pa.array([b"ab", b"cd", b"ef", b"gh"], pa.binary(2)), "is of type fixed_size_binary"),
    "fractions": ([1.0, 2.0, float("nan"), 4.0], "is of type double"),
    "truth": ([True, False, None, None], "is of type bool"),
    "dates": (pa.array([1, 2, 3, 4], pa.timestamp("s")), "is of type timestamp"),
    "nothing": (pa.nulls(N), "is of type null"),
    "numbers": (list(range(N)), ""),
    "a dictionary": (pa.array(IDS).dictionary_encode(), ""),
    "large texts": (pa.array(IDS, pa.large_string()), ""),
    "Chinese": (with_one("机场/1.tif"), ""),
    "windows": (with_one("a/scene.tif#0,0,16,16"), ""),
}
EMBEDDINGS = {
    "structs": (pa.array([{"a": 1.0}] * N), "row 0: the embedding is no list"),
    "texts": (pa.array(["[1, 0]"] * N), "row 0: the embedding is no list"),
    "bytes": (pa.array([b"\0" * 32] * N), "row 0: the embedding is no list"),
    "numbers": (pa.array([1.0] * N), "row 0: the embedding is no list"),
    "nulls": (pa.nulls(N), "row 0: the embedding is no list"),
    "lists of null": (pa.array([[None]] * N), "row 0"),
    "one null": (pa.array([[1.0], None, [1.0], [1.0]]), "row 1: the embedding is no list of 1 floats: None"),
    "one null in fixed lists": (pa.array([[1.0], None, [1.0], [1.0]], pa.list_(pa.float32(), 1)), "row 1: the emb"),
    "one shorter": (
        pa.array([[1.0, 0], [1.0], [1.0, 0], [1.0, 0]]),
        "row 1: the embedding is no list of 2 floats: [1.0]",
    ),
    "empty lists": (pa.array([[]] * N, pa.list_(pa.float32())), "row 0: the embedding is no list of one or more"),
    "a number missing": (pa.array([[1.0, None]] * N), "row 0: an embedding of length nan"),
    "infinite": (pa.array([[1.0, np.inf]] * N), "row 0: an embedding of length inf"),
    "zero": (pa.array([[0.0, 0.0]] * N), "row 0: an embedding of length 0 has no direction"),
    "whole numbers": (pa.array([[1, 0]] * N), "turn them into floats"),
    "lists of lists": (pa.array([[[1.0]]] * N), "row 0: the embedding is no list"),
    "maps": (pa.array([[("a", 1.0)]] * N, pa.map_(pa.string(), pa.float32())), "row 0: the embedding is no list"),
    "halves": (pa.array(ROWS.astype(np.float16).tolist(), pa.list_(pa.float16())), ""),
    "doubles": (pa.array((ROWS * 3.0).tolist(), pa.list_(pa.float64())), ""),
    "large lists": (pa.array(ROWS.tolist(), pa.large_list(pa.float32())), ""),
    "fixed lists": (pa.array(ROWS.tolist(), pa.list_(pa.float32(), 8)), ""),
    "tensors": (pa.FixedShapeTensorArray.from_numpy_ndarray(ROWS.reshape(N, 2, 4)), ""),
}
CLASSES = {
    "a line break": (["a", "b\nc", "d", "e"], "row 1: class 'b\\nc' holds a line break"),
    "lists": ([["a"]] * N, "is of type list<"),
    "bytes": ([b"\xff"] * N, "is of type binary"),
    "fractions and none": ([1.5, None, float("nan"), 2.0], ""),
    "truth": ([True, False, None, True], ""),
    "nothing": (pa.nulls(N), ""),
}
LUNAR = (
    'GEOGCS["Moon 2000",DATUM["D_Moon_2000",SPHEROID["Moon_2000",1737400,0]],PRIMEM["0",0],UNIT["degree",0.0174533]]'
)
LOCAL = 'LOCAL_CS["site",UNIT["metre",1]]'
# column, metadata, what is said; "" where places are kept, "none: ..." where they aren't and the store says why
PLACES = {
    "declared": (WKB, described(), ""),
    "a CRS by number": (WKB, described(crs="EPSG:4326"), ""),
    "a CRS nobody knows": (WKB, described(crs="EPSG:99999"), "system 'EPSG:99999' of its places is not known"),
    "a CRS that is a list": (WKB, described(crs=[1]), "system '[1]' of its places is not known"),
    "an unknown CRS": (WKB, described(crs=None), "none: the coordinate system of geometry is unknown"),
    "on the Moon": (WKB, described(crs=LUNAR), "none: Moon 2000 is no coordinate system of the Earth"),
    "in a local system": (WKB, described(crs=LOCAL), "none: site is no coordinate system"),
    "no WKB in a row": ([b"xx", *WKB[1:]], described(), "row 0: the place b'xx' is no WKB; mend the row, or import"),
    "WKB cut short": ([*WKB[:3], WKB[3][:20]], described(), "row 3: the place"),
    "metres taken for degrees": (
        [shapely.to_wkb(shapely.box(5e5, 5e6, 6e5, 6e6))] * N, described(), "row 0: the place b'\\x01\\x03"),
    "infinite": ([shapely.to_wkb(shapely.Point(np.inf, 1))] * N, described(), "row 0: the place"),
    "an outline of many points": (
        [shapely.to_wkb(shapely.Point(0, 0).buffer(1, 1000))] * N, described(), "row 0: geometry has 64"),
    "no columns in the metadata": (WKB, {"geo": '{"primary_column": "geometry"}'}, "is not as GeoParquet has it"),
    "metadata that is no JSON": (WKB, {"geo": "{"}, "is not as GeoParquet has it"),
    "metadata that is a list": (WKB, {"geo": "[1]"}, "is not as GeoParquet has it"),
    "metadata without end": (WKB, {"geo": "[" * 100_000}, "is not as GeoParquet has it"),
    "columns that are texts": (WKB, {"geo": '{"columns": {"geometry": "WKB"}}'}, "is not as GeoParquet has it"),
    "another primary column": (WKB, {"geo": '{"primary_column": "g", "columns": {}}'}, "the column 'g', which"),
    "metadata that is no UTF-8": (WKB, {b"x": b"\xff\xfe", **{k.encode(): v for k, v in described().items()}}, ""),
    "some rows without": ([WKB[0], None, *WKB[2:]], described(), ""),
    "an empty shape": ([*WKB[:3], shapely.to_wkb(shapely.Polygon())], described(), ""),
    "WKB alone": (WKB, None, ""),
    "WKT": ([shape.wkt for shape in BOXES], None, ""),
    "no WKT": (["here", *(shape.wkt for shape in BOXES[1:])], None, "row 0: the place 'here' is no WKT"),
    "numbers": ([1.0] * N, None, "none: the column geometry holds double, neither WKB nor WKT"),
}  # fmt: skip


def files(kind, cases, column):
    for name, (values, *rest) in cases.items():
        metadata, words = rest if len(rest) == 2 else (None, rest[0])
        columns = {column: values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)}
        yield pytest.param(partial(write, metadata=metadata, **columns), words, id=f"{kind}: {name}")


FILES = [
    *files("id", NAMES, "id"), *files("embedding", EMBEDDINGS, "embedding"), *files("class", CLASSES, "class"),
    *files("places", PLACES, "geometry"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), FILES)
def test_imported_or_refused_in_a_sentence(tmp_path, capsys, make, words):
    path, folder = tmp_path / "theirs.parquet", tmp_path / "store"
    make(path)
    code = cli.main(["geoparquet", "import", str(path), str(folder)])
    said = capsys.readouterr()
    if words and not words.startswith("none"):
        assert code == 1
        assert words in said.err
        assert str(path) in said.err
        assert said.err.startswith("error: ")
        assert said.err.count("\n") == 1
        assert len(said.err) < 600
        assert any(remedy in said.err for remedy in ("; ", ": turn", "--"))
        assert not folder.exists() or not any(folder.iterdir())
        return
    assert code == 0
    features = read_features(folder)
    assert len(features) == N
    assert features.provenance.get("places", "").startswith("none") == bool(words or "geometry" not in make.keywords)
    assert words in features.provenance.get("places", "")
    assert f"places: {features.provenance.get('places', 'as declared')}" in said.out


def test_so_many_files():
    kinds = Counter(case.id.split(":")[0] for case in FILES)
    print(f"{len(FILES)} files: {', '.join(f'{count} of {kind}' for kind, count in kinds.items())}")
    assert len(FILES) >= 75


SHAPES = {
    "point": shapely.points([10, 11, 12, 13], 50.0),
    "linestring": [shapely.LineString([(10, 50), (11, 51)])] * N,
    "polygon": BOXES,
    "multipoint": [shapely.MultiPoint([(10, 50), (11, 51)])] * N,
    "multilinestring": [shapely.MultiLineString([[(10, 50), (11, 51)]])] * N,
    "multipolygon": [shapely.MultiPolygon(BOXES)] * N,
}


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32633", "EPSG:3857"])
@pytest.mark.parametrize("encoding", ["geoarrow", "WKB"])
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.slow
def test_every_kind_of_geometry(tmp_path, kind, encoding, crs):
    frame = geopandas.GeoDataFrame({"id": IDS, "embedding": ROWS.tolist()}, geometry=list(SHAPES[kind]), crs=4326)
    frame.to_crs(crs).to_parquet(tmp_path / "a.parquet", geometry_encoding=encoding)
    features = read_features(read_geoparquet(tmp_path / "a.parquet", tmp_path / "s"))
    for (_, _, place), expected in zip(features.named(range(N)), SHAPES[kind], strict=True):
        assert shapely.geometry.shape(place).equals_exact(expected, 1e-7)
    assert "places" not in features.provenance


@pytest.mark.parametrize(
    "names",
    [
        ("lat", "lon"),
        ("Latitude", "Longitude"),
        ("lat", "lng"),
        ("centre_lat", "centre_lon"),
        ("center_lat", "center_lon"),
    ],
)
def test_points_in_columns(tmp_path, names):
    write(tmp_path / "a.parquet", **{names[0]: [50.0, None, 52.0, 53.0], names[1]: [10.0, 11.0, 190.0, -181.0]})
    features = read_features(read_geoparquet(tmp_path / "a.parquet", tmp_path / "s"))
    assert [place and place["coordinates"] for _, _, place in features.named(range(N))] == [
        [10, 50], None, [-170, 52], [179, 53],
    ]  # fmt: skip
    assert features.provenance["places"] == f"points, from the columns {names[1]} and {names[0]}"
    write(tmp_path / "b.parquet", **{names[0]: [50.0, 91.0, 52.0, 53.0], names[1]: [10.0] * N})
    with pytest.raises(ValueError, match=r"b\.parquet: row 1: the place 10\.0, 91\.0 lies nowhere on Earth"):
        read_geoparquet(tmp_path / "b.parquet", tmp_path / "t")


def test_over_the_antimeridian(tmp_path):
    """A polygon of a projected system is cut in two, and isn't 359 degrees wide."""
    frame = geopandas.GeoDataFrame(
        {"id": IDS, "embedding": ROWS.tolist()},
        geometry=[shapely.box(595_000, 8e6, 610_000, 8_010_000)] * N,
        crs="EPSG:32660",
    )
    frame.to_parquet(tmp_path / "a.parquet")
    place = shapely.geometry.shape(
        read_features(read_geoparquet(tmp_path / "a.parquet", tmp_path / "s")).named([0])[0][2]
    )
    assert place.geom_type == "MultiPolygon"
    assert sum(part.bounds[2] - part.bounds[0] for part in place.geoms) < 1


def test_remedies_work(tmp_path, capsys):
    write(tmp_path / "a.parquet", described(crs="EPSG:99999"), geometry=pa.array(WKB))
    words = ["geoparquet", "import", str(tmp_path / "a.parquet"), str(tmp_path / "s")]
    assert cli.main(words) == 1
    assert "--geometry ''" in capsys.readouterr().err
    assert cli.main([*words, "--geometry", ""]) == 0
    assert read_features(tmp_path / "s").provenance["places"] == "none, as asked for"
    write(tmp_path / "b.parquet", id=pa.array([1.0, 2.0, 3.0, 4.0]), name=pa.array(IDS))
    words = ["geoparquet", "import", str(tmp_path / "b.parquet"), str(tmp_path / "t")]
    assert cli.main(words) == 1
    assert "(--id)" in capsys.readouterr().err
    assert cli.main([*words, "--id", "name"]) == 0


def repeated(path, rows, value):
    """Rows whose values are all equal, but for their numbers."""
    columns = {"id": pa.array(range(rows)), "embedding": pa.array([[1.0, 0.0]] * rows, pa.list_(pa.float32(), 2))}
    pq.write_table(pa.table(columns | value(rows)), path, compression="zstd")


def long_rows(rows, numbers=200_000):
    values = pa.array(np.tile(np.eye(1, numbers, dtype=np.float32)[0], 50))
    return {"embedding": pa.FixedSizeListArray.from_arrays(values, numbers).take(pa.array([0] * rows))}


def one_value(column, value, rows):
    return {column: pa.DictionaryArray.from_arrays([0] * rows, [value])}


CIRCLE = shapely.to_wkb(shapely.Point(0, 0).buffer(1, 9000))
BOMBS = {
    "rows": (500, long_rows, "times as many: it repeats a few values"),
    "classes": (20_000, partial(one_value, "class", "x" * 1_000_000), "row 0: class has 1,000,000 bytes"),
    "places": (20_000, partial(one_value, "geometry", CIRCLE), "row 0: geometry has"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_few_bytes_stay_few(tmp_path, name):
    rows, value, words = BOMBS[name]
    repeated(tmp_path / "bomb.parquet", rows, value)
    read_geoparquet_warm(tmp_path)
    holds(tmp_path / "bomb.parquet", words, measured(read_geoparquet, tmp_path / "bomb.parquet", tmp_path / "store"))
    assert not list((tmp_path / "store").glob("*"))


def read_geoparquet_warm(folder):
    """Arrow's and GDAL's own memory isn't the file's."""
    write(folder / "warm.parquet")
    read_geoparquet(folder / "warm.parquet", folder / "warm")


def test_what_does_not_shrink_is_no_bomb(tmp_path):
    check_growth(tmp_path, FREE_BYTES)
    rows = np.random.default_rng(0).normal(size=(3000, 64)).astype(np.float32)
    ids = pa.array(range(len(rows)))
    pq.write_table(pa.table({"id": ids, "embedding": pa.array(rows.tolist())}), tmp_path / "a.parquet")
    assert len(read_features(read_geoparquet(tmp_path / "a.parquet", tmp_path / "s"))) == 3000
