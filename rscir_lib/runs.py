"""Where the things of a run lie: its dataset, and a folder of its own for features, tables and figures."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # of the project
# what names a run folder; two runs that differ in one of these never share a folder
IDENTITY = ("OUTPUT_ROOT", "DATASET_ROOT", "ENCODER", "ARCHITECTURE", "LISTING", "PROTOCOL")


def from_root(path: str) -> Path | None:
    """The absolute form of a path parameter: relative ones count from the project root, wherever the notebook runs.

    None for "", the parameters' way of leaving a path out.
    """
    return (ROOT / Path(path).expanduser()).resolve() if path else None


def dataset_root(DATASET_ROOT: str = "") -> Path:
    """The dataset folder that a notebook's DATASET_ROOT means; "" is the bundled benchmark, drawn by notebook 01."""
    return from_root(DATASET_ROOT or "data/synthcom")


def run_folder(
    OUTPUT_ROOT: str = "",
    DATASET_ROOT: str = "",
    ENCODER: str = "demo",
    ARCHITECTURE: str = "",
    LISTING: str = "",
    PROTOCOL: str = "released",
) -> Path:
    """The folder of a run, made if need be, with `features/`, `tables/`, `figures/`, `notebooks/` inside.

    `<OUTPUT_ROOT>/<dataset>_<encoder>`, then the architecture, the listing and the protocol where they are not the
    default; OUTPUT_ROOT "" is `runs/` in the project. Raises ValueError where the folder already holds another run
    (a dataset or an encoder of the same folder name elsewhere).
    """
    output = from_root(OUTPUT_ROOT or "runs")
    parts = [dataset_root(DATASET_ROOT).name, Path(ENCODER).name, ARCHITECTURE, Path(LISTING).stem]
    parts.append(PROTOCOL if PROTOCOL != "released" else "")
    run = output / "_".join(part.replace("/", "-") for part in parts if part)
    for room in ("features", "tables", "figures", "notebooks"):
        (run / room).mkdir(parents=True, exist_ok=True)
    own = {"dataset": str(dataset_root(DATASET_ROOT)), "encoder": ENCODER, "listing": str(from_root(LISTING))}
    note = run / "run.json"
    if note.exists() and (other := json.loads(note.read_text())) != own:
        raise ValueError(f"{run} holds another run ({other}, not {own}); choose another OUTPUT_ROOT")
    note.write_text(json.dumps(own))
    return run


def run_of(parameters: dict[str, object]) -> Path:
    """The run folder of a notebook's parameters."""
    return run_folder(**{key: parameters[key] for key in IDENTITY if key in parameters})
