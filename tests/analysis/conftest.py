"""A small benchmark with random features, and its rows."""

import numpy as np
import pytest
from analysis_rows import rows_for

from helpers import make_features, unit, write_benchmark
from rscir_lib.benchmarks.patterncom import read_patterncom

CLASSES = ("bridge", "harbor", "forest")


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """90 images of three classes, two attributes, a third unlabelled; every image and text has a feature of its own."""
    rng = np.random.default_rng(5)
    root = tmp_path_factory.mktemp("benchmark")
    labelled = [
        (i, attribute, value)
        for attribute, values in (("density", ("red", "two")), ("existence", ("red", "two", "oval")))
        for i, value in zip(rng.choice(90, 60, replace=False), rng.choice(values, 60), strict=True)
    ]
    write_benchmark(root, [CLASSES[i % 3] for i in range(90)], labelled)
    benchmark = read_patterncom(root)
    return benchmark, make_features(benchmark.archive, unit(rng.normal(size=(90, 8))))


@pytest.fixture(scope="module")
def rows(case):
    return rows_for(case, ["image", "text", "average", "weicom"], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
