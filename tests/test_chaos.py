"""A short form of the campaign of kills, and that it can fail."""

import subprocess
import sys
from pathlib import Path

import pytest

import chaos

linux = pytest.mark.skipif(sys.platform != "linux", reason="process groups, forks and resource limits are Linux's here")


@linux
def test_a_short_campaign_changes_no_bit():
    command = [sys.executable, Path(chaos.__file__), "--quick", "--only", "extraction", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
    assert " 0 different" in done.stdout


@linux
def test_the_campaign_finds_a_file_that_is_not_written_whole(tmp_path):
    def careless(folder):
        folder.mkdir(exist_ok=True)
        if not (folder / "a").exists():
            (folder / "a").write_text("half")
            with (folder / "a").open("a") as file:
                file.write("the other half")

    subject = chaos.Subject("careless", careless, lambda folder: {"a": (folder / "a").read_text()})
    campaign = chaos.Campaign(subject, tmp_path)
    assert len(list(campaign.every_operation(1, twice=False))) == 3
    assert campaign.counts["kills"] == 3
    assert campaign.counts["different"] == 1
    assert "killed at operation 2: 1 differ, such as a" in campaign.failures[0]


@linux
def test_the_campaign_finds_an_error_without_a_sentence(tmp_path):
    def raw(folder):
        folder.mkdir(exist_ok=True)
        try:
            (folder / "a").write_text("whole")
        except OSError:
            raise KeyError("a") from None

    campaign = chaos.Campaign(chaos.Subject("raw", raw, lambda folder: {"a": "whole"}), tmp_path)
    campaign.disturbed(tmp_path / "b", lambda: chaos.at_operation(tmp_path / "b", 1, lambda: chaos.refuse(28)))
    assert "KeyError: 'a'" in campaign.failures[0]
