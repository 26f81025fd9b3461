"""Features as GeoParquet, as embeddings of tiles are shipped: written from a store, read into one.

    rscir geoparquet export STORE FILE.parquet [--archive ROOT] [--listing CSV]
    rscir geoparquet import FILE.parquet STORE [--embedding COLUMN] [--id COLUMN]

Columns `id` (the file, with its window), `class`, `datetime` (as the file tells it), `source` (the encoder), `geometry`
(the footprint in longitude and latitude, WKB; null where a tile has no place), `embedding` (a list of d numbers), and
what the image file was (`sizes`, `mtimes_ns`, `contents`, its sha256); d and the numbers' type in the fields of STAC's
embedding extension, `emb:dimensions` and `emb:quantization`. GeoPandas, DuckDB and QGIS read it. Wants the extra
`scenes`.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from rscir_lib.archive import Archive
from rscir_lib.archive.reading import open_raster
from rscir_lib.features import Features, store
from rscir_lib.features.features import MemoryShard
from rscir_lib.features.store import STAMPS, GeoJson, Shard
from rscir_lib.storage.atomic import write_file

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

GEO = {"version": "1.1.0", "primary_column": "geometry"}  # without crs: longitude and latitude, OGC:CRS84
PROVENANCE = "rscir:provenance"
BATCH_ROWS = 8192  # rows that are read at a time, of which shards are put together


def write_geoparquet(features: Features, path: str | Path, archive: Archive | None = None) -> Path:
    """Write features, a row group a shard, and return the path; memory holds one shard at a time.

    archive: whose files tell places and dates; without it the footprints that came with the features are written.
    Raises ImportError without what the extra `scenes` installs, ValueError for another archive.
    """
    import pyarrow.parquet as pq

    if archive is not None:
        import rasterio  # noqa: F401, which tells places and dates: without it, none would be written

        if not features.lie_as(archive):
            raise ValueError(f"the features are not those of {archive.name}, image by image: name their own archive")
    schema = _schema(features)

    def write(file: BinaryIO) -> None:
        first = 0
        with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=["class", "source"]) as writer:
            for shard in features.shards():
                table = _table(shard, schema, features.provenance.get("encoder"), archive, first)
                writer.write_table(table, row_group_size=shard.rows)
                first += shard.rows

    return write_file(path, write)


def _schema(features: Features) -> "pa.Schema":
    import pyarrow as pa

    dtype = next(features.shards()).feats.dtype
    # The kinds of geometry are unknown: tiles are polygons, but what was imported may be points
    geo = GEO | {"columns": {"geometry": {"encoding": "WKB", "geometry_types": []}}}
    embedding = pa.list_(pa.from_numpy_dtype(dtype), features.dim)
    columns = {
        "id": pa.string(), "class": pa.string(), "datetime": pa.timestamp("s"), "source": pa.string(),
        "geometry": pa.binary(), "embedding": embedding, "sizes": pa.int64(), "mtimes_ns": pa.int64(),
        "contents": pa.string(),
    }  # fmt: skip
    facts = {"geo": json.dumps(geo), "emb:dimensions": str(features.dim), "emb:quantization": dtype.name}
    fields = [pa.field(name, kind, nullable=name not in ("id", "embedding")) for name, kind in columns.items()]
    return pa.schema(fields, facts | {PROVENANCE: json.dumps(features.provenance)})


def _table(
    shard: Shard | MemoryShard, schema: "pa.Schema", source: str | None, archive: Archive | None, first: int
) -> "pa.Table":
    """The rows of a shard whose first is image `first` of the archive."""
    import pyarrow as pa
    from shapely import to_wkb
    from shapely.geometry import shape

    images, ids = range(first, first + shard.rows), shard.ids
    places = [archive.footprint(i) for i in images] if archive else ids.get("footprints") or [None] * shard.rows
    columns = {
        "id": ids["files"],
        "class": ids["classes"],
        "datetime": [_date(archive.path(i)) for i in images] if archive else [None] * shard.rows,
        "source": [source] * shard.rows,
        "geometry": [place and to_wkb(shape(place)) for place in places],
        "embedding": pa.FixedSizeListArray.from_arrays(np.asarray(shard.feats).ravel(), shard.feats.shape[1]),
        **{name: ids[name] for name in STAMPS},
    }
    return pa.Table.from_pydict(columns, schema)


def _date(path: Path) -> datetime | None:
    """When a GeoTIFF says that it was taken, or made."""
    try:
        return datetime.strptime(open_raster(path).tags().get("TIFFTAG_DATETIME", ""), "%Y:%m:%d %H:%M:%S")
    except (OSError, ValueError):
        return None


def read_geoparquet(
    path: str | Path, folder: str | Path, embedding: str = "embedding", id: str = "id", class_: str = "class"
) -> Path:
    """Make the store `folder` of a GeoParquet file's rows, and return the folder; memory holds one shard at a time.

    Args:
        path: The file. Its geometries become the features' footprints, in longitude and latitude.
        folder: Empty, or not there yet.
        embedding: The column of lists of d floats; rows that are not of unit length are divided by their length.
        id: The column that names a row, each once.
        class_: The column of its class, which may be missing.

    Raises:
        ValueError: Naming file, row and value for what can't be features.
        FileExistsError: For a folder that holds anything.
    """
    path, folder = Path(path).expanduser(), Path(folder).expanduser()
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds a store already, or something else: name another folder")
    file = _opened(path, embedding, id)
    names, metadata = file.schema_arrow.names, file.schema_arrow.metadata or {}
    ours, geo = (json.loads(metadata.get(key, b"{}")) for key in (PROVENANCE.encode(), b"geo"))
    provenance = ours or {"encoder": "not recorded", "archive": path.name}
    place = geo.get("primary_column")
    # coordinates of an unknown system, which the format writes as null, are no place either
    crs = geo["columns"][place].get("crs", "OGC:CRS84") if place in names else None
    stamped, placed = STAMPS if {*STAMPS} <= {*names} else (), [place] if crs else []
    shards: list[Shard] = []
    seen: set[str] = set()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for table in _tables(file, [embedding, id, *placed, *stamped, *({class_} & {*names})]):
            first, dim = sum(shard.rows for shard in shards), shards[0].feats.shape[1] if shards else None
            feats, changed = _rows(table.column(embedding).combine_chunks(), path, first, dim)
            if changed and not ours:
                provenance["normalised"] = "at import"
            files = _names(table.column(id).to_pylist(), path, id, first, seen)
            classes = table.column(class_).to_pylist() if class_ in names else [None] * len(files)
            ids = store.columns(files, ["" if cls is None else str(cls) for cls in classes])
            ids |= {name: table.column(name).to_pylist() for name in stamped}
            if crs:
                ids["footprints"] = _footprints(table.column(place).to_pylist(), crs)
            shards.append(store.write_shard(folder, feats, ids, provenance))
        if not shards:
            raise ValueError(f"{path}: no row")
        store.write_manifest(folder, shards, provenance, {})
    except BaseException:  # nothing half
        store.clean(folder)
        raise
    return folder


def _opened(path: Path, embedding: str, id: str) -> "pq.ParquetFile":
    """A Parquet file that has these columns."""
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except ValueError as error:
        raise ValueError(f"{path} is no Parquet file, or damaged: {error}") from None
    names = file.schema_arrow.names
    for use, column in (("embedding", embedding), ("id", id)):
        if column not in names:
            raise ValueError(f"{path}: no column {column!r} for {use}; it has {', '.join(sorted(names))}")
    return file


def _tables(file: "pq.ParquetFile", columns: list[str]) -> Iterator["pa.Table"]:
    """The rows of a Parquet file, a shard's worth at a time."""
    import pyarrow as pa

    batches, size = [], 0
    for batch in file.iter_batches(BATCH_ROWS, columns=columns):
        batches.append(batch)
        size += batch.nbytes
        if size >= store.SHARD_BYTES:
            yield pa.Table.from_batches(batches)
            batches, size = [], 0
    if batches:
        yield pa.Table.from_batches(batches)


