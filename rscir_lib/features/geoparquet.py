"""Features as GeoParquet, as embeddings of tiles are shipped: written from a store, read into one (`rscir geoparquet`).

Columns `id` (the file, with its window), `class`, `datetime` (as the file tells it), `source` (the encoder), `geometry`
(the footprint in longitude and latitude, WKB; null where a tile has no place), `embedding` (a list of d numbers), and
what the image file was (`sizes`, `mtimes_ns`, `contents`, its sha256); d and the numbers' type in the fields of STAC's
embedding extension, `emb:dimensions` and `emb:quantization`. Wants the extra `scenes`.
"""

import json
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from rscir_lib.archive import Archive
from rscir_lib.archive.archive import nameable, normal_path
from rscir_lib.archive.reading import open_raster
from rscir_lib.features import Features, store
from rscir_lib.features.places import NONE, find_places
from rscir_lib.features.store import STAMPS, Shard
from rscir_lib.similarity.gallery import MemoryShard
from rscir_lib.storage.atomic import UNFINISHED, write_file
from rscir_lib.storage.bounds import check_growth, of_file

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

GEO = {"version": "1.1.0", "primary_column": "geometry"}  # without crs: longitude and latitude, OGC:CRS84
PROVENANCE = "rscir:provenance"
# Rows, and bytes of embeddings, that are read at a time; shards are put together of them. More would be read at once
# of a file whose rows are long, as names and outlines are when one is repeated.
BATCH_ROWS, BATCH_BYTES = 1024, 2**25
# Bytes of a name, a class or an outline, some thousand points: one long value, repeated, is few bytes in a file
MOST_VALUE = 2**14
WEIGHT = 16  # bytes that a byte of names and outlines becomes, as Python's objects


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
    path: str | Path, folder: str | Path, embedding: str = "embedding", id: str = "id", geometry: str | None = None
) -> Path:
    """Make the store `folder` of a Parquet file's rows, and return the folder; memory holds one shard at a time.

    Args:
        path: The file. Its places become the features' footprints, in longitude and latitude: geometries as GeoParquet
            has them (WKB or native), plain WKB or WKT, or points in columns such as lon and lat. Where the file doesn't
            declare them, or has none that can be kept, `provenance["places"]` says so.
        folder: Empty, or not there yet.
        embedding: The column of lists of d floats; rows that are not of unit length are divided by their length.
        id: The column that names a row, each once: texts, as paths inside an archive, or whole numbers. A column
            `class` has its class, where there is one.
        geometry: The column of places, "" for none; None for that which the file declares, or a usual one.

    Raises:
        ValueError: Naming file, row and value for what can't be features, and for a file that would grow beyond
            `MOST_GROWTH`.
        FileExistsError: For a folder that holds anything.
    """
    path, folder = Path(path).expanduser(), Path(folder).expanduser()
    begun = folder / f".import{UNFINISHED}"  # by it the next import knows that this one was killed, and begins anew
    if begun.exists():
        store.clean(folder)
    if any(folder.glob("[!.]*")):
        raise FileExistsError(f"{folder} holds a store already, or something else: name another folder")
    file, schema = _opened(path, embedding, id)
    ours = _ours(schema, path)
    provenance = ours or {"encoder": "not recorded", "archive": path.name}
    places = find_places(schema, path, geometry)
    if places.note:
        provenance["places"] = places.note
    stamped = STAMPS if ours and {*STAMPS} <= {*schema.names} else ()
    columns = {embedding, id, *places.columns, *stamped, *({"class"} & {*schema.names})}
    shards: list[Shard] = []
    seen: set[str] = set()
    folder.mkdir(parents=True, exist_ok=True)
    begun.touch()
    try:
        for table in _tables(file, path, embedding, columns):
            first, dim = sum(shard.rows for shard in shards), shards[0].feats.shape[1] if shards else None
            feats, changed = _rows(table.column(embedding).combine_chunks(), path, first, dim)
            if changed and not ours:
                provenance["normalised"] = "at import"
            files = _names(table.column(id), path, id, first, seen)
            ids = store.columns(files, _classes(table, path, first))
            with of_file(path):
                ids |= {name: table.column(name).cast(schema.field(name).type).to_pylist() for name in stamped}
            if places.columns:
                ids["footprints"] = places.footprints(table, path, first)
            shards.append(store.write_shard(folder, feats, ids, provenance))
        if not shards:
            raise ValueError(f"{path}: no row; write a file that has some")
        store.write_manifest(folder, shards, provenance, {})
    except BaseException:  # nothing half
        store.clean(folder)
        raise
    return folder


