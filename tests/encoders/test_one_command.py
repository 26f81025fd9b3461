"""`make explore DATASET_ROOT=~/pictures ENCODER=clip-openai`, as a person types it, with and without network.

The real command in processes of its own, against the hub on the loopback interface; the weights are random and few.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from test_encoder_families import CLIP

from loopback.world import Fault, digest

pytestmark = pytest.mark.slow  # processes that import torch, and a server on loopback
ROOT = Path(__file__).parents[2]
NAME, REPOSITORY, FILE = "ViT-B-32-quickgelu", "timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors"
# open_clip's model of that name, in small
SMALL = """
import sys, open_clip
open_clip.factory._MODEL_CONFIGS[{name!r}] = {config!r}
from rscir_lib.apps.commands.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def place(started, tmp_path_factory):
    """A folder with three photographs, and the hub that holds the weights."""
    folder = tmp_path_factory.mktemp("one command")
    (folder / "my pictures").mkdir()
    for number in range(3):
        Image.new("RGB", (50, 40), (80 * number, 90, 60)).save(folder / "my pictures" / f"{number}.jpg")
    (folder / "small.py").write_text(SMALL.format(name=NAME, config=CLIP))
    torch.manual_seed(0)
    weights = save(dict(open_clip.CLIP(**CLIP).state_dict()))
    config = json.dumps({"model_cfg": CLIP}).encode()
    started.hub[REPOSITORY, "model"] = {"open_clip_config.json": config, FILE: weights}
    return folder


class Explore:
    """The command, under way. `said` is what it has written to the terminal."""

    def __init__(self, place: Path, environment: dict[str, str]) -> None:
        self.log = place / "terminal.txt"
        given = {"DATASET_ROOT": "my pictures", "ENCODER": "clip-openai", "OUTPUT_ROOT": str(place / "runs")}
        words = ["READY=", f"RSCIR={sys.executable} '{place / 'small.py'}'", *(f"{k}={v}" for k, v in given.items())]
        arguments = f"ARGS=--port 0 DEVICE=cpu 'OUTPUT_ROOT={given['OUTPUT_ROOT']}'"
        home = {"RSCIR_HOME": str(place / "home"), "HF_HUB_CACHE": str(place / "hf"), "PYTHONPATH": str(ROOT)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["make", "-C", str(place), "-f", str(ROOT / "Makefile"), "explore", *words, arguments],
                env=os.environ | environment | home, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.log.read_text()

    def until(self, true, seconds: float = 180) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.05)

    def opened(self) -> dict:
        """What the explorer says first, once it is there."""
        self.until(lambda: "the explorer is at" in self.said)
        address = re.search(r"at (http://127\.0\.0\.1:\d+/)", self.said)[1]
        asked = urllib.request.Request(f"{address}ask", json.dumps({"ask": "hello"}).encode())
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=60) as answer:
            return json.load(answer)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        os.killpg(self.process.pid, how)
        self.process.wait()


NOWHERE = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}


def test_without_network_one_sentence_says_what_to_put_where(started, place):
    command = Explore(place, started.environment | NOWHERE)
    command.process.wait(timeout=180)
    (line,) = [line for line in command.said.splitlines() if line.startswith("error: ")]
    where = place / "home" / "models" / REPOSITORY.replace("/", "--")
    assert f"https://huggingface.co/{REPOSITORY} can't be reached" in line
    assert line.endswith(
        "On a machine without network: fetch it on another, and put open_clip_config.json and "
        f"{FILE}, or config.json and model.safetensors, and where its page has them tokenizer files, into {where}"
    )
    assert not (place / "runs").exists()
    given = [f"DATASET_ROOT={place / 'my pictures'}", "ENCODER=clip-openai", f"OUTPUT_ROOT={place / 'runs'}"]
    workbook = [sys.executable, "-m", "rscir_lib", "workbook", "06", *given]
    environment = (
        os.environ | started.environment | NOWHERE | {"RSCIR_HOME": str(place / "home"), "PYTHONPATH": str(ROOT)}
    )
    done = subprocess.run(workbook, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "open_clip_config.json and open_clip_model.safetensors" in done.stderr
    assert not (place / "runs").exists()
    assert "Traceback" not in command.said


def test_it_says_what_it_fetches_resumes_after_a_kill_compares_and_opens(started, place, capsys):
    weights = started.hub[REPOSITORY, "model"][FILE]
    folder = place / "home" / "models" / REPOSITORY.replace("/", "--")
    started.faults.clear()
    started.faults.extend([Fault("none"), Fault("stall", 2_000_000)])  # the config comes whole
    started.sent = 0
    command = Explore(place, started.environment)
    command.until(lambda: any(part.stat().st_size >= 1_900_000 for part in folder.glob(f"{FILE}.*.part")))
    command.end()
    size = (len(weights) + len(started.hub[REPOSITORY, "model"]["open_clip_config.json"])) / 1e6
    told = f"fetching {size:,.0f} MB from https://huggingface.co/{REPOSITORY} (licence: mit) to {folder}"
    assert told in command.said
    (part,) = folder.glob(f"{FILE}.*.part")
    kept = part.stat().st_size
    damaged = bytearray(part.read_bytes())
    started.sent = 0
    command = Explore(place, started.environment)
    assert command.opened()["files"] == ["0.jpg", "1.jpg", "2.jpg"]
    command.end()
    assert started.sent == len(weights) - kept, "what had come is not fetched again"
    assert f"{FILE}: 100%" in command.said
    assert digest((folder / FILE).read_bytes()) == digest(weights)

    # a part that was damaged meanwhile is noticed by its digest, and fetched anew
    (folder / FILE).unlink()
    damaged[1000] ^= 1
    part.write_bytes(damaged)
    started.sent = 0
    command = Explore(place, started.environment)
    command.opened()
    command.end()
    assert started.sent == 2 * len(weights) - kept
    assert digest((folder / FILE).read_bytes()) == digest(weights)

    started.asked.clear()
    command = Explore(place, started.environment | NOWHERE)
    hello = command.opened()
    command.end()
    assert started.asked == []
    assert "fetching" not in command.said
    assert hello["notice"] == ""
    with capsys.disabled():
        print(f"\nmake explore: {len(weights):,} bytes, killed at {kept:,}, went on; damaged: anew; then offline")
