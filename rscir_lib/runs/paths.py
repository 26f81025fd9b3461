"""Where the things of a run lie: its dataset, its encoder, and a folder of its own that says whose it is."""

import glob
import itertools
import re
import sys
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any

from rscir_lib.archive.listing import IMAGE_SUFFIXES
from rscir_lib.storage.atomic import read_json, write_json
from rscir_lib.storage.digests import sha256_of, sha256_of_sample
from rscir_lib.storage.folders import files_below
from rscir_lib.storage.locks import folder_lock
from rscir_lib.storage.project import ROOT

# the parameters that a run folder is named by; runs that differ in one of them never share a folder
IDENTITY = ("OUTPUT_ROOT", "DATASET_ROOT", "ENCODER", "ARCHITECTURE", "LISTING", "PROTOCOL", "PRECISION", "TEMPLATE")
# parameters that are paths, where "" leaves one out; ENCODER is one where it names a folder
FURTHER_INPUTS = ("MODELS_ROOT", "LISTING", "QUERY_IMAGE", "PLUGINS", "LINCIR")
PATHS = ("DATASET_ROOT", "OUTPUT_ROOT", "FEATURES", "RUNS_FOLDER", *FURTHER_INPUTS)
DIGITS = 16  # of a sha256 that tells places and contents apart: 64 bits, so that no two of a person's runs collide


def from_root(path: str) -> Path | None:
    """The absolute path of a path parameter, where relative ones count from the project's root; None for ""."""
    return (ROOT / Path(path).expanduser()).resolve() if path else None


def dataset_root(DATASET_ROOT: str = "") -> Path:
    """The dataset folder that a notebook's DATASET_ROOT means; "" is the bundled benchmark, drawn by notebook 01."""
    return (ROOT / Path(DATASET_ROOT or "data/synthcom").expanduser()).resolve()


def encoder_folder(ENCODER: str, start: Path | None = None) -> Path | None:
    """The folder that an ENCODER means, relative to `start` or the project; None for "demo" and whatever else is published by a name."""
    folder = ((start or ROOT) / Path(ENCODER).expanduser()).resolve()
    if "/" in ENCODER:
        from rscir_lib.encoders.hub import published_as

        return None if not folder.exists() and published_as(ENCODER) else folder
    if ENCODER in ("", "demo") or not folder.is_dir():
        return None
    from rscir_lib.encoders import ENCODERS

    return None if ENCODER in ENCODERS else folder


def absolute(name: str, value: Any) -> Any:
    """A path parameter as absolute path, where relative ones count from where the command runs; other values as given."""
    if isinstance(value, str) and name in PATHS:
        return str(Path(value).expanduser().absolute()) if value else value
    if isinstance(value, str) and name == "ENCODER":
        return str(encoder_folder(value, Path.cwd()) or value)
    return value


def models_of(MODELS_ROOT: str = "", DATASET_ROOT: str = "", **_others: object) -> Path:
    """Where weights are looked for before the person's home of them."""
    return from_root(MODELS_ROOT) or dataset_root(DATASET_ROOT) / "models"


def notice_of(ENCODER: str = "demo", DATASET_ROOT: str = "", LISTING: str = "", **_others: object) -> str:
    """What nobody may miss before believing an answer: the bundled encoder before pictures that aren't drawn; else "".

    With the command that helps.
    """
    bundled = ENCODER == "demo" or encoder_folder(ENCODER) == ROOT / "data" / "demo_encoder"
    if not (bundled and DATASET_ROOT) or (dataset_root(DATASET_ROOT) / "synthcom.json").exists():
        return ""
    given = f"DATASET_ROOT={quote(DATASET_ROOT)}" + f" LISTING={quote(LISTING)}" * bool(LISTING)
    return (
        "THE BUNDLED ENCODER KNOWS DRAWN SCENES ALONE, and these pictures are not drawn: its answers are hardly better "
        f"than chance. What helps: make explore {given} ENCODER=clip-openai (605 MB, fetched once), or make workbook "
        "with the same."
    )


