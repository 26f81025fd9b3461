"""Rows of `evaluate` for the tests of this folder, real and made up."""

import numpy as np
import pandas as pd

from helpers import text_encoder
from rscir_lib.evaluation import evaluate


def rows_for(case, methods, lambdas=(0.5,), **options):
    return evaluate(*case, text_encoder(8), methods, lambdas, "cpu", progress=False, **options)


def made_up(values):
    """Rows of one method with these AP: a list of (attribute, image, text, AP)."""
    table = pd.DataFrame(values, columns=["attribute", "image", "text", "AP"]).rename_axis("query")
    return table.assign(method="mine", **{"lambda": np.nan})
