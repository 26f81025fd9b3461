"""Where the things of a run lie: its dataset, and a folder of its own for features, tables and figures.

`open_run` takes a notebook's parameters, checks them and gives the rest. What each parameter may be stands in
`PARAMETERS`, once for every notebook.
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pandas as pd
from matplotlib.figure import Figure

from rscir_lib.archive import Archive, read_archive
from rscir_lib.storage.atomic import read_json, write_file, write_json, write_text
from rscir_lib.storage.project import ROOT, check_checkout

if TYPE_CHECKING:  # each takes seconds to import, and not every caller needs them
    from rscir_lib.benchmarks.base import Benchmark
    from rscir_lib.encoders import Encoder
    from rscir_lib.features import Features

# what names a run folder; two runs that differ in one of these never share a folder
IDENTITY = ("OUTPUT_ROOT", "DATASET_ROOT", "ENCODER", "ARCHITECTURE", "LISTING", "PROTOCOL", "PRECISION")
# "" is their way of leaving a path out; ENCODER is one where it names a folder
PATHS = ("DATASET_ROOT", "OUTPUT_ROOT", "MODELS_ROOT", "LISTING", "FEATURES", "QUERY_IMAGE", "RUNS_FOLDER")
# the tables of one row a query that notebooks save; of a run's several the first is compared
ROWS = ("09_rows", "04_rows")

# --- what parameters may be: a rule gives "" for a value that will do, or else what was expected

Rule = Callable[[object], str]


def _choice(*names: str) -> Rule:
    return lambda value: "" if isinstance(value, str) and value in names else f"one of {', '.join(names)}"


def _number(low: float, high: float) -> Rule:
    expected = f"a number from {low:g} to {high:g}"
    return lambda value: "" if type(value) in (int, float) and low <= value <= high else expected


def _whole(low: int, high: int) -> Rule:
    expected = f"a whole number from {low} to {high}"
    return lambda value: "" if type(value) is int and low <= value <= high else expected


def _list(one: Rule, example: str) -> Rule:
    def rule(value: object) -> str:
        if isinstance(value, list) and value and len(value) == len(set(map(repr, value))) and not any(map(one, value)):
            return ""
        return f"a list without repetition, each {one(None)}, such as {example}"

    return rule


def _truth(value: object) -> str:
    return "" if isinstance(value, bool) else "True or False"


def _text(value: object) -> str:
    return "" if isinstance(value, str) else "a text"


def _words(value: object) -> str:
    return "" if isinstance(value, str) and value.strip() else "a text that is not blank"


def _name(value: object) -> str:
    fine = isinstance(value, str) and re.fullmatch(r"[^\s,/\\\"]([^,/\\\"\n\r]*[^\s,/\\\"])?", value)
    return "" if fine else "a name without comma, quote, slash or outer blanks"


def _folder(value: object) -> str:
    fine = isinstance(value, str) and (not value or from_root(value).is_dir())
    return "" if fine else 'a folder that is there, or ""'


def _file(value: object) -> str:
    fine = isinstance(value, str) and (not value or from_root(value).is_file())
    return "" if fine else 'a file that is there, or ""'


def _store(value: object) -> str:
    fine = isinstance(value, str) and (not value or from_root(value).exists())
    return "" if fine else 'a feature store or a .pkl file that is there, or ""'


def _output(value: object) -> str:
    fine = isinstance(value, str) and not (value and from_root(value).is_file())
    return "" if fine else 'a folder (made if need be), or ""'


def _encoder(value: object) -> str:
    if value == "demo" or (isinstance(value, str) and value and from_root(value).is_dir()):
        return ""
    from rscir_lib.encoders import ENCODERS

    return "" if value in tuple(ENCODERS) else f"one of {', '.join(ENCODERS)}, or the folder of an encoder"


def _architecture(value: object) -> str:
    fine = isinstance(value, str) and re.fullmatch(r"([A-Za-z0-9][\w.+-]*)?", value)
    return "" if fine else 'the name of an architecture, such as ViT-L-14, or "" for the encoder\'s default'


def _device(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        return "auto, cpu, cuda, cuda:<number> or mps"
    if value in ("auto", "cpu"):
        return ""
    import torch

    if value == "mps":
        return "" if torch.backends.mps.is_available() else "auto or cpu: this machine has no MPS device"
    number, there = int(value.partition(":")[2] or 0), torch.cuda.device_count() if torch.cuda.is_available() else 0
    return "" if number < there else f"auto or cpu: torch sees {there} CUDA devices here"


def _scheduler(value: object) -> str:
    fine = isinstance(value, str) and re.fullmatch(r"(local|(tcp|tls|ucx)://\S+)?", value)
    return "" if fine else 'local, the address of a Dask scheduler (tcp://host:8786), or "" for this machine alone'


def _method(value: object) -> str:
    from rscir_lib.methods.registry import METHODS

    return _choice(*METHODS)(value)


def _synonyms(value: object) -> str:
    fine = isinstance(value, dict) and not any(map(_words, (*value, *value.values())))
    return "" if fine else 'words and other words for them, such as {"large": "big"}, or {}'


_SHARE = _number(0, 1)

# every parameter that a notebook declares
PARAMETERS: dict[str, Rule] = {
    "DATASET_ROOT": _folder,
    "LISTING": _file,
    "PROTOCOL": _choice("released", "first-release"),
    "ENCODER": _encoder,
    "ARCHITECTURE": _architecture,
    "MODELS_ROOT": _folder,
    "DEVICE": _device,
    "PRECISION": _choice("float32", "bfloat16", "float16"),
    "SCHEDULER": _scheduler,
    "FEATURES": _store,
    "OUTPUT_ROOT": _output,
    "BATCH_SIZE": _whole(0, 1_000_000),
    "OVERWRITE": _truth,
    "STRICT": _truth,
    "LAMBDAS": _list(_SHARE, "[0.3, 0.5]"),
    "WEIGHT": _SHARE,
    "ABLATION": _list(_method, '["linear", "weicom"]'),
    "METHOD": _method,
    "METHODS": _list(_method, '["average", "weicom"]'),
    "LEFT_OUT": _list(_method, '["sum"]'),
    "EXPANDED": _list(_method, '["linear", "weicom"]'),
    "AGAINST": _method,
    "OTHERS": _choice("attribute", "group", "half", ""),
    "SOLVED": _SHARE,
    "SYNONYMS": _synonyms,
    "RUNS_FOLDER": _folder,
    "TEXTS": _list(_words, '["white", "many"]'),
    "FREE_TEXTS": _list(_words, '["large", "small"]'),
    "QUERY_IMAGE": _file,
    "QUERY_TEXT": _text,
    "TOP": _whole(1, 1000),
    "POSITION": _whole(0, 2**53),  # `Run.check` knows the archive's size
    "QUERY": _whole(0, 2**53),
    "SEED": _whole(0, 2**32 - 1),
    "ATTRIBUTE": _name,
    "VALUES": _list(_name, '["smooth", "rough"]'),
    "TEMPLATE": lambda value: "" if isinstance(value, str) and "{}" in value else "a text with {} for the value",
    "PERSON": _name,
    "MOST": _whole(1, 2**53),
    "ORDER": _choice("uncertain", "random"),
    "CHECK": _text,
    "WRITE_TO_ARCHIVE": _truth,
}


def check_parameters(**values: object) -> None:
    """Checks parameters by type, range and choice (`PARAMETERS`), and an architecture by its encoder.

    Raises ValueError naming parameter, value and what is expected.
    """
    for name, value in values.items():
        if name not in PARAMETERS:
            raise ValueError(f"no rule says what the parameter {name} may be; add one to rscir_lib.runs.PARAMETERS")
        if expected := PARAMETERS[name](value):
            raise ValueError(f"{name}={value!r}: expected {expected}")
    encoder, architecture = values.get("ENCODER", "demo"), values.get("ARCHITECTURE", "")
    if architecture and encoder == "demo":
        raise ValueError(f'ARCHITECTURE={architecture!r}: expected "", as demo comes in one; ENCODER=... names another')
    if architecture and not encoder_folder(encoder):
        from rscir_lib.encoders import ENCODERS

        known = getattr(ENCODERS[encoder], "models", [architecture])  # else its loader knows
        if architecture not in known:
            raise ValueError(
                f"ARCHITECTURE={architecture!r}: expected one of {', '.join(known)}, which {encoder} comes in"
            )


# --- where things lie


def from_root(path: str) -> Path | None:
    """The absolute form of a path parameter: relative ones count from the project root, wherever the notebook runs.

    None for "", the parameters' way of leaving a path out.
    """
    return (ROOT / Path(path).expanduser()).resolve() if path else None


def dataset_root(DATASET_ROOT: str = "") -> Path:
    """The dataset folder that a notebook's DATASET_ROOT means; "" is the bundled benchmark, drawn by notebook 01."""
    return from_root(DATASET_ROOT or "data/synthcom")


