"""Names to files: who published which weights where, where they lie on this machine, and how they come there.

Weights lie once a person, in `home()`, whatever pictures they are for. Nothing here is called by loading an encoder but
`find`, which looks and never asks: only `fetch` makes requests, for what a person has named.
"""

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

import open_clip
import platformdirs
import requests
from huggingface_hub import constants, get_token, try_to_load_from_cache

from rscir_lib.storage.atomic import write_file, write_json
from rscir_lib.storage.digests import sha256_of_file
from rscir_lib.storage.downloads import NotFetched, download
from rscir_lib.storage.locks import folder_lock

NAMES = [  # of weights in folders, the best first; an index lists several files
    name + suffix
    for name in ("open_clip_model", "open_clip_pytorch_model", "model")
    for suffix in (".safetensors", ".safetensors.index.json", ".bin")
]
BESIDE = (  # what a folder needs beside its weights, where the repository has it
    "open_clip_config.json config.json preprocessor_config.json processor_config.json tokenizer.json "
    "tokenizer_config.json special_tokens_map.json vocab.json merges.txt spiece.model tokenizer.model"
).split()
DIGESTS = "digests.json"  # in the home: what each file was when it first came
TEMPORARY = ("*.incomplete", "*.??????????*.part")  # of huggingface_hub's and of gdown's that were killed


@dataclass(frozen=True)
class Published:
    """Weights as their authors published them. A digest that isn't known is taken from the first download."""

    repository: str  # owner/name on the hub, or for files from elsewhere a name for their folder
    file: str = ""  # in the repository; "" for its model as a folder
    licence: str = "see its page"
    revision: str = "main"
    size: int | None = None  # bytes
    sha256: str | None = None
    web: str = ""  # where the hub has none: the address of a file, or of a zip that holds one
    drive: str = ""  # id on Google Drive, asked last

    @property
    def place(self) -> Path:
        """Its file or folder in the home."""
        return home() / self.repository.replace("/", "--") / self.file

    @property
    def source(self) -> str:
        """Where to look at it with a browser."""
        return f"{constants.ENDPOINT}/{self.repository}" if "/" in self.repository else self.addresses()[0]

    def addresses(self, kind: str = "model") -> list[str]:
        """Of its file, the best place first."""
        above = "datasets/" if kind == "dataset" else ""
        hub = f"{constants.ENDPOINT}/{above}{self.repository}/resolve/{self.revision}/{quote(self.file)}"
        drive = f"https://drive.google.com/uc?id={self.drive}&export=download"
        return [hub] * ("/" in self.repository) + [self.web] * bool(self.web) + [drive] * bool(self.drive)


def _each(repository: str, licence: str, revision: str, files: dict[str, tuple]) -> dict[str, Published]:
    return {name: Published(repository, file, licence, revision, *facts) for name, (file, *facts) in files.items()}


def _folders(licence: str, **repositories: str) -> dict[str, Published]:
    return {name.replace("_", "-"): Published(place, licence=licence) for name, place in repositories.items()}