def _opened(path: Path, embedding: str, id: str) -> tuple["pq.ParquetFile", "pa.Schema"]:
    """A Parquet file that has columns for embeddings and ids, perhaps classes, and its schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with of_file(path):
        schema = pq.read_schema(path)
        texts = [f.name for f in schema if str(f.type).removeprefix("large_") in ("string", "binary")]
        file = pq.ParquetFile(path, read_dictionary=texts)
    names = schema.names
    for use, column in (("embedding", embedding), ("id", id)):
        if column not in names:
            raise ValueError(
                f"{path}: no column {column!r} for {use}; it has {', '.join(sorted(names))}: --{use} says which"
            )
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{path}: two columns are called {twice[0]!r}; rename one")
    texts = [pa.types.is_string, pa.types.is_large_string, pa.types.is_integer]
    for column in {id, "class"} & {*names}:
        kind = schema.field(column).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        usual = [*texts, *[pa.types.is_floating, pa.types.is_boolean, pa.types.is_null] * (column == "class")]
        if not any(fits(kind) for fits in usual):
            with of_file(path):
                value = next(file.iter_batches(1, columns=[column])).column(0).to_pylist()[:1]
            wanted = f"row 0: {column} {str(value)[:80]} is of type {kind}; texts or whole numbers name rows"
            raise ValueError(f"{path}: {wanted}: turn it into texts, or name another column (--id)")
    return file, schema


def _ours(schema: "pa.Schema", path: Path) -> dict[str, str]:
    """The provenance of features that `write_geoparquet` wrote; {} for others."""
    try:
        ours = json.loads((schema.metadata or {}).get(PROVENANCE.encode(), b"{}"))
        if isinstance(ours, dict) and all(isinstance(value, str) for value in ours.values()):
            return ours
        reason = str(ours)[:60]
    except (ValueError, RecursionError) as error:
        reason = str(error)
    raise ValueError(f"{path}: its metadata {PROVENANCE!r} is no object of texts ({reason}); export it again")


def _tables(file: "pq.ParquetFile", path: Path, embedding: str, columns: Collection[str]) -> Iterator["pa.Table"]:
    """The rows of a Parquet file, a shard's worth at a time, none longer than memory holds."""
    import pyarrow as pa

    with of_file(path):
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        chunks = [group.column(j) for group in groups for j in range(group.num_columns)]
        used = [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns]
        lists = [chunk.num_values for chunk in used if chunk.path_in_schema.split(".")[0] == embedding]
    check_growth(path, sum(max(4 * chunk.num_values, chunk.total_uncompressed_size) for chunk in used))
    dim = max(sum(lists) // max(file.metadata.num_rows, 1), 1)
    batches, size, first = [], 0, 0
    readers = file.iter_batches(max(1, min(BATCH_ROWS, BATCH_BYTES // (4 * dim))), columns=sorted(columns))
    while True:
        with of_file(path):
            batch = next(readers, None)
        if batch is None:
            break
        batches.append(_plain(batch, path, first))
        first += len(batch)
        size += batch.column(embedding).nbytes + WEIGHT * (batches[-1].nbytes - batch.column(embedding).nbytes)
        if size >= store.SHARD_BYTES:
            yield pa.Table.from_batches(batches)
            batches, size = [], 0
    if batches:
        yield pa.Table.from_batches(batches)


def _plain(batch: "pa.RecordBatch", path: Path, first: int) -> "pa.RecordBatch":
    """A batch whose texts are in full, none longer than `MOST_VALUE`; its first row is row `first` of the file."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            if not pa.types.is_integer(column.type.value_type) and len(column.dictionary):
                longest = pc.binary_length(column.dictionary).to_numpy(zero_copy_only=False)
                if (longest > MOST_VALUE).any():
                    row = first + int(np.flatnonzero(longest[column.indices.fill_null(0).to_numpy()] > MOST_VALUE)[0])
                    limit = f"{name} has {longest.max():,} bytes, at most {MOST_VALUE:,} are taken"
                    raise ValueError(f"{path}: row {row}: {limit}; shorten or simplify it, or for places {NONE}")
            column = column.dictionary_decode()
        columns.append(column)
    return pa.record_batch(columns, batch.schema.names)


def _names(ids: "pa.ChunkedArray", path: Path, column: str, first: int, seen: set[str]) -> list[str]:
    """The names of the rows from `first` on, none of which is in `seen`, to which they are added."""
    names = []
    with of_file(path):  # of text that is no UTF-8
        values = ids.to_pylist()
    for row, value in enumerate(values, first):
        name = "" if value is None else str(value)
        if not name.strip():
            raise ValueError(f"{path}: row {row}: no {column}, but {value!r}; give every row a name")
        try:
            names.append(name := normal_path(name))
        except ValueError as error:
            raise ValueError(f"{path}: row {row}: {column} {error}") from None
        if name in seen:
            raise ValueError(f"{path}: row {row}: {column} {name!r} stands twice; name every row once")
        seen.add(name)
    return names


def _classes(table: "pa.Table", path: Path, first: int) -> list[str]:
    """The classes of rows as texts, "" for none."""
    with of_file(path):
        values = table.column("class").to_pylist() if "class" in table.column_names else [None] * len(table)
    classes = ["" if value is None or value != value else str(value) for value in values]
    if wrong := [row for row, cls in enumerate(classes, first) if not nameable(cls)]:
        value = classes[wrong[0] - first]
        raise ValueError(f"{path}: row {wrong[0]}: class {value!a} holds a line break or control character; mend it")
    return classes


def _rows(lists: "pa.Array", path: Path, first: int, dim: int | None) -> tuple[np.ndarray, bool]:
    """Rows (n, d) float32 or float16 of unit length, and whether they had another; dim: d of those before."""
    values, lengths = np.empty(0), np.array([-1])
    lists = getattr(lists, "storage", lists)  # of a column of tensors
    if hasattr(lists, "value_lengths") and not str(lists.type).startswith("map"):
        with of_file(path):
            values = lists.flatten().to_numpy(zero_copy_only=False)
            lengths = lists.value_lengths().fill_null(-1).to_numpy()
    if values.dtype.kind in "iu":
        raise ValueError(f"{path}: the embeddings are {values.dtype}: turn them into floats as their maker says")
    dim = dim or int(lengths[0])
    wrong = np.flatnonzero(lengths != dim)
    if wrong.size or dim < 1 or values.dtype.kind != "f":
        row, expected = int(wrong[0]) if wrong.size else 0, max(dim, 0) or "one or more"
        value = str(lists[row].as_py())[:40]
        other = f"{value} is there; mend the row, or name another column: --embedding"
        raise ValueError(f"{path}: row {first + row}: the embedding is no list of {expected} floats: {other}")
    feats = values.reshape(-1, dim)
    if feats.dtype.name not in store.DTYPES:
        feats = feats.astype(np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", feats, feats, dtype=np.float64))
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if bad.size:
        length = f"an embedding of length {norms[bad[0]]:g} has no direction"
        raise ValueError(f"{path}: row {first + bad[0]}: {length}; leave the row out, or mend it")
    if (np.abs(norms - 1) < store.TOLERANCE).all():
        return np.ascontiguousarray(feats), False
    return np.divide(feats, norms[:, None], out=np.empty_like(feats), casting="same_kind"), True
