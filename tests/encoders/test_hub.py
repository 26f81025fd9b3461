"""Names to files: the registry, open_clip's tags and any repository of the hub, fetched from the loopback world."""

import io
import json
import random
import zipfile
from dataclasses import replace

import huggingface_hub
import open_clip
import pytest

from loopback.world import COMMIT, digest
from rscir_lib.apps.commands import cli
from rscir_lib.encoders import hub
from rscir_lib.encoders.hub import (
    PUBLISHED,
    Published,
    fetch,
    files_of_a_model,
    find,
    find_or_fetch,
    home,
    published_as,
    recorded,
)
from rscir_lib.storage.downloads import NotFetched

FAST = {"timeout": 2, "pause": 0.001}
PLACES = [(name, key) for name, each in PUBLISHED.items() for key, one in each.items() if one.addresses()]


def content(name):
    return random.Random(name).randbytes(2000)


@pytest.fixture
def world(started, monkeypatch, tmp_path):
    for key, value in (
        started.environment | {"RSCIR_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hf")}
    ).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    huggingface_hub.utils.close_session()  # a test before may have opened it, with another way out
    started.hub, started.drive, started.web = {}, {}, {}
    started.asked.clear()
    return started


def publish(world, published):
    """The world holds it, as its authors do; what a file would hold."""
    if published.web.endswith(".zip"):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("SkyCLIP/epoch_20.pt", content("epoch"))
        world.web[published.web] = packed.getvalue()
        return content("epoch")
    if published.drive:
        world.drive[published.drive] = (published.file, content(published.file))
        return content(published.file)
    files = (
        [published.file] if published.file else ["open_clip_config.json", "open_clip_model.safetensors", "README.md"]
    )
    world.hub.setdefault((published.repository, "model"), {}).update({name: content(name) for name in files})
    world.hub.setdefault(("revisions", published.repository), {})[published.revision] = b""
    return content(published.file or "open_clip_model.safetensors")


@pytest.mark.parametrize(("name", "architecture"), PLACES)
@pytest.mark.slow
def test_every_name_from_a_cold_start(world, name, architecture):
    published = published_as(name, architecture)
    expected = publish(world, published)
    if published.sha256:  # of the real bytes
        published = replace(published, size=len(expected), sha256=digest(expected))
    assert find(published) is None
    said = []
    place = fetch(published, said.append, **FAST)
    weights = place if published.file else place / "open_clip_model.safetensors"
    assert weights.read_bytes() == expected
    assert recorded(weights) == digest(expected)
    assert find(published) == place
    assert published.source.split("?")[0] in said[0]
    assert (
        f"licence: {'mit' if published.repository.count('/') and not published.sha256 else published.licence}"
        in said[0]
    )
    assert not list(home().rglob("*.part")) + list(home().rglob("*.zip"))
    world.asked.clear()
    assert fetch(published, said.append, **FAST) == place
    assert len(said) == 1, "nothing is fetched twice"
    assert not [address for address in world.addresses() if "/api/" not in address]


def test_defaults():
    assert {name: next(iter(each)) for name, each in PUBLISHED.items()} == {
        "clip": "ViT-L-14", "remoteclip": "ViT-L-14", "clip-openai": "ViT-B-32", "clip-laion2b": "ViT-B-32",
        "georsclip": "ViT-L-14", "skyclip": "ViT-L-14", "farslip": "ViT-B-32", "siglip2": "ViT-B-16",
        "pe-core": "ViT-L-14-336", "git-rsclip": "large",
    }  # fmt: skip


def test_open_clips_tags():
    """All that open_clip lists lie on the hub; what its own function would ask for is what we ask for."""
    for model, tag in open_clip.list_pretrained():
        published = published_as(f"{model}/{tag}")
        repository, _, file = open_clip.pretrained.get_pretrained_cfg(model, tag)["hf_hub"].rpartition("/")
        assert (published.repository, published.file) == (repository, file)
        assert published.repository.count("/") == 1
    assert len(open_clip.list_pretrained()) >= 196


@pytest.mark.parametrize("name", ["hf-hub:", "hf-hub:owner", "hf-hub:owner/", "hf-hub:../..", "hf-hub:a/b/c"])
def test_no_repository(name):
    with pytest.raises(ValueError, match="write hf-hub:owner/name"):
        published_as(name)


def test_no_name():
    assert published_as("no/such") is published_as("demo") is published_as("") is None


@pytest.mark.parametrize(
    ("listed", "wanted"),
    [
        # LAION's: both forms, four kinds of weights
        ("open_clip_config.json open_clip_pytorch_model.bin open_clip_pytorch_model.safetensors config.json README.md "
         "model.safetensors pytorch_model.bin tokenizer.json",
         "open_clip_config.json config.json tokenizer.json open_clip_pytorch_model.safetensors"),
        ("open_clip_config.json open_clip_pytorch_model.bin", "open_clip_config.json open_clip_pytorch_model.bin"),
        ("config.json model.safetensors spiece.model preprocessor_config.json flax_model.msgpack",
         "config.json spiece.model preprocessor_config.json model.safetensors"),
        ("config.json model.safetensors.index.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors",
         "config.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json"),
        ("config.json pytorch_model.bin", ""),
        ("config.json open_clip_model.safetensors", ""),
        ("model.safetensors", ""),
    ],
)  # fmt: skip
def test_files_of_a_model(listed, wanted):
    assert files_of_a_model(listed.split()) == wanted.split()


