"""Where the rows of a Parquet file lie on Earth, in whichever of the usual ways it says so."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rscir_lib.archive.archive import is_of_earth, on_earth
from rscir_lib.features.store import GeoJson

if TYPE_CHECKING:
    import pyarrow as pa

LONLAT = "OGC:CRS84"  # longitude and latitude in degrees, which GeoParquet means where it names no system
# Columns that hold places in files without metadata on them; names in any case, the first that is there
GEOMETRIES = ("geometry", "geom", "footprint", "wkb", "wkt")
POINTS = [
    (start + lon, start + lat)
    for start in ("", "centre_", "center_", "centroid_")
    for lon, lat in (("lon", "lat"), ("longitude", "latitude"), ("lng", "lat"))
]
NONE = "import without places: --geometry ''"


@dataclass(frozen=True)
class Places:
    """How a Parquet file says where its rows lie.

    Attributes:
        columns: One of geometries, two of longitude and latitude, or none.
        encoding: Of the geometries: "WKB", "WKT", or GeoArrow's name of their kind; "" for longitude and latitude.
        crs: Their coordinate system, as pyproj has it.
        note: What a reader should know: where places were taken from without being declared, or why there are none.
    """

    columns: tuple[str, ...] = ()
    encoding: str = ""
    crs: Any = None
    note: str = ""

    def footprints(self, table: "pa.Table", path: Path, first: int) -> list[GeoJson | None]:
        """GeoJSON in longitude and latitude, None for a row without a place; `first` is the number of its first row.

        Raises ValueError naming file, row and value for what is no place on Earth.
        """
        import geopandas
        import shapely
        from shapely.geometry import mapping

        values = [table.column(name).to_pylist() for name in self.columns]
        shapes = self._shapes(table, values)
        given = np.array([None not in row and row != (np.nan,) * len(row) for row in zip(*values, strict=True)])
        _refuse(given & shapely.is_missing(shapes), values, path, first, f"is no {self.encoding or 'place'}")
        moved = geopandas.GeoSeries(shapely.force_2d(shapes), crs=self.crs).to_crs(LONLAT)
        empty = (moved.is_empty | moved.isna()).to_numpy()
        west, south, east, north = moved.bounds.to_numpy().T
        with np.errstate(invalid="ignore"):
            good = (west >= -360) & (east <= 360) & (south >= -90) & (north <= 90) & np.isfinite(east - west)
        _refuse(~empty & ~good, values, path, first, "lies nowhere on Earth in longitude and latitude")
        over = (east - west > 180) & (not self.crs.is_geographic)  # some of its longitudes are a turn too small
        shapes = np.where(over, shapely.transform(moved, lambda xy: np.c_[xy[:, 0] % 360, xy[:, 1]]), moved)
        return [None if e else json.loads(json.dumps(mapping(on_earth(s)))) for s, e in zip(shapes, empty, strict=True)]

    def _shapes(self, table: "pa.Table", values: Sequence[Sequence[Any]]) -> np.ndarray:
        """(n,) geometries in the file's own coordinates, None for none and for what can't be read."""
        import geopandas
        import pyarrow as pa
        import shapely

        if not self.encoding:
            points = np.array(values, float).T  # None becomes NaN
            shapes = np.asarray(shapely.points(np.nan_to_num(points)), object)
            shapes[~np.isfinite(points).all(axis=1)] = None
            return shapes
        if self.encoding in ("WKB", "WKT"):
            read = shapely.from_wkb if self.encoding == "WKB" else shapely.from_wkt
            return read(np.array([*values[0], None], object)[:-1], on_invalid="ignore")
        column = table.column(self.columns[0])
        field = pa.field("geometry", column.type, metadata={"ARROW:extension:name": f"geoarrow.{self.encoding}"})
        return geopandas.GeoDataFrame.from_arrow(pa.table([column], pa.schema([field]))).geometry.to_numpy()


def _refuse(wrong: np.ndarray, values: Sequence[Sequence[Any]], path: Path, first: int, problem: str) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        value = ", ".join(repr(column[row])[:60] for column in values)
        raise ValueError(f"{path}: row {first + row}: the place {value} {problem}; mend the row, or {NONE}")


def find_places(schema: "pa.Schema", path: Path, geometry: str | None = None) -> Places:
    """How the file with this schema says places; geometry: the column to take, "" for none, None for the usual ones.

    Raises ValueError naming the file for metadata that isn't GeoParquet's and for an unknown coordinate system.
    """
    geo = _metadata(schema.metadata or {}, path)
    declared = geo.get("columns", {})
    lower = {name.lower(): name for name in schema.names}
    if geometry == "":
        return Places(note="none, as asked for")
    if geometry and geometry not in schema.names:
        raise ValueError(f"{path}: no column {geometry!r} for places; it has {', '.join(sorted(schema.names))}")
    usual = next((lower[name] for name in GEOMETRIES if name in lower), None)
    column = geometry or geo.get("primary_column") or usual
    points = next(([lower[lon], lower[lat]] for lon, lat in POINTS if {lon, lat} <= lower.keys()), None)
    if column is None and points:
        numbers = "int", "uint", "float", "double", "halffloat"
        if wrong := [name for name in points if not str(schema.field(name).type).startswith(numbers)]:
            return Places(note=f"none: {wrong[0]} holds {schema.field(wrong[0]).type}, no degrees")
        return Places(tuple(points), crs=_system(LONLAT, path), note=f"points, from the columns {' and '.join(points)}")
    if column is None:
        return Places(note="none: the file has neither geometries nor columns such as lon and lat")
    if column not in schema.names:
        raise ValueError(f"{path}: its metadata 'geo' names the column {column!r}, which isn't there; {NONE}")
    facts = declared.get(column) or _extension(schema.field(column))
    kind = str(schema.field(column).type)
    encoding = facts.get("encoding") or ("WKB" if "binary" in kind else "WKT" if "string" in kind else "")
    if not encoding:
        return Places(note=f"none: the column {column} holds {kind}, neither WKB nor WKT")
    crs = facts.get("crs", LONLAT)
    note = "" if facts else f"from the column {column}, taken as longitude and latitude: the file names no system"
    if crs is None:
        return Places(
            note=f"none: the coordinate system of {column} is unknown (crs null); GeoDataFrame.set_crs sets it"
        )
    system = _system(crs, path)
    if not is_of_earth(system):
        return Places(note=f"none: {system.name} is no coordinate system of the Earth")
    return Places((column,), encoding, system, note)


def _metadata(metadata: dict[bytes, bytes], path: Path) -> dict[str, Any]:
    """What GeoParquet says of its columns, {} where nothing does."""
    try:
        geo = json.loads(metadata.get(b"geo", b"{}"))
        columns = geo.get("columns", {} if not geo else None)
        if all(isinstance(value, dict) for value in columns.values()) and isinstance(
            geo.get("primary_column", ""), str
        ):
            return dict(geo)
        reason = f"columns {str(columns)[:60]}"
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        reason = str(error)
    again = "write it again with GeoDataFrame.to_parquet"
    raise ValueError(f"{path}: its metadata 'geo' is not as GeoParquet has it ({reason}); {again}, or {NONE}") from None


def _extension(field: "pa.Field") -> dict[str, Any]:
    """What a column of geometries says of itself, as Parquet and GeoArrow have it."""
    held = field.metadata or {}
    name = held.get(b"ARROW:extension:name", b"").decode(errors="replace")
    if not name.startswith("geoarrow."):
        return {}
    kind = name.removeprefix("geoarrow.")
    facts = {"encoding": kind.upper() if kind in ("wkb", "wkt") else kind}
    try:
        return facts | {
            k: v for k, v in json.loads(held.get(b"ARROW:extension:metadata") or b"{}").items() if k == "crs"
        }
    except (ValueError, AttributeError, RecursionError):
        return facts


def _system(crs: Any, path: Path) -> Any:
    import pyproj

    try:
        return pyproj.CRS.from_user_input(crs)
    except (pyproj.exceptions.CRSError, TypeError, ValueError, RecursionError):
        name = str(crs)[:80]
        known = "write the file in one that pyproj knows (GeoDataFrame.to_crs(4326))"
        raise ValueError(
            f"{path}: the coordinate system {name!r} of its places is not known; {known}, or {NONE}"
        ) from None
