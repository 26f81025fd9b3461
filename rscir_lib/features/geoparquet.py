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
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from rscir_lib.archive import Archive
from rscir_lib.archive.reading import open_raster
from rscir_lib.features import Features, store
from rscir_lib.features.features import MemoryShard
from rscir_lib.features.store import STAMPS, GeoJson, Shard, Stamp
from rscir_lib.storage.atomic import write_file

if TYPE_CHECKING:
    import pyarrow as pa

GEO = {"version": "1.1.0", "primary_column": "geometry"}  # without crs: longitude and latitude, OGC:CRS84
PROVENANCE = "rscir:provenance"
BATCH_ROWS = 8192  # rows that are read at a time, of which shards are put together


def write_geoparquet(features: Features, path: str | Path, archive: Archive | None = None) -> Path:
    """Write features, a row group a shard; memory holds one shard at a time.

    Args:
        features: Of images with or without a place.
        path: The file.
        archive: Whose files tell places and dates; without it the footprints that came with the features are written.

    Raises:
        ImportError: Without what the extra `scenes` installs.
        ValueError: For another archive.
    """
    import pyarrow.parquet as pq

    if archive is not None:
        import rasterio  # noqa: F401, which tells places and dates: without it, none would be written

        if not features.lie_as(archive):
            raise ValueError(
                f"the features are not those of {archive.name}, image by image: name the archive they are of"
            )
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
    columns = {
        "id": pa.string(),
        "class": pa.string(),
        "datetime": pa.timestamp("s"),
        "source": pa.string(),
        "geometry": pa.binary(),
        "embedding": pa.list_(pa.from_numpy_dtype(dtype), features.dim),
        **{name: pa.string() if name == "contents" else pa.int64() for name in STAMPS},
    }
    metadata = {
        "geo": json.dumps(geo),
        "emb:dimensions": str(features.dim),
        "emb:quantization": dtype.name,
        PROVENANCE: json.dumps(features.provenance),
    }
    fields = [pa.field(name, kind, nullable=name not in ("id", "embedding")) for name, kind in columns.items()]
    return pa.schema(fields, metadata)


def _table(
    shard: Shard | MemoryShard, schema: "pa.Schema", source: str | None, archive: Archive | None, first: int
) -> "pa.Table":
    """The rows of a shard whose first is image `first` of the archive."""
    import pyarrow as pa
    from shapely import to_wkb
    from shapely.geometry import shape

    images = range(first, first + shard.rows)
    places = [archive.footprint(i) for i in images] if archive else shard.footprints
    dates = [_date(archive, i) for i in images] if archive else [None] * shard.rows
    columns = [
        shard.files,
        shard.classes,
        dates,
        [source] * shard.rows,
        [place and to_wkb(shape(place)) for place in places],
        pa.FixedSizeListArray.from_arrays(np.asarray(shard.feats).ravel(), shard.feats.shape[1]),
        *zip(*shard.stamps, strict=True),
    ]
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, entry.type)
        for column, entry in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _date(archive: Archive, position: int) -> datetime | None:
    """When a GeoTIFF says that it was taken, or made."""
    try:
        date = open_raster(archive.path(position)).tags().get("TIFFTAG_DATETIME", "")
        return datetime.strptime(date, "%Y:%m:%d %H:%M:%S")
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
    source = _Source(path, embedding, id, class_)
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[Shard] = []
    try:
        for table in source.tables():
            first = sum(shard.rows for shard in shards)
            feats, changed = source.rows(table, first, shards[0].feats.shape[1] if shards else None)
            if changed and not source.ours:
                source.provenance["normalised"] = "at import"
            ids = source.ids(table, first), source.classes(table), source.stamps(table)
            places = source.footprints(table)
            shards.append(store.write_shard(folder, feats, *ids, source.provenance, footprints=places))
        if not shards:
            raise ValueError(f"{path}: no row")
        store.write_manifest(folder, shards, source.provenance, {})
    except BaseException:  # nothing half
        store.clean(folder)
        raise
    return folder