def run_folder(
    OUTPUT_ROOT: str = "",
    DATASET_ROOT: str = "",
    ENCODER: str = "demo",
    ARCHITECTURE: str = "",
    LISTING: str = "",
    PROTOCOL: str = "released",
    PRECISION: str = "float32",
    TEMPLATE: str = "{}",
) -> Path:
    """The folder of a run, made if need be, with `features/`, `tables/`, `figures/`, `notebooks/` inside.

    It is called `<OUTPUT_ROOT>/<dataset>_<encoder>`, and after that architecture, listing, protocol, precision and template where they
    are not the default; OUTPUT_ROOT "" is `runs/` in the project. `run.json` in it names the run. Where that
    folder is another run's, with another dataset, encoder or listing of the same name, a number follows: `..._2`.
    """
    dataset, encoder, listing = dataset_root(DATASET_ROOT), encoder_folder(ENCODER) or ENCODER, from_root(LISTING) or ""
    parts = [dataset.name, Path(encoder).name, ARCHITECTURE, Path(listing).stem]
    parts += [PROTOCOL if PROTOCOL != "released" else "", PRECISION if PRECISION != "float32" else ""]
    if TEMPLATE != "{}":  # in a file name: its first words, and what tells it from others that begin so
        parts.append("-".join(re.findall(r"\w+", TEMPLATE))[:32] + "-" + sha256_of(TEMPLATE)[:6])
    paths = {"dataset": dataset, "encoder": encoder, "listing": listing}
    own: dict[str, Any] = {"architecture": ARCHITECTURE, "protocol": PROTOCOL, "precision": PRECISION, "template": TEMPLATE}
    for key, path in paths.items():  # a place outside the project is a digest, so that no file tells of a machine
        inside = isinstance(path, Path) and path.is_relative_to(ROOT) and path.relative_to(ROOT).as_posix()
        own[key] = {"place": inside or sha256_of(str(path))[:DIGITS]} if isinstance(path, Path) else path
    first = (ROOT / Path(OUTPUT_ROOT or "runs").expanduser()).resolve() / "_".join(part for part in parts if part)
    run, _ = _noted(first, own)
    if run is None:
        with folder_lock(first.parent):  # or two runs might take one name
            own |= {key: own[key] | {"content": _content(p)} for key, p in paths.items() if isinstance(p, Path)}
            run, notes = _noted(first, own)  # another process's by now, or moved here
            numbered = (first.with_name(f"{first.name}_{number}") for number in itertools.count(2))
            run = run or next(folder for folder in itertools.chain([first], numbered) if folder not in notes)
            run.mkdir(exist_ok=True)
            write_json(run / "run.json", own)
    for room in ("features", "tables", "figures", "notebooks"):
        (run / room).mkdir(exist_ok=True)
    return run


def _noted(first: Path, own: dict[str, Any]) -> tuple[Path | None, dict[Path, dict[str, Any]]]:
    """Of all runs of a name, or of that with a number, the one whose note fits; and the notes of all.

    Of a path, its place fits or its content.
    """

    def fits(noted: object, value: object) -> bool:
        if not isinstance(value, dict) or not isinstance(noted, dict):
            return noted == value
        return any(noted.get(key) == known for key, known in value.items() if known)

    folders = [first, *first.parent.glob(f"{glob.escape(first.name)}_[0-9]*")]
    notes = {folder: noted for folder in folders if (noted := read_note(folder / "run.json"))}
    found = (run for run, noted in notes.items() if all(fits(noted.get(key), value) for key, value in own.items()))
    return next(found, None), notes


def run_of(parameters: dict[str, Any]) -> Path:
    """The run folder of a notebook's parameters."""
    return run_folder(**{key: parameters[key] for key in IDENTITY if key in parameters})


def features_of(parameters: dict[str, Any]) -> Path:
    """Where the features of a run lie: what FEATURES names, else a table beside the images that has the encoder's name,
    as WHUCom has them, else in the run's folder. Those of images don't depend on how words are put, so that runs that
    differ in TEMPLATE alone have one store, in the folder of the run without."""
    named = from_root(parameters.get("FEATURES", ""))
    beside = dataset_root(parameters.get("DATASET_ROOT", "")) / f"{Path(parameters.get('ENCODER', 'demo')).name}.npz"
    return named or (beside if beside.is_file() else run_of(parameters | {"TEMPLATE": "{}"}) / "features")


def read_note(note: Path) -> dict[str, Any] | None:
    """What a `run.json` holds; None where there is none, or a damaged one, which is reported and written afresh."""
    try:
        noted: dict[str, Any] = {"template": "{}"} | read_json(note)  # earlier versions knew none
        if not isinstance(noted.get("dataset"), dict):
            raise ValueError(f"{note} is damaged (it doesn't say whose run this is)")
        return noted
    except FileNotFoundError:
        return None
    except ValueError as error:
        print(f"{error}; it is written afresh", file=sys.stderr)
        return None


def _content(path: Path) -> str:
    """A digest of the files there, by which a moved dataset is known; "" where there are none. Of pictures, which are
    many, 64 pieces of 256 bytes; of all else, such as labels and weights, 64 of a MiB."""
    lines = []
    for file, place in files_below(path).items():
        block = 2**8 if place.suffix.lower() in IMAGE_SUFFIXES else 2**20
        with suppress(OSError):  # nobody may read it
            lines.append(f"{file} {place.stat().st_size} {sha256_of_sample(place, block)}\n")
    return sha256_of(*lines)[:DIGITS] if lines else ""
