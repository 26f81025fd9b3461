"""How sure a difference is, how to choose lambda, what stands behind a mean, and files for other evaluators."""
# ruff: noqa: I001 (a line a module)

from rscir_lib.analysis.cost import cost
from rscir_lib.analysis.diagnostics import (
    KINDS, failure_kinds, judged_alone, judged_share, precision_ceiling, shortcut_audit, wordings,
)  # fmt: skip
from rscir_lib.analysis.lambda_selection import (
    by_choice, choose_lambda, choose_lambdas, folds, lambda_choices, lambdas_in_words, of_choice,
    split_half, split_relevant, summarize_chosen,
)  # fmt: skip
from rscir_lib.analysis.significance import (
    OVER, against_average, bootstrap_difference, bootstrap_mean, compare_methods, compare_runs, holm, intervals,
    methods_table, randomisation_test, rows_of,
)  # fmt: skip
from rscir_lib.analysis.trec import write_trec