class _Source:
    """A file of embeddings, and the columns that hold what."""

    def __init__(self, path: Path, embedding: str, id: str, class_: str) -> None:
        """Raises ValueError for another kind of file, and one without the columns."""
        import pyarrow.parquet as pq

        self.path, self.embedding, self.id, self.class_ = path, embedding, id, class_
        try:
            self.file = pq.ParquetFile(path)
        except ValueError as error:
            raise ValueError(f"{path} is no Parquet file, or damaged: {error}") from None
        names = self.file.schema_arrow.names
        for use, column in (("embedding", embedding), ("id", id)):
            if column not in names:
                raise ValueError(f"{path}: no column {column!r} for {use}; it has {', '.join(sorted(names))}")
        metadata = {key.decode(): value.decode() for key, value in (self.file.schema_arrow.metadata or {}).items()}
        recorded, self.geo = (json.loads(metadata.get(key, "{}")) for key in (PROVENANCE, "geo"))
        self.ours = bool(recorded)
        self.provenance: dict[str, str] = recorded or {"encoder": "not recorded", "archive": path.name}
        place = self.geo.get("primary_column")
        self.place: str | None = place if place in names else None
        self.seen: set[str] = set()

    def has(self, *columns: str) -> bool:
        return {*columns} <= {*self.file.schema_arrow.names}

    def tables(self) -> Iterator["pa.Table"]:
        """The rows, a shard's worth at a time."""
        import pyarrow as pa

        wanted = [c for c in (self.id, self.embedding, self.class_, self.place, *STAMPS) if c and self.has(c)]
        batches, size = [], 0
        for batch in self.file.iter_batches(BATCH_ROWS, columns=wanted):
            batches.append(batch)
            size += batch.nbytes
            if size >= store.SHARD_BYTES:
                yield pa.Table.from_batches(batches)
                batches, size = [], 0
        if batches:
            yield pa.Table.from_batches(batches)

    def ids(self, table: "pa.Table", first: int) -> list[str]:
        ids = table.column(self.id).to_pylist()
        if None in ids:
            raise ValueError(f"{self.path}: row {first + ids.index(None)}: no {self.id}; give every row a name")
        for i in map(str, ids):
            if i in self.seen:
                raise ValueError(f"{self.path}: {self.id} {i!r} stands twice, the second time in row {first} or later")
            self.seen.add(i)
        return list(map(str, ids))

    def classes(self, table: "pa.Table") -> list[str]:
        if not self.has(self.class_):
            return [""] * len(table)
        return ["" if cls is None else str(cls) for cls in table.column(self.class_).to_pylist()]

    def stamps(self, table: "pa.Table") -> list[Stamp]:
        if not self.has(*STAMPS):
            return [store.UNKNOWN] * len(table)
        return list(map(Stamp, *(table.column(name).to_pylist() for name in STAMPS)))

    def rows(self, table: "pa.Table", first: int, dim: int | None) -> tuple[np.ndarray, bool]:
        """Rows (n, d) float32 or float16 of unit length, and whether they had another; dim: d of those before."""
        lists = table.column(self.embedding).combine_chunks()
        values = lists.flatten().to_numpy(zero_copy_only=False) if hasattr(lists, "flatten") else np.empty(0)
        lengths = np.asarray(lists.value_lengths().fill_null(-1)) if hasattr(lists, "value_lengths") else np.array([-1])
        dim = dim or int(lengths[0])
        wrong = np.flatnonzero(lengths != dim)
        if values.dtype.kind in "iu":
            raise ValueError(
                f"{self.path}: the embeddings are {values.dtype}: turn them into floats as their maker says"
            )
        if wrong.size or dim < 1 or values.dtype.kind != "f":
            row, expected = first + (int(wrong[0]) if wrong.size else 0), max(dim, 0) or "one or more"
            raise ValueError(f"{self.path}: row {row}: the embedding is no list of {expected} floats, as in other rows")
        feats = values.reshape(-1, dim)
        if feats.dtype.name not in store.DTYPES:
            feats = feats.astype(np.float32)
        norms = np.linalg.norm(feats.astype(np.float64), axis=1)
        bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
        if bad.size:
            length = norms[bad[0]]
            raise ValueError(f"{self.path}: row {first + bad[0]}: an embedding of length {length:g} has no direction")
        if (np.abs(norms - 1) < store.TOLERANCE).all():
            return np.ascontiguousarray(feats), False
        return (feats / norms[:, None]).astype(feats.dtype), True

    def footprints(self, table: "pa.Table") -> list[GeoJson | None] | None:
        """GeoJSON geometries in longitude and latitude; None for a file without a place."""
        crs = self.geo["columns"][self.place].get("crs", "OGC:CRS84") if self.place else None
        if crs is None:  # coordinates of an unknown system, says the format: no place either
            return None
        import geopandas
        import pyproj
        from shapely.geometry import mapping

        column = table.column(self.place).to_pylist()
        shapes = geopandas.GeoSeries.from_wkb(column, crs=pyproj.CRS.from_user_input(crs)).to_crs("OGC:CRS84")
        return [None if shape is None else json.loads(json.dumps(mapping(shape))) for shape in shapes]
