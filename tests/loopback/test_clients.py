"""The world on the loopback interface speaks as the real one does: the real clients run against it, unpatched.

And what they do with a connection that is cut, which is why `storage.downloads` is our own.
"""

import json
import os
import random
import subprocess
import sys

import pytest

from loopback.world import Fault, World, digest

CONTENT = random.Random(0).randbytes(300_000)
FILE, FOLDER, INSIDE = "1F9Kk7PZXhkv1KkCN0CCrctE5nnS1DmUv", "1NP2Ryj4V2L_wwInQB6HjzPDPRH2k0J5U", "1" + "a" * 32
pytestmark = pytest.mark.slow  # real clients against a server on loopback
LAION = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
OPENAI = f"https://openaipublic.azureedge.net/clip/models/{digest(CONTENT)}/RN50.pt"
CODE = """
import hashlib, json, sys
def tried(do):
    try:
        path = do()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return hashlib.sha256(open(path, "rb").read()).hexdigest() if isinstance(path, str) else path
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("world")) as world:
        world.hub[LAION, "model"] = {"open_clip_model.safetensors": CONTENT, "README.md": b"LAION's"}
        world.drive = {FILE: ("a.bin", CONTENT), INSIDE: ("color.csv", b"a.jpg,color,red")}
        world.folders[FOLDER] = [(INSIDE, "color.csv")]
        world.web[OPENAI] = CONTENT
        yield world


def ask(world, folder, *expressions, faults=()):
    """What each expression gives in one fresh process that imports the clients."""
    lines = "\n".join(f"answers.append(tried(lambda: {expression}))" for expression in expressions)
    tower = "import open_clip" if "open_clip." in lines else ""  # torch takes seconds
    code = f"{CODE}\n{tower}\nimport gdown, huggingface_hub as hub\nanswers = []\n{lines}\nprint(json.dumps(answers))"
    world.faults.clear()
    world.faults.extend(faults)
    world.asked.clear()
    world.sent = 0
    home = {"HF_HOME": str(folder / "hf"), "HOME": str(folder), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command, env = [sys.executable, "-c", code], os.environ | world.environment | home
    process = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def test_whole(world, tmp_path):
    answers = ask(
        world, tmp_path,
        f"hub.hf_hub_download('{LAION}', 'open_clip_model.safetensors')",
        "open_clip.download_pretrained(open_clip.get_pretrained_cfg('ViT-B-32', 'laion2b_s34b_b79k'))",
        f"open_clip.download_pretrained_from_url('{OPENAI}')",
        f"gdown.download(id='{FILE}', output='a.bin', quiet=True)",
        f"gdown.download_folder(id='{FOLDER}', output='folder', quiet=True)",
        f"hub.hf_hub_download('{LAION}', 'no.bin')",
        "hub.hf_hub_download('no/body', 'no.bin')",
        f"[(file.rfilename, file.size, file.lfs and file.lfs.sha256) for file in hub.HfApi().model_info('{LAION}', "
        "files_metadata=True).siblings]",
    )  # fmt: skip
    assert answers[:4] == [digest(CONTENT)] * 4
    assert answers[4] == ["folder/color.csv"]
    assert "EntryNotFoundError: 404" in answers[5]
    assert "RepositoryNotFoundError: 401" in answers[6]
    assert ["open_clip_model.safetensors", len(CONTENT), digest(CONTENT)] in answers[7]
    assert (tmp_path / ".cache/gdown/cookies.txt").read_text().count("NID")  # Drive's cookie was kept


def test_gated_and_over_quota(world, tmp_path):
    world.gated.add(LAION)
    world.over_quota.add(FILE)
    try:
        answers = ask(
            world, tmp_path,
            f"hub.hf_hub_download('{LAION}', 'open_clip_model.safetensors')",
            f"gdown.download(id='{FILE}', output='a.bin', quiet=True)",
            f"hub.hf_hub_download('{LAION}', 'open_clip_model.safetensors', token='hf_x')",
        )  # fmt: skip
    finally:
        world.gated.clear()
        world.over_quota.clear()
    assert "GatedRepoError: 401" in answers[0]
    assert "FileURLRetrievalError" in answers[1]
    assert "Too many users" in answers[1]
    assert answers[2] == digest(CONTENT)


def test_cut(world, tmp_path):
    """Each goes on within a call at best; the bytes that a broken call has got are fetched again, or in the way."""
    cut = [Fault("cut", 200_000)]
    hub = f"hub.hf_hub_download('{LAION}', 'open_clip_model.safetensors')"
    assert ask(world, tmp_path, hub, faults=cut) == [digest(CONTENT)]
    once = world.sent
    drive = f"gdown.download(id='{FILE}', output='a.bin', quiet=True, resume=True)"
    broken, whole = ask(world, tmp_path, drive, drive, faults=cut)
    print(f"the hub's client: {once} bytes for {len(CONTENT)}, cut once; gdown: {broken}; then {world.sent} bytes")
    assert "DownloadError" in broken
    assert whole == digest(CONTENT)
    (tmp_path / "b.binabcdefgh.part").write_bytes(CONTENT)  # nothing is missing
    (answer,) = ask(world, tmp_path, drive.replace("a.bin", "b.bin"))
    assert "did not honor the requested byte range" in answer
