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
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from rscir_lib.archive import Archive
from rscir_lib.archive.reading import open_raster
from rscir_lib.features import Features, store
from rscir_lib.features.store import STAMPS, Stamp
from rscir_lib.storage.atomic import write_file

GEO = {"version": "1.1.0", "primary_column": "geometry"}  # without crs: longitude and latitude, OGC:CRS84
OURS = "rscir:provenance"
EMPTY = Stamp(0, 0, "")  # of a file that isn't known


def write_geoparquet(features: Features, path: str | Path, archive: Archive | None = None) -> Path:
    """Write features, a row group a shard, with the footprints of the archive's files; without one, those that came
    with the features. Memory holds one shard at a time.

    Raises ImportError without what the extra `scenes` installs; ValueError for another archive.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from shapely import to_wkb
    from shapely.geometry import shape

    if archive is not None:
        import rasterio  # noqa: F401, which tells places and dates: without it, none would be written

        if not features.lie_as(archive):
            raise ValueError(
                f"the features are not those of {archive.name}, image by image: name the archive they are of"
            )
    dtype = next(features.shards()).feats.dtype
    stamps = [pa.field(name, pa.string() if name == "contents" else pa.int64()) for name in STAMPS]
    emb = {"emb:dimensions": str(features.dim), "emb:quantization": dtype.name, OURS: json.dumps(features.provenance)}
    geometry = {
        "encoding": "WKB",
        "geometry_types": [],
    }  # unknown: tiles are polygons, but what was imported may be points
    schema = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("class", pa.string()),
            pa.field("datetime", pa.timestamp("s")),
            pa.field("source", pa.string()),
            pa.field("geometry", pa.binary()),
            pa.field("embedding", pa.list_(pa.from_numpy_dtype(dtype), features.dim), nullable=False),
            *stamps,
        ],
        metadata={"geo": json.dumps(GEO | {"columns": {"geometry": geometry}})} | emb,
    )
    source = features.provenance.get("encoder")

    def write(file: object) -> None:
        first = 0
        with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=["class", "source"]) as writer:
            for shard in features.shards():
                rows = range(first, first + shard.rows)
                places = [archive.footprint(i) for i in rows] if archive else shard.footprints
                dates = [_date(archive, i) for i in rows] if archive else [None] * shard.rows
                columns = [
                    list(shard.files),
                    list(shard.classes),
                    dates,
                    [source] * shard.rows,
                    [place and to_wkb(shape(place)) for place in places],
                    pa.FixedSizeListArray.from_arrays(np.asarray(shard.feats).ravel(), features.dim),
                    *map(list, zip(*shard.stamps, strict=True)),
                ]
                arrays = [
                    column if isinstance(column, pa.Array) else pa.array(column, field.type)
                    for column, field in zip(columns, schema, strict=True)
                ]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=shard.rows)
                first += shard.rows

    return write_file(path, write)


def _date(archive: Archive, position: int) -> datetime | None:
    """When a GeoTIFF says that it was taken, or made."""
    try:
        told = open_raster(archive.path(position)).tags().get("TIFFTAG_DATETIME", "")
        return datetime.strptime(told, "%Y:%m:%d %H:%M:%S")
    except (OSError, ValueError):
        return None


def read_geoparquet(
    path: str | Path, folder: str | Path, embedding: str = "embedding", id: str = "id", class_: str = "class"
) -> Path:
    """Make the store `folder` of a GeoParquet file's rows, and return the folder; memory holds one shard at a time.

    embedding: the column of lists of d floats; rows that are not of unit length are divided by their length. id: what
    names a row, each once; class_: its class, which may be missing. Geometries become the features' footprints, in
    longitude and latitude. Raises ValueError naming file, row and value for what can't be features; FileExistsError
    for a folder that holds anything.
    """
    import pyarrow.parquet as pq

    path, folder = Path(path).expanduser(), Path(folder).expanduser()
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds a store already, or something else: name another folder")
    try:
        file = pq.ParquetFile(path)
    except ValueError as error:
        raise ValueError(f"{path} is no Parquet file, or damaged: {error}") from None
    names = set(file.schema_arrow.names)
    for what, column in (("embedding", embedding), ("id", id)):
        if column not in names:
            raise ValueError(f"{path}: no column {column!r} for {what}; it has {', '.join(sorted(names))}")
    metadata = {key.decode(): value.decode() for key, value in (file.schema_arrow.metadata or {}).items()}
    geo = json.loads(metadata.get("geo", "{}"))
    place = geo.get("primary_column") if geo.get("primary_column") in names else None
    made = json.loads(metadata.get(OURS, "{}")) or {"encoder": "not recorded", "archive": path.name}
    held = [c for c in (id, embedding, class_, place, *STAMPS) if c in names]
    folder.mkdir(parents=True, exist_ok=True)
    shards, seen, first, dim = [], set(), 0, None
    try:
        for table in _tables(file, held):
            feats, changed = _unit(table.column(embedding), path, first, dim)
            dim = feats.shape[1]
            if changed and OURS not in metadata:
                made["normalised"] = "at import"
            files = table.column(id).to_pylist()
            if None in files:
                raise ValueError(f"{path}: row {first + files.index(None)}: no {id}; give every row a name")
            files = list(map(str, files))
            twice = next((f for f in files if f in seen or seen.add(f)), None)
            if twice is not None:
                raise ValueError(f"{path}: {id} {twice!r} stands twice, the second time in row {first} or later")
            classes = table.column(class_).to_pylist() if class_ in names else [""] * len(files)
            stamps = [EMPTY] * len(files)
            if names.issuperset(STAMPS):
                stamps = list(map(Stamp, *(table.column(name).to_pylist() for name in STAMPS)))
            places = _footprints(table.column(place), geo, place) if place else None
            shards.append(
                store.write_shard(
                    folder,
                    feats,
                    files,
                    ["" if c is None else str(c) for c in classes],
                    stamps,
                    made,
                    footprints=places,
                )
            )
            first += len(files)
        if not shards:
            raise ValueError(f"{path}: no row")
        store.write_manifest(folder, shards, made, {})
    except BaseException:  # nothing half
        store.clean(folder)
        raise
    return folder


def _tables(file: object, columns: Sequence[str]) -> Iterator[object]:
    """The rows, a shard's worth at a time."""
    import pyarrow as pa

    held, size = [], 0
    for batch in file.iter_batches(8192, columns=list(columns)):
        held.append(batch)
        size += batch.nbytes
        if size >= store.SHARD_BYTES:
            yield pa.Table.from_batches(held)
            held, size = [], 0
    if held:
        yield pa.Table.from_batches(held)


