"""pyproject.toml, requirements.lock and environment.yml tell one story."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKED = [
    Requirement(line)
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if line.strip() and not line.lstrip().startswith("#")
]
DECLARED = [Requirement(r) for r in sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])]


def test_lock_pins_exactly():
    loose = [str(r) for r in LOCKED if not re.fullmatch(r"==[^*,]+", str(r.specifier))]
    assert not loose, "run `make lock`"
    assert not [r for r in LOCKED if r.url], "a lock names packages, not places"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_lock_satisfies_pyproject(platform, python):
    environment = {"sys_platform": platform, "python_version": python, "python_full_version": f"{python}.5"}
    pins = {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for pin in LOCKED
        if pin.marker is None or pin.marker.evaluate(environment)
    }
    for requirement in DECLARED:
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin, f"{requirement.name} is not locked: run `make lock`"
        assert requirement.specifier.contains(pin, prereleases=True), f"{requirement.name}: run `make lock`"


def test_environment_takes_everything_from_the_lock():
    lines = [line.strip() for line in (ROOT / "environment.yml").read_text().splitlines()]
    listed = lines[lines.index("dependencies:") + 1 :]
    python = PROJECT["requires-python"]
    assert listed == [f"- python {python}", "- pip", "- pip:", "- -r requirements.lock", "- -e ."]
