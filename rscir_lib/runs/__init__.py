"""The parameters of a run, and where its results lie."""

from rscir_lib.runs.parameters import PARAMETERS, NotebookConfig, RunConfig, check_parameters
from rscir_lib.runs.paths import (
    IDENTITY, PATHS, absolute, dataset_root, encoder_folder, features_of, from_root, models_of, notice_of,
    run_folder, run_of,
)  # fmt: skip
from rscir_lib.runs.run import Run, finished_runs, latex_table, latex_words, open_run, read_rows, real_tasks