def _unit(column: object, path: Path, first: int, dim: int | None) -> tuple[np.ndarray, bool]:
    """Rows (n, d) float32 or float16 of unit length, and whether they had another."""
    lists = column.combine_chunks()
    values = lists.flatten().to_numpy(zero_copy_only=False) if hasattr(lists, "flatten") else np.empty(0)
    lengths = np.asarray(lists.value_lengths().fill_null(-1)) if hasattr(lists, "value_lengths") else np.array([-1])
    dim = dim or int(lengths[0])
    wrong = np.flatnonzero(lengths != dim)
    if values.dtype.kind in "iu":
        raise ValueError(f"{path}: the embeddings are {values.dtype}: turn them into floats as their maker says")
    if wrong.size or dim < 1 or values.dtype.kind != "f":
        at = first + int(wrong[0]) if wrong.size else first
        raise ValueError(
            f"{path}: row {at}: the embedding is no list of {max(dim, 0) or 'one or more'} floats, as in other rows"
        )
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


def _footprints(column: object, geo: dict, name: str) -> list[dict | None]:
    """GeoJSON geometries in longitude and latitude."""
    import geopandas
    import pyproj
    from shapely.geometry import mapping

    told = geo["columns"][name].get("crs", "OGC:CRS84")
    if told is None:  # unknown, says the format: no place
        return [None] * len(column)
    shapes = geopandas.GeoSeries.from_wkb(column.to_pylist(), crs=pyproj.CRS.from_user_input(told)).to_crs("OGC:CRS84")
    return [None if shape is None else json.loads(json.dumps(mapping(shape))) for shape in shapes]