def encoder_folder(ENCODER: str, start: Path = ROOT) -> Path | None:
    """The folder that an ENCODER means, relative to `start`; None for "demo" and the other names of the registry."""
    folder = (start / Path(ENCODER).expanduser()).resolve()
    if "/" in ENCODER:
        return folder
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

    `<OUTPUT_ROOT>/<dataset>_<encoder>`, then what is not the default of architecture, listing, protocol and precision;
    OUTPUT_ROOT "" is `runs/` in the project. `run.json` says whose folder it is. Raises ValueError where that is
    another run (a dataset or an encoder of the same folder name elsewhere, with other files).
    """
    dataset, encoder, listing = dataset_root(DATASET_ROOT), encoder_folder(ENCODER) or ENCODER, from_root(LISTING) or ""
    parts = [dataset.name, Path(encoder).name, ARCHITECTURE, Path(listing).stem]
    parts += [PROTOCOL if PROTOCOL != "released" else "", PRECISION if PRECISION != "float32" else ""]
    run = from_root(OUTPUT_ROOT or "runs") / "_".join(part for part in parts if part)
    own = {"dataset": dataset, "encoder": encoder, "listing": listing}
    own |= {"architecture": ARCHITECTURE, "protocol": PROTOCOL, "precision": PRECISION}
    note = run / "run.json"
    noted = _read_note(note)
    if noted and (others := [key for key, value in own.items() if not _same(noted.get(key), value)]):
        raise ValueError(
            f"{run} holds another run, with another {' and '.join(others)}; choose another OUTPUT_ROOT. If one was "
            f"moved and changed since, and is the same to you, delete {note}"
        )
    for room in ("features", "tables", "figures", "notebooks"):
        (run / room).mkdir(parents=True, exist_ok=True)
    if noted is None or any(noted[key].get("place") != _place(v) for key, v in own.items() if isinstance(v, Path)):
        told = {key: _identity(value) if isinstance(value, Path) else value for key, value in own.items()}
        write_json(note, told)
    return run


def _identity(path: Path) -> dict[str, str]:
    """What tells datasets, encoders and listings of one name apart, and finds them again where they were moved to."""
    return {"place": _place(path), "content": _content(path)}


def _place(path: Path) -> str:
    """A path inside the project, relative to it; of one elsewhere a digest: no path of a machine goes into a file."""
    inside = path.is_relative_to(ROOT)
    return path.relative_to(ROOT).as_posix() if inside else hashlib.sha256(str(path).encode()).hexdigest()[:16]


def _content(path: Path) -> str:
    """A digest of the names and sizes of the files there; "" where there are none."""
    lines = [f"{file} {found.stat().st_size}\n" for file, found in files_below(path).items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16] if lines else ""


def files_below(place: Path) -> dict[str, Path]:
    """Every file in a folder by its posix path in there, sorted, without hidden ones, which are locks and leftovers; a
    file itself as "."."""
    paths = [place] if place.is_file() else sorted(path for path in place.rglob("[!.]*") if path.is_file())
    return {path.relative_to(place).as_posix(): path for path in paths}


def _same(noted: object, value: object) -> bool:
    if not isinstance(value, Path):
        return noted == value
    if not isinstance(noted, dict):
        return False
    return noted.get("place") == _place(value) or noted.get("content") == (_content(value) or None)


def _read_note(note: Path) -> dict | None:
    """What a `run.json` holds; None where there is none, or a damaged one, which is reported and written afresh."""
    try:
        noted = read_json(note)
        if not isinstance(noted.get("dataset"), dict):
            raise ValueError(f"{note} is damaged (it doesn't say whose run this is)")
        return noted
    except FileNotFoundError:
        return None
    except ValueError as error:
        print(f"{error}; it is written afresh", file=sys.stderr)
        return None


def run_of(parameters: dict[str, object]) -> Path:
    """The run folder of a notebook's parameters."""
    return run_folder(**{key: parameters[key] for key in IDENTITY if key in parameters})