def test_a_repository_and_its_revision(world):
    one = published_as(f"hf-hub:owner/name@{COMMIT}")
    publish(world, one)
    assert fetch(one, print, **FAST) == home() / "owner--name"
    assert {path.name for path in one.place.iterdir() if path.suffix != ".lock" and path.name[0] != "."} == {
        "open_clip_config.json", "open_clip_model.safetensors"
    }  # fmt: skip
    assert [address for address in world.addresses("huggingface.co/") if COMMIT not in address] == []


@pytest.mark.parametrize("answer", ["[]", "{}", '{"siblings": null}', "<html>", '{"siblings": [{"size": 1}]}', "[1"])
def test_an_answer_that_lists_no_files(world, monkeypatch, answer):
    one = Published("owner/name")
    publish(world, one)
    monkeypatch.setattr(hub, "text_of", lambda response: answer)
    with pytest.raises(NotFetched, match=r"owner/name answered with something else than a list of its files"):
        fetch(one, print, **FAST)


def test_no_name_of_a_listing_leads_out_of_the_folder():
    listed = ["config.json", "model.safetensors.index.json", "model-1.safetensors", "model-/../../x.safetensors"]
    assert files_of_a_model(listed) == ["config.json", "model-1.safetensors", "model.safetensors.index.json"]


def test_trust_on_first_use(world):
    one = Published("owner/name", "weights.pt")
    publish(world, one)
    place = fetch(one, print, **FAST)
    place.unlink()
    world.hub["owner/name", "model"]["weights.pt"] = content("another")
    with pytest.raises(NotFetched, match=r"now has another weights.pt .* take owner--name/weights.pt out of .*digests"):
        fetch(one, print, **FAST)
    at_drive = Published("owner", "weights.pt", drive="x" * 33)
    publish(world, at_drive)
    fetch(at_drive, print, **FAST).unlink()
    world.drive["x" * 33] = ("weights.pt", content("another"))
    with pytest.raises(NotFetched, match=r"with sha256 .*, expected"):
        fetch(at_drive, print, **FAST)
    assert not at_drive.place.exists()
    sky = Published("sky", "s.pt", web="https://x.s3.us-west-2.amazonaws.com/s.zip")
    publish(world, sky)
    fetch(sky, print, **FAST).unlink()
    (home() / hub.DIGESTS).write_text(json.dumps({"sky/s.pt": "0" * 64}))
    with pytest.raises(NotFetched, match=r"now has another s.pt .* than at first"):
        fetch(sky, print, **FAST)
    assert not sky.place.exists()


@pytest.mark.parametrize(
    "one", [Published("owner/name", "weights.pt"), Published("owner/name")], ids=["file", "folder"]
)
def test_a_kill_before_the_digest_is_recorded_loses_no_record(world, one):
    """Fetched again, or found by a command that fetches only what isn't there, which then asks nobody."""
    publish(world, one)
    fetch(one, print, **FAST)
    before = json.loads((home() / hub.DIGESTS).read_text())
    assert before
    (home() / hub.DIGESTS).unlink()
    fetch(one, print, **FAST)
    assert json.loads((home() / hub.DIGESTS).read_text()) == before
    (home() / hub.DIGESTS).unlink()
    world.asked.clear()
    assert find_or_fetch(one) == one.place
    assert json.loads((home() / hub.DIGESTS).read_text()) == before
    assert not world.asked


def test_found_in_the_cache_of_the_hubs_client(world, tmp_path):
    one = published_as("hf-hub:owner/name")
    publish(world, one)
    huggingface_hub.snapshot_download("owner/name", cache_dir=tmp_path / "hf")
    world.asked.clear()
    place = find(one)
    assert (place / "open_clip_model.safetensors").read_bytes() == content("open_clip_model.safetensors")
    assert find(replace(one, file="open_clip_model.safetensors")) == place / "open_clip_model.safetensors"
    assert find(replace(one, file="weights.pt")) is None
    assert not world.asked


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf-hub:no/body", "https://huggingface.co/no/body answered 401 there is none of this name, or it is private"),
        ("hf-hub:owner/text", "has no weights in a form that can be read"),
        ("hf-hub:owner/text@v3", "answered 404|has no weights"),
    ],
)
def test_refused(world, name, said):
    world.hub["owner/text", "model"] = {"README.md": b"?"}
    with pytest.raises(NotFetched, match=said):
        fetch(published_as(name), print, **FAST)


def test_no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("RSCIR_HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(
        NotFetched, match=r"can't be reached .*On a machine without network: fetch it on another, and put"
    ):
        fetch(published_as("clip-openai"), print, **FAST)


def test_another_programs_leftovers_are_told(world):
    one = Published("owner/name", "weights.pt")
    publish(world, one)
    home().mkdir(parents=True)
    (home() / "0f.12345678.incomplete").write_bytes(bytes(1234))
    said = []
    fetch(one, said.append, **FAST)
    assert "0f.12345678.incomplete was left by a download of another program (1,234 bytes): yours to delete" in said[1]


def test_the_list_says_all_of_every_name(world, capsys):
    here = published_as("remoteclip", "RN50")
    here.place.parent.mkdir(parents=True)
    here.place.write_bytes(b"weights")
    cli.list_encoders()
    lines = capsys.readouterr().out.splitlines()
    for name, each in PUBLISHED.items():
        for architecture, one in each.items():
            line = next(line for line in lines if line.split()[:2] == [name, architecture])
            for fact in (one.licence, one.activation, one.source or "given by its authors"):
                assert f" {fact} " in line
            assert (f"{one.size / 1e6:,.0f} MB" if one.size else " ? ") in line
            assert line.endswith(str(here.place) if one == here else "  not here")
    assert {one.activation for each in PUBLISHED.values() for one in each.values()} == {
        "GELU", "QuickGELU", "as its config says"
    }  # fmt: skip
    assert str(home()) in lines[-1]
    assert not world.asked
