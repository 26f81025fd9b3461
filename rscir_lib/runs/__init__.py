"""The parameters of a run, and where its results lie."""

from rscir_lib.runs.run import (
    IDENTITY,
    PARAMETERS,
    PATHS,
    Run,
    check_parameters,
    dataset_root,
    encoder_folder,
    files_below,
    finished_runs,
    from_root,
    open_run,
    read_json,
    read_rows,
    run_folder,
    run_of,
)

__all__ = [
    "IDENTITY",
    "PARAMETERS",
    "PATHS",
    "Run",
    "check_parameters",
    "dataset_root",
    "encoder_folder",
    "files_below",
    "finished_runs",
    "from_root",
    "open_run",
    "read_json",
    "read_rows",
    "run_folder",
    "run_of",
]