def finished_runs(folder: str | Path) -> pd.DataFrame:
    """The runs in a folder that have results by query: by name, the architecture, listing, protocol and precision, and
    `rows`, the path of their table (`ROWS`)."""
    found = {}
    for note in sorted(Path(folder).glob("*/run.json")):
        tables = [note.parent / "tables" / f"{name}.csv" for name in ROWS]
        if (noted := _read_note(note)) and (there := [table for table in tables if table.is_file()]):
            told = {key: noted.get(key, "") for key in ("architecture", "protocol", "precision")}
            found[note.parent.name] = {**told, "listing": "part" if noted.get("listing") else "", "rows": there[0]}
    columns = ["architecture", "protocol", "precision", "listing", "rows"]
    return pd.DataFrame(found.values(), list(found), columns).rename_axis("run")


def read_rows(path: str | Path) -> pd.DataFrame:
    """Rows of `evaluate` that a run has saved. Raises ValueError naming the file where a column is missing."""
    rows = pd.read_csv(path, index_col=0, keep_default_na=False, na_values={"lambda": [""]})
    needed = ["attribute", "image", "text", "method", "lambda", "AP"]
    if missing := [column for column in needed if column not in rows]:
        raise ValueError(f"{path}: no column {missing[0]!r}; delete the file and run its notebook again")
    return rows.rename_axis("query")