_SKYSCRIPT = "https://opendatasharing.s3.us-west-2.amazonaws.com/SkyScript/ckpt/SkyCLIP_"
# name -> architecture, the default one first -> its weights
PUBLISHED: dict[str, dict[str, Published]] = {
    "clip": {
        "ViT-L-14": Published("weicom", "CLIP-ViT-L-14.bin", "MIT", drive="1F9Kk7PZXhkv1KkCN0CCrctE5nnS1DmUv"),
    },
    "remoteclip": _each("chendelong/RemoteCLIP", "Apache-2.0", "bf1d8a3ccf2ddbf7c875705e46373bfe542bce38", {
        "ViT-L-14": ("RemoteCLIP-ViT-L-14.pt", 1_710_613_765,
            "fcc2a7e21e171f4ffcb7a9c0206b8b74ac0c9eb83c67b576958b7a4ed6c8cecb",
            "", "1zAqlxASKvNTFQB-ftf6Wn42nFX5IeTKB"),
        "ViT-B-32": ("RemoteCLIP-ViT-B-32.pt", 605_208_421,
            "60014e395d930a3f2963d1d89c8522bf4ad56775571e4356e866864789af85c4"),
        "RN50": ("RemoteCLIP-RN50.pt", 408_397_807,
            "11657d33a87fc197e19a7654a76a632415ebea42feb8a61025ef389f8990c0f9"),
    }),
    "clip-openai": _folders(
        "MIT", ViT_B_32="timm/vit_base_patch32_clip_224.openai", ViT_L_14="timm/vit_large_patch14_clip_224.openai",
        RN50="timm/resnet50_clip.openai",
    ),
    "clip-laion2b": _folders(
        "MIT", ViT_B_32="laion/CLIP-ViT-B-32-laion2B-s34B-b79K", ViT_L_14="laion/CLIP-ViT-L-14-laion2B-s32B-b82K"
    ),
    "georsclip": _each("Zilun/GeoRSCLIP", "cc-by-4.0", "main", {
        "ViT-L-14": ("ckpt/RS5M_ViT-L-14.pt", 1_710_635_010,
            "9119b7731c17dd66fae13619203f33900946fe0660095ed54d8e6c7cfe8d03c0"),
        "ViT-L-14-336": ("ckpt/RS5M_ViT-L-14-336.pt", 1_711_947_530,
            "b0c2c660e917a7235f7aec346556d2696cbf419249cf75bcd8c17b822b76428c"),
        "ViT-B-32": ("ckpt/RS5M_ViT-B-32.pt",),
        "ViT-H-14": ("ckpt/RS5M_ViT-H-14.pt",),
    }),
    # top50pct is what others compare with
    "skyclip": {
        "ViT-L-14": Published("skyscript", "SkyCLIP-ViT-L-14.pt", "MIT", web=f"{_SKYSCRIPT}ViT_L14_top50pct.zip"),
        "ViT-B-32": Published("skyscript", "SkyCLIP-ViT-B-32.pt", "MIT", web=f"{_SKYSCRIPT}ViT_B32_top50pct.zip"),
    },
    "farslip": {"ViT-B-32": Published("ZhenShiL/FarSLIP", "FarSLIP1_ViT-B-32.pt", "MIT")},
    "siglip2": _folders("Apache-2.0", ViT_B_16="timm/ViT-B-16-SigLIP2", ViT_L_16_256="timm/ViT-L-16-SigLIP2-256"),
    "pe-core": _folders("Apache-2.0", ViT_L_14_336="timm/PE-Core-L-14-336", ViT_B_16="timm/PE-Core-B-16"),
    "git-rsclip": _folders("see its page", large="lcybuaa/Git-RSCLIP", base="lcybuaa/Git-RSCLIP-base"),
}  # fmt: skip


def home() -> Path:
    """The folder of the weights: models/ in RSCIR_HOME, or in the system's folder of a person's data."""
    return Path(os.environ.get("RSCIR_HOME") or platformdirs.user_data_dir("rscir", appauthor=False)) / "models"


def published_as(name: str, architecture: str | None = None) -> Published | None:
    """What a name of `PUBLISHED`, a repository "hf-hub:owner/name[@revision]", or a tag of open_clip's such as
    "ViT-B-32/laion2b_s34b_b79k" stands for; None for any other name. Raises ValueError for half a repository."""
    if name in PUBLISHED:
        return PUBLISHED[name].get(architecture or next(iter(PUBLISHED[name])))
    if name.startswith("hf-hub:"):
        repository, _, revision = name.removeprefix("hf-hub:").partition("@")
        if repository.count("/") != 1 or not all(part.strip(".") for part in repository.split("/")):
            raise ValueError(f"{name!r} names no repository: write hf-hub:owner/name")
        return Published(repository, revision=revision or "main")
    model, _, tag = name.rpartition("/")
    place = open_clip.pretrained.get_pretrained_cfg(model, tag).get("hf_hub") if model and tag else None
    return Published(*os.path.split(place)) if place else None


def find(published: Published) -> Path | None:
    """Its file or folder on this machine, in the home or in the cache of the hub's own client, or None; asks nobody."""
    if published.place.is_file() or (not published.file and weights_in(published.place)):
        return published.place
    for file in [published.file] if published.file else ["open_clip_config.json", "config.json"]:
        cached = "/" in published.repository and try_to_load_from_cache(
            published.repository, file, revision=published.revision
        )
        if isinstance(cached, str):
            return Path(cached) if published.file else Path(cached).parent
    return None


