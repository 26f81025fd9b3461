"""A short form of the campaign of kills, and that it can fail."""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import chaos
import pytest

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
    campaign.disturbed(tmp_path / "b", "full", lambda: chaos.at_operation(tmp_path / "b", 1, partial(chaos.refuse, 28)))
    assert "KeyError: 'a'" in campaign.failures[0]


@linux
def test_what_a_run_says_is_whole_on_a_full_disk_and_without_its_progress_bar(tmp_path):
    def full(folder):
        for _ in chaos.tqdm(range(100), mininterval=0):
            pass
        raise OSError(28, "No space left on device", str(folder))

    campaign = chaos.Campaign(chaos.Subject("good", lambda folder: folder.mkdir(), lambda folder: {}), tmp_path)
    campaign.subject = chaos.Subject("full", full, lambda folder: {})
    limit = partial(chaos.resource.setrlimit, chaos.resource.RLIMIT_FSIZE, (50, chaos.resource.RLIM_INFINITY))
    campaign.disturbed(tmp_path / "a", "no file larger than 50 bytes", limit)
    assert (campaign.failures, campaign.counts["refusals"]) == ([], 1)
    assert campaign.words() == f"OSError: [Errno 28] No space left on device: '{tmp_path / 'a'}'"


@linux
def test_a_run_that_hangs_fails_and_says_where(tmp_path, monkeypatch):
    monkeypatch.setattr(chaos, "HANGS", 1)
    campaign = chaos.Campaign(chaos.Subject("good", lambda folder: folder.mkdir(), lambda folder: {}), tmp_path)
    campaign.subject = chaos.Subject("stuck", lambda folder: time.sleep(60), lambda folder: {})
    campaign.finish(tmp_path / "a", "a plain run")
    assert "stuck, a plain run, then resumed: SIGALRM" in campaign.failures[0]
    assert "test_chaos.py" in campaign.failures[0]


@linux
def test_a_run_killed_inside_the_lock_of_the_bars_stops_no_other(tmp_path, monkeypatch):
    def killed(folder):
        with chaos.tqdm.get_lock():
            if not folder.exists():
                folder.mkdir()
                chaos.shoot("")
        list(chaos.tqdm(range(3)))

    (tmp_path / "undisturbed").mkdir()
    monkeypatch.setattr(chaos, "HANGS", 20)
    campaign = chaos.Campaign(chaos.Subject("killed", killed, lambda folder: {}), tmp_path)
    assert not campaign.disturbed(tmp_path / "a", "killed")
    campaign.finish(tmp_path / "a", "killed")
    assert campaign.failures == []