# --- a run

Saved = TypeVar("Saved", Figure, pd.DataFrame, pd.Series)


@dataclass(frozen=True)
class Run:
    """What a notebook works with, each read when it is first asked for. Made by `open_run`.

    folder: where results go; root: the dataset; parameters: what the run was opened with.
    """

    folder: Path
    root: Path
    parameters: dict[str, str]

    @cached_property
    def listing(self) -> Path | None:
        """The file that restricts the archive, if one does."""
        return from_root(self.parameters["LISTING"])

    @cached_property
    def images(self) -> Archive:
        """Every image of the dataset, with features or without."""
        if not self.parameters["DATASET_ROOT"] and not self.root.exists():
            raise FileNotFoundError(f"{self.root}: the bundled benchmark is not drawn yet; run notebook 01")
        return read_archive(self.root, self.listing)

    @cached_property
    def archive(self) -> Archive:
        """The images that have features; what is left out (an image that can't be read) is printed."""
        without = getattr(self.features, "unreadable", {})
        kept = [i for i, file in enumerate(self.images.files) if file not in without]
        if len(kept) == len(self.images):
            return self.images
        left_out = len(self.images) - len(kept)
        print(f"{left_out} of {len(self.images)} images can't be read and are left out; notebook 02 lists them")
        return self.images.subset(kept)

    @cached_property
    def encoder(self) -> "Encoder":
        """The encoder, loaded."""
        from rscir_lib.encoders import load_encoder

        name, architecture = self.parameters["ENCODER"], self.parameters["ARCHITECTURE"]
        models = from_root(self.parameters["MODELS_ROOT"]) or self.root / "models"
        device, precision = self.parameters["DEVICE"], self.parameters["PRECISION"]
        return load_encoder(encoder_folder(name) or name, architecture, device, precision, models)

    @cached_property
    def store(self) -> Path:
        """Where the features lie: what FEATURES names, or what notebook 02 writes."""
        return from_root(self.parameters["FEATURES"]) or self.folder / "features"

    @cached_property
    def features(self) -> "Features":
        """The features of the archive by the encoder. Raises FileNotFoundError before notebook 02 has made them."""
        from rscir_lib.features import read_features

        return read_features(self.store, self.images, self.encoder)

    @cached_property
    def has_benchmark(self) -> bool:
        """Whether the dataset has labels to make queries from."""
        from rscir_lib.benchmarks.registry import find_reader

        return find_reader(self.root) is not None

    @cached_property
    def benchmark(self) -> "Benchmark":
        """The queries over `archive`. Raises FileNotFoundError where there are no labels."""
        from rscir_lib.benchmarks.registry import read_benchmark

        benchmark = read_benchmark(self.root, self.listing, self.parameters["PROTOCOL"])
        gone = set(self.images.files) - set(self.archive.files)
        return benchmark.without(gone) if gone else benchmark

    @property
    def title(self) -> str:
        """What figures are called: archive, encoder, architecture."""
        return f"{self.images.name}, {self.encoder.name} {self.encoder.architecture}"

    def check(self, **parameters: object) -> None:
        """Checks the notebook's other parameters, POSITION and QUERY by what this run holds (`check_parameters`)."""
        check_parameters(**parameters)
        if parameters.get("POSITION", 0) and parameters["POSITION"] >= len(self.archive):
            last = len(self.archive) - 1
            raise ValueError(f"POSITION={parameters['POSITION']}: expected 0 to {last}, a position in {self.root}")
        if "QUERY" in parameters and self.has_benchmark and parameters["QUERY"] not in self.benchmark.queries.index:
            first, last = self.benchmark.queries.index[[0, -1]]
            raise ValueError(f"QUERY={parameters['QUERY']}: expected {first} to {last}, a row of benchmark.queries")

    def end_without_labels(self) -> None:
        """Ends a notebook here, cleanly, where the dataset has no labels; elsewhere does nothing.

        SystemExit is what papermill takes for a good end; in JupyterLab it stops "run all" behind the sentence.
        """
        if not self.has_benchmark:
            print(
                f"{self.images.name} has no labels: this notebook ends here. What follows needs queries with answers."
            )
            raise SystemExit(0)

    def save(self, result: Saved, name: str, **options: object) -> Saved:
        """Writes a figure to `figures/<name>.png` or a table to `tables/<name>.csv`, whole, and returns it.

        A figure's `description` goes into the file as its alternative text; options are those of `to_csv`.
        """
        if isinstance(result, Figure):
            told = {"Description": result.description} if getattr(result, "description", "") else None
            draw = partial(result.savefig, format="png", metadata=told)
            write_file(self.folder / "figures" / f"{name}.png", draw)
        else:
            write_text(self.folder / "tables" / f"{name}.csv", result.to_csv(**options))
        return result


def open_run(
    DATASET_ROOT: str = "",
    ENCODER: str = "demo",
    ARCHITECTURE: str = "",
    LISTING: str = "",
    PROTOCOL: str = "released",
    OUTPUT_ROOT: str = "",
    MODELS_ROOT: str = "",
    DEVICE: str = "auto",
    PRECISION: str = "float32",
    FEATURES: str = "",
) -> Run:
    """The run of a notebook's parameters, its folder made if need be.

    Raises ValueError naming parameter and value (`check_parameters`), before any folder is made, or for a folder that
    holds another run; RuntimeError where the notebook lies in another copy of the project than the library.
    """
    given = dict(locals())
    check_checkout(Path.cwd())
    check_parameters(**given)
    return Run(run_of(given), dataset_root(DATASET_ROOT), given)