def _names(ids: list[Any], path: Path, column: str, first: int, seen: set[str]) -> list[str]:
    """The names of the rows from `first` on, none of which is in `seen`, to which they are added."""
    if None in ids:
        raise ValueError(f"{path}: row {first + ids.index(None)}: no {column}; give every row a name")
    names = list(map(str, ids))
    for name in names:
        if name in seen:
            raise ValueError(f"{path}: {column} {name!r} stands twice, the second time in row {first} or later")
        seen.add(name)
    return names


def _rows(lists: "pa.Array", path: Path, first: int, dim: int | None) -> tuple[np.ndarray, bool]:
    """Rows (n, d) float32 or float16 of unit length, and whether they had another; dim: d of those before."""
    values, lengths = np.empty(0), np.array([-1])
    if hasattr(lists, "value_lengths"):
        values, lengths = lists.flatten().to_numpy(zero_copy_only=False), lists.value_lengths().fill_null(-1).to_numpy()
    if values.dtype.kind in "iu":
        raise ValueError(f"{path}: the embeddings are {values.dtype}: turn them into floats as their maker says")
    dim = dim or int(lengths[0])
    wrong = np.flatnonzero(lengths != dim)
    if wrong.size or dim < 1 or values.dtype.kind != "f":
        row, expected = first + (int(wrong[0]) if wrong.size else 0), max(dim, 0) or "one or more"
        raise ValueError(f"{path}: row {row}: the embedding is no list of {expected} floats, as in other rows")
    feats = values.reshape(-1, dim)
    if feats.dtype.name not in store.DTYPES:
        feats = feats.astype(np.float32)
    norms = np.linalg.norm(feats.astype(np.float64), axis=1)
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if bad.size:
        raise ValueError(f"{path}: row {first + bad[0]}: an embedding of length {norms[bad[0]]:g} has no direction")
    if (np.abs(norms - 1) < store.TOLERANCE).all():
        return np.ascontiguousarray(feats), False
    return (feats / norms[:, None]).astype(feats.dtype), True


def _footprints(places: list[bytes | None], crs: Any) -> list[GeoJson | None]:
    """GeoJSON geometries, in longitude and latitude, of WKB in a coordinate system."""
    import geopandas
    import pyproj
    from shapely.geometry import mapping

    shapes = geopandas.GeoSeries.from_wkb(places, crs=pyproj.CRS.from_user_input(crs)).to_crs("OGC:CRS84")
    return [None if shape is None else json.loads(json.dumps(mapping(shape))) for shape in shapes]
