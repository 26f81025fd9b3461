"""Where the things of a run lie: its dataset, its encoder, and a folder of its own that says whose it is."""

import sys
from pathlib import Path
from typing import Any

from rscir_lib.storage.atomic import read_json, write_json
from rscir_lib.storage.digests import sha256_of
from rscir_lib.storage.project import ROOT

# the parameters that a run folder is named by; runs that differ in one of them never share a folder
IDENTITY = ("OUTPUT_ROOT", "DATASET_ROOT", "ENCODER", "ARCHITECTURE", "LISTING", "PROTOCOL", "PRECISION")
# parameters that are paths, where "" leaves one out; ENCODER is one where it names a folder
PATHS = ("DATASET_ROOT", "OUTPUT_ROOT", "MODELS_ROOT", "LISTING", "FEATURES", "QUERY_IMAGE", "RUNS_FOLDER")
DIGITS = 16  # of a sha256 that tells places and contents apart: 64 bits, so that no two of a person's runs collide


def from_root(path: str) -> Path | None:
    """The absolute path of a path parameter, where relative ones count from the project's root; None for ""."""
    return (ROOT / Path(path).expanduser()).resolve() if path else None


def dataset_root(DATASET_ROOT: str = "") -> Path:
    """The dataset folder that a notebook's DATASET_ROOT means; "" is the bundled benchmark, drawn by notebook 01."""
    return (ROOT / Path(DATASET_ROOT or "data/synthcom").expanduser()).resolve()


def encoder_folder(ENCODER: str, start: Path = ROOT) -> Path | None:
    """The folder that an ENCODER means, relative to `start`; None for "demo" and whatever else is published by a name."""
    folder = (start / Path(ENCODER).expanduser()).resolve()
    if "/" in ENCODER:
        from rscir_lib.encoders.hub import published_as

        return None if not folder.exists() and published_as(ENCODER) else folder
    if ENCODER in ("", "demo") or not folder.is_dir():
        return None
    from rscir_lib.encoders import ENCODERS

    return None if ENCODER in ENCODERS else folder


def run_folder(
    OUTPUT_ROOT: str = "",
    DATASET_ROOT: str = "",
    ENCODER: str = "demo",
    ARCHITECTURE: str = "",
    LISTING: str = "",
    PROTOCOL: str = "released",
    PRECISION: str = "float32",
) -> Path:
    """The folder of a run, made if need be, with `features/`, `tables/`, `figures/`, `notebooks/` inside.

    It is called `<OUTPUT_ROOT>/<dataset>_<encoder>`, and after that architecture, listing, protocol and precision where
    they are not the default; OUTPUT_ROOT "" is `runs/` in the project. `run.json` in it names the run. Raises ValueError
    where the folder is that of another run: with another dataset or encoder of the same name.
    """
    dataset, encoder, listing = dataset_root(DATASET_ROOT), encoder_folder(ENCODER) or ENCODER, from_root(LISTING) or ""
    parts = [dataset.name, Path(encoder).name, ARCHITECTURE, Path(listing).stem]
    parts += [PROTOCOL if PROTOCOL != "released" else "", PRECISION if PRECISION != "float32" else ""]
    run = (ROOT / Path(OUTPUT_ROOT or "runs").expanduser()).resolve() / "_".join(part for part in parts if part)
    own = {"dataset": dataset, "encoder": encoder, "listing": listing}
    own |= {"architecture": ARCHITECTURE, "protocol": PROTOCOL, "precision": PRECISION}
    note = run / "run.json"
    noted = read_note(note)
    if noted and (others := [key for key, value in own.items() if not _same(noted.get(key), value)]):
        raise ValueError(
            f"{run} holds another run, with another {' and '.join(others)}; choose another OUTPUT_ROOT. If one was "
            f"moved and changed since, and is the same to you, delete {note}"
        )
    for room in ("features", "tables", "figures", "notebooks"):
        (run / room).mkdir(parents=True, exist_ok=True)
    if noted is None or any(noted[key].get("place") != _place(v) for key, v in own.items() if isinstance(v, Path)):
        paths = {key: value for key, value in own.items() if isinstance(value, Path)}
        write_json(note, own | {key: {"place": _place(p), "content": _content(p)} for key, p in paths.items()})
    return run


def run_of(parameters: dict[str, Any]) -> Path:
    """The run folder of a notebook's parameters."""
    return run_folder(**{key: parameters[key] for key in IDENTITY if key in parameters})


def files_below(place: Path) -> dict[str, Path]:
    """The files below a folder, by their posix path in it, sorted, without hidden ones; a file itself as "."."""
    paths = [place] if place.is_file() else sorted(path for path in place.rglob("[!.]*") if path.is_file())
    return {path.relative_to(place).as_posix(): path for path in paths}


def read_note(note: Path) -> dict[str, Any] | None:
    """What a `run.json` holds; None where there is none, or a damaged one, which is reported and written afresh."""
    try:
        noted: dict[str, Any] = read_json(note)
        if not isinstance(noted.get("dataset"), dict):
            raise ValueError(f"{note} is damaged (it doesn't say whose run this is)")
        return noted
    except FileNotFoundError:
        return None
    except ValueError as error:
        print(f"{error}; it is written afresh", file=sys.stderr)
        return None


def _place(path: Path) -> str:
    """A path relative to the project; for one outside a digest, so that no file tells where things lie on a machine."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else sha256_of(str(path))[:DIGITS]


def _content(path: Path) -> str:
    """A digest of the names and sizes of the files there, by which a moved dataset is known; "" where there are none."""
    lines = [f"{file} {place.stat().st_size}\n" for file, place in files_below(path).items()]
    return sha256_of(*lines)[:DIGITS] if lines else ""


def _same(noted: object, value: object) -> bool:
    if not isinstance(value, Path):
        return noted == value
    if not isinstance(noted, dict):
        return False
    return noted.get("place") == _place(value) or noted.get("content") == (_content(value) or None)
