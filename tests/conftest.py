"""Fixtures shared by the tests: small benchmarks written in PatternNet's and PatternCom's format."""

import os
from pathlib import Path

import pytest


def optional_data(variable: str, what: str) -> Path:
    """A folder of optional real data; the test skips, and says why, where it is absent."""
    folder = os.environ.get(variable, "")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{variable} names no folder: set it to {what} to run this test")
    return Path(folder)


@pytest.fixture(scope="session")
def ucm_root() -> Path:
    return optional_data("RSCIR_UCM_ROOT", "the UC Merced archive (images/, multilabels.tsv, captions.json)")


@pytest.fixture(scope="session")
def whu_root() -> Path:
    return optional_data("RSCIR_WHU_ROOT", "a folder of stored WHU-RS19 features (<model>_<architecture>.npz)")