def weights_in(folder: Path) -> Path | None:
    """The file of weights of a folder, or the index of several."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def recorded(path: Path) -> str | None:
    """sha256 that a file in the home had when it first came."""
    return _digests().get(path.relative_to(home()).as_posix()) if path.is_relative_to(home()) else None


def _digests() -> dict[str, str]:
    path = home() / DIGESTS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def fetch(published: Published, say: Callable[[str], object] = print, **options: float) -> Path:
    """Bring weights to the home, and say before what, how much, from where, under which licence.

    Args:
        published: What to fetch.
        say: Is called with each sentence.
        options: `timeout` and `pause` of `download`.

    Returns:
        The file or folder; what stands there isn't fetched again.

    Raises:
        NotFetched: Saying what each place answered and what helps.
    """
    files, licence = {published.file: (published.size, published.sha256)}, published.licence
    if "/" in published.repository and published.sha256 is None:
        listed, licence = _listing(published)
        wanted = [published.file] if published.file else files_of_a_model(listed)
        if not wanted or not listed.keys() >= set(wanted):
            raise NotFetched(f"{published.source} has no {published.file or 'weights in a form that can be read'}")
        files = {file: listed[file] for file in wanted}
    missing = [one for file in files if not (one := replace(published, file=file)).place.is_file()]
    if missing:
        sizes = [files[one.file][0] for one in missing]
        much = "a file of unknown size" if None in sizes else f"{sum(sizes) / 1e6:,.0f} MB"
        say(f"fetching {much} from {published.source} (licence: {licence}) to {published.place}")
        for one in missing:
            _fetch_file(one, *files[one.file], options)
        for path in (path for pattern in TEMPORARY for path in home().rglob(pattern)):
            say(f"{path} was left by a download of another program ({path.stat().st_size:,} bytes): yours to delete")
    return published.place


def _fetch_file(one: Published, size: int | None, sha256: str | None, options: dict[str, float]) -> None:
    """One file to its place, equal to what first came under its name."""
    key, packed = one.place.relative_to(home()).as_posix(), one.web.endswith(".zip")
    before = _digests().get(key)
    if before and sha256 and before != sha256:
        raise NotFetched(
            f"{one.source} now has another {one.file} (sha256 {sha256[:12]}) than first came here ({before[:12]}). "
            f"Where its authors say so, take {key} out of {home() / DIGESTS} and run this again"
        )
    target = one.place.with_suffix(".zip") if packed else one.place
    if packed:
        target.is_file() or download(target, one.addresses(), size, sha256, **options)
        came = _unpack(target, one.place)
    else:
        came = download(target, one.addresses(), size, sha256 or before, _signed(one), **options)
    if before not in (None, came):
        one.place.unlink()
        raise NotFetched(f"{one.source} holds another file (sha256 {came[:12]}) than first came here ({before[:12]})")
    with folder_lock(home()):
        write_json(home() / DIGESTS, _digests() | {key: came})


def _signed(published: Published) -> dict[str, str]:
    """Who asks, for a repository that isn't everybody's."""
    token = get_token() if "/" in published.repository else None
    return {"Authorization": f"Bearer {token}"} if token else {}


def _unpack(packed: Path, target: Path) -> str:
    """The one checkpoint in a zip, as a file of its own; the zip goes. Returns its sha256."""
    with zipfile.ZipFile(packed) as archive:
        inside = [member for member in archive.infolist() if member.filename.endswith(".pt")]
        if len(inside) != 1:
            raise NotFetched(f"{packed} holds {len(inside)} files *.pt, one is expected")
        with archive.open(inside[0]) as file:
            write_file(target, partial(shutil.copyfileobj, file))
    packed.unlink()
    return sha256_of_file(target)


def _listing(published: Published) -> tuple[dict[str, tuple[int | None, str | None]], str]:
    """path -> (bytes, sha256 where the hub knows it) of a repository's files, and its licence."""
    address = f"{constants.ENDPOINT}/api/models/{published.repository}/revision/{quote(published.revision, safe='')}"
    try:
        response = requests.get(address, {"blobs": "true"}, headers=_signed(published), timeout=30)
    except requests.RequestException as error:
        raise NotFetched(
            f"{published.source} can't be reached ({type(error).__name__}). On a machine without network: fetch it on "
            f"another, and put its files into {published.place}"
        ) from error
    if not response.ok:
        why = "there is none of this name, or it is private: `hf auth login`" if response.status_code == 401 else ""
        raise NotFetched(f"{published.source} answered {response.status_code} {why or response.reason}")
    facts = response.json()
    files = {}
    for file in facts["siblings"]:
        files[file["rfilename"]] = (file.get("size"), file.get("lfs", {}).get("sha256"))
    card = facts.get("cardData") or {}
    return files, card.get("license_name") or card.get("license") or published.licence


def files_of_a_model(listed: Iterable[str]) -> list[str]:
    """The files of a repository that make a folder to load: one kind of weights, and what stands beside."""
    listed = list(listed)
    own = "open_clip_config.json" in listed
    names = [name for name in NAMES if own or name.startswith("model.")]
    weights = next((name for name in names if name in listed), None)
    if weights is None or not (own or "config.json" in listed):
        return []
    parts = []
    if weights.endswith(".index.json"):
        stem = weights.removesuffix(".safetensors.index.json")
        parts = [name for name in listed if name.startswith(f"{stem}-") and name.endswith(".safetensors")]
    return [name for name in listed if name in BESIDE] + parts + [weights]
