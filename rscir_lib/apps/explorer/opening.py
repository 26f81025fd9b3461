"""From the parameters of a run to an explorer that a command can show."""

import os
import sys
import webbrowser

from rscir_lib.apps.explorer.session import Explorer
from rscir_lib.benchmarks.synthcom import draw_synthcom
from rscir_lib.encoders import provide
from rscir_lib.features import extract_features
from rscir_lib.runs import Run, open_run


def open_explorer(parameters: dict[str, str]) -> Explorer:
    """The explorer of a run, by the parameters of `open_run`; empty ones count as left out."""
    return Explorer.of(prepared(open_run(**{name: value for name, value in parameters.items() if value})))


def prepared(run: Run) -> Run:
    """The run, with its images drawn (the bundled ones) and its features extracted where they are not there yet."""
    if not run.config.DATASET_ROOT and not run.root.exists():
        print("drawing the bundled benchmark, once ...", flush=True)
        draw_synthcom(run.root)
    if run.config.ENCODER == "demo" and run.config.DATASET_ROOT:
        print("THE BUNDLED ENCODER KNOWS DRAWN SCENES ALONE: for photographs add ENCODER=clip-openai", flush=True)
    provide(run.config.ENCODER, run.config.ARCHITECTURE, run.models)
    if not run.config.FEATURES:
        extract_features(run.whole_archive, run.encoder, run.store)
    return run


def first_query(explorer: Explorer) -> dict:
    """What a visitor without a link sees: the benchmark's first query, or the first image alone."""
    if explorer.benchmark is None or explorer.benchmark.queries.empty:
        return {"image": 0, "words": ""}
    queries = explorer.benchmark.queries[explorer.benchmark.queries["position"] >= 0]
    return {"image": int(queries["position"].iloc[0]), "words": queries["text"].iloc[0]}


def announce(address: str) -> None:
    """Says where the page is, and shows it where a person is there to see it."""
    print(f"the explorer is at {address} (Ctrl+C ends it)", flush=True)
    if sys.stdout.isatty() and (os.name != "posix" or sys.platform == "darwin" or os.environ.get("DISPLAY")):
        webbrowser.open(address)
