"""Every name of the list: from a cold start through the hub on loopback, then loaded by a process that may not connect.

What it connects to is watched from outside, by strace where that is installed, else refused inside.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save
from test_encoder_families import CLIP, SIGLIP, open_clip_folder

from encoder_folders import hugging_face_folder
from loopback.world import digest
from rscir_lib.encoders import hub

pytestmark = pytest.mark.slow  # real clients against a server on loopback, and a process under strace
ENTRIES = [(n, key, one) for n, each in hub.PUBLISHED.items() for key, one in each.items() if one.addresses()]
MODELS = {
    name: CLIP | {"quick_gelu": "quickgelu" in name, "embed_dim": 16 + 2 * row}
    for row, name in enumerate(sorted({one.model for _, _, one in ENTRIES if one.model}))
}
LOADER = """
import json, socket, sys
import open_clip
def refuse(*arguments):
    raise OSError("a connection")
if sys.argv[2] == "refuse":
    socket.socket.connect = socket.socket.connect_ex = refuse
models, digests, entries = json.load(open(sys.argv[1]))
open_clip.factory._MODEL_CONFIGS.update(models)
from dataclasses import replace
from PIL import Image
from rscir_lib.encoders import hub, load_encoder
for key, facts in digests.items():
    name, architecture = key.split("/", 1)
    hub.PUBLISHED[name][architecture] = replace(hub.PUBLISHED[name][architecture], **facts)
for name, architecture in entries:
    encoder = load_encoder(name, architecture, "cpu")
    image = encoder.encode_images(encoder.preprocess(Image.new("RGB", (50, 40), "green"))[None])
    print(json.dumps([name, architecture, encoder.dim, float((image @ encoder.encode_texts(["a red roof"]).T)[0, 0])]))
"""


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def published_files(world, one, folder):
    """What its authors hold, in the form in which they do, with random weights; size and sha256, where known."""
    if one.repository.startswith("lcybuaa"):
        hugging_face_folder(folder, "siglip")
    elif not one.model:
        open_clip_folder(folder, SIGLIP if "SigLIP" in one.repository else SIGLIP | {"text_cfg": CLIP["text_cfg"]})
    else:
        config = MODELS[one.model]
        weights = dict(open_clip.CLIP(**config).state_dict())
        if not one.file:
            folder.mkdir()
            (folder / "open_clip_model.safetensors").write_bytes(save(weights))
            (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    if not one.file:
        world.hub[one.repository, "model"] = files_of(folder)
        return {}
    torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, data := io.BytesIO())
    content = data.getvalue()
    if one.web:
        with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
            archive.writestr("SkyCLIP/checkpoints/epoch_20.pt", content)
        world.web[one.web] = packed.getvalue()
    elif "/" in one.repository:
        world.hub.setdefault((one.repository, "model"), {})[one.file] = content
        world.hub.setdefault(("revisions", one.repository), {})[one.revision] = b""
    else:
        world.drive[one.drive] = (one.file, content)
    return {"size": len(content), "sha256": digest(content)} if one.sha256 else {}


def test_every_name_from_a_cold_start_and_then_offline(started, tmp_path, monkeypatch, capsys):
    home = {"RSCIR_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": str(tmp_path / "hf")}
    for key, value in (started.environment | home).items():
        monkeypatch.setenv(key, value)
    torch.manual_seed(0)
    digests, lines = {}, {}
    for row, (name, architecture, one) in enumerate(ENTRIES):
        digests[f"{name}/{architecture}"] = facts = published_files(started, one, tmp_path / str(row))
        monkeypatch.setitem(hub.PUBLISHED, name, hub.PUBLISHED[name] | {architecture: replace(one, **facts)})
        assert hub.find(hub.published_as(name, architecture)) is None
        started.sent = 0
        hub.fetch(hub.published_as(name, architecture), lambda said: None, timeout=5, pause=0.001)
        lines[name, architecture] = started.sent
    given = tmp_path / "given.json"
    given.write_text(json.dumps([MODELS, digests, [entry[:2] for entry in ENTRIES]]))
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "-qq", "-e", "trace=connect", "-o", str(trace)] if shutil.which("strace") else []
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "PYTHONPATH": str(Path(__file__).parents[2])}
    started.asked.clear()
    done = subprocess.run(
        [*strace, sys.executable, "-W", "ignore", "-c", LOADER, str(given), "watch" if strace else "refuse"],
        env=os.environ | home | nowhere, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = {(name, key): (dim, score) for name, key, dim, score in map(json.loads, done.stdout.splitlines())}
    connects = re.findall(r"connect\(.*AF_INET6?.*", trace.read_text()) if strace else []
    assert loaded.keys() == lines.keys()
    assert connects == []
    assert started.asked == []
    with capsys.disabled():
        print(f"\n{len(loaded)} names, fetched from the hub, Drive and S3 on loopback, then loaded by another process:")
        for key, sent in lines.items():
            print(f"  {key[0]:13} {key[1]:14} {sent:10,} bytes fetched, {loaded[key][0]:3} numbers a picture")
        print(f"connects of that process to any network: {len(connects)} ({'strace' if strace else 'refused inside'})")
