"""From the parameters of a run to an explorer that a command can show."""

from rscir_lib.apps.explorer.session import Explorer
from rscir_lib.benchmarks.synthcom import draw_synthcom
from rscir_lib.encoders import provide
from rscir_lib.features import extract_features
from rscir_lib.runs import Run, absolute, models_of, open_run


def open_explorer(parameters: dict[str, str]) -> Explorer:
    """The explorer of a run, by the parameters of `open_run`; empty ones count as left out, paths from here."""
    given = {name: absolute(name, value) for name, value in parameters.items() if value}
    provide(given.get("ENCODER", "demo"), given.get("ARCHITECTURE", ""), models_of(**given))  # before a folder is made
    return Explorer.of(prepared(open_run(**given)))


def prepared(run: Run) -> Run:
    """The run, with its images drawn (the bundled ones) and its features extracted where they are not there yet."""
    if not run.config.DATASET_ROOT and not run.root.exists():
        print("drawing the bundled benchmark, once ...", flush=True)
        draw_synthcom(run.root)
    if not run.config.FEATURES:
        extract_features(run.whole_archive, run.encoder, run.store)
    return run
