"""Benchmark x features x methods: ranks, metrics, tables."""

from rscir_lib.evaluation.evaluate import BASELINES, COLUMNS, evaluate, top_lists
from rscir_lib.evaluation.summary import chance, compare_published, nearest_version, published, summarize, with_chance
