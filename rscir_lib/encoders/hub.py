"""Who published which weights where, where they lie on this machine, and how they come there.

Each person has one copy of the weights, in `home()`, whatever pictures they are for. Loading an encoder calls `find`,
which looks on this machine: only `fetch` makes requests, for what a person has named.
"""

import json
import os
import shutil
import tomllib
import zipfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import platformdirs
import requests
from huggingface_hub import constants, get_token, try_to_load_from_cache

from rscir_lib.encoders.base import one_of
from rscir_lib.storage.atomic import write_file, write_json
from rscir_lib.storage.digests import sha256_of_file
from rscir_lib.storage.downloads import NotFetched, download, text_of
from rscir_lib.storage.locks import folder_lock
from rscir_lib.storage.project import DATA

NAMES = [  # of weights in folders, the best first; an index lists several files
    name + suffix
    for name in ("open_clip_model", "open_clip_pytorch_model", "model")
    for suffix in (".safetensors", ".safetensors.index.json", ".bin")
]
BESIDE = (  # what a folder needs beside its weights, where the repository has it
    "open_clip_config.json config.json preprocessor_config.json processor_config.json tokenizer.json "
    "tokenizer_config.json special_tokens_map.json vocab.json merges.txt spiece.model tokenizer.model"
).split()
DIGESTS = "digests.json"  # in the home: the sha256 of each file at its first download
TEMPORARY = ("*.incomplete", "*.??????????*.part")  # left by downloads of huggingface_hub and gdown that were killed


@dataclass(frozen=True)
class Published:
    """Files as their authors published them. A digest that isn't known is taken from the first download."""

    repository: str  # owner/name on the hub, or for files from elsewhere a name for their folder
    file: str = ""  # in the repository; "" for its model as a folder
    licence: str = "see its page"
    revision: str = "main"
    size: int | None = None  # bytes
    sha256: str | None = None
    web: str = ""  # where the hub has none: the address of a file, or of a zip that holds one
    drive: str = ""  # id on Google Drive, tried last
    model: str = ""  # open_clip's name of it; "" where the config in its folder describes it
    mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's, of red, green, blue
    std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711)
    by_hand: str = ""  # its file under a models root, where that isn't `file`
    unverified: str = ""  # what of this no page says that could be read

    @property
    def place(self) -> Path:
        """Its file or folder in the home."""
        return home() / self.repository.replace("/", "--") / self.file

    @property
    def source(self) -> str:
        """Where to look at it with a browser."""
        return f"{constants.ENDPOINT}/{self.repository}" if "/" in self.repository else "".join(self.addresses()[:1])

    @property
    def activation(self) -> str:
        """GELU or QuickGELU, as it was trained."""
        import open_clip  # here, not above: it takes seconds

        model = open_clip.get_model_config(self.model) if self.model else None
        return "as its config says" if model is None else "QuickGELU" if model.get("quick_gelu") else "GELU"

    def addresses(self, kind: str = "model") -> list[str]:
        """Where its file can be fetched, the best place first; empty where only its authors give it."""
        above = "datasets/" if kind == "dataset" else ""
        hub = f"{constants.ENDPOINT}/{above}{self.repository}/resolve/{self.revision}/{quote(self.file)}"
        drive = f"https://drive.google.com/uc?id={self.drive}&export=download"
        return [hub] * ("/" in self.repository) + [self.web] * bool(self.web) + [drive] * bool(self.drive)


# name -> architecture, the default one first -> its weights
PUBLISHED: dict[str, dict[str, Published]] = {
    name: {architecture: Published(**facts) for architecture, facts in each.items()}
    for name, each in tomllib.loads((DATA / "published" / "encoders.toml").read_text("utf-8")).items()
}


def home() -> Path:
    """The folder of the weights: models/ in RSCIR_HOME, or in the system's folder of a person's data."""
    return Path(os.environ.get("RSCIR_HOME") or platformdirs.user_data_dir("rscir", appauthor=False)) / "models"


def published_as(name: str, architecture: str | None = None) -> Published | None:
    """What a name of `PUBLISHED`, a repository "hf-hub:owner/name[@revision]", or a tag of open_clip's such as
    "ViT-B-32/laion2b_s34b_b79k" stands for; None for any other name. Raises ValueError for half a repository and for
    an architecture that the name doesn't come in."""
    if name in PUBLISHED:
        known = PUBLISHED[name]
        return known[one_of(known, architecture or next(iter(known)), f"architecture of {name}")]
    if name.startswith("hf-hub:"):
        repository, _, revision = name.removeprefix("hf-hub:").partition("@")
        if repository.count("/") != 1 or not all(part.strip(".") for part in repository.split("/")):
            raise ValueError(f"{name!r} names no repository: write hf-hub:owner/name")
        return Published(repository, revision=revision or "main")
    model, _, tag = name.rpartition("/")
    if not model or not tag:
        return None
    from open_clip.pretrained import get_pretrained_cfg  # here, not above: it takes seconds

    listed = get_pretrained_cfg(model, tag)
    if "hf_hub" not in listed:
        return None
    repository, file = os.path.split(listed["hf_hub"])
    return Published(repository, file, model=model if file else "", mean=listed["mean"], std=listed["std"])


def find(published: Published, models_root: Path | None = None) -> Path | None:
    """Its file or folder on this machine, or None, without any request: in models_root, where a person may have put it,
    in the home, and in the cache of the hub's own client."""
    if models_root and (by_hand := models_root / (published.by_hand or published.file)).is_file():
        return by_hand
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
    """sha256 that a file in the home had at its first download."""
    return _digests().get(path.relative_to(home()).as_posix()) if path.is_relative_to(home()) else None


def _record(path: Path, sha256: str) -> None:
    with folder_lock(home()):
        write_json(home() / DIGESTS, _digests() | {path.relative_to(home()).as_posix(): sha256})


def _digests() -> dict[str, str]:
    path = home() / DIGESTS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _record_standing(published: Published) -> None:
    """Record the digests of files in the home that have none: a kill came in between, or a person put them there."""
    for path in [published.place] if published.file else published.place.glob("[!.]*.*"):
        if path.is_file() and path.suffix not in (".lock", ".part") and recorded(path) is None:
            _record(path, sha256_of_file(path))


def find_or_fetch(published: Published, models_root: Path | None = None) -> Path:
    """Where `find` finds it on this machine, or `fetch` brings it."""
    _record_standing(published)
    return find(published, models_root) or fetch(published)


def fetch(published: Published, say: Callable[[str], object] = print, **options: Any) -> Path:
    """Bring weights to the home, and `say` before what, how much, from where, under which licence.

    What stands there isn't fetched again. options: `timeout` and `pause` of `download`. Returns the file or folder;
    raises NotFetched, saying what each place answered and what helps.
    """
    if not published.addresses():
        raise NotFetched(f"{published.file} is published nowhere: its authors give it, {published.place} is its place")
    files, licence = {published.file: (published.size, published.sha256)}, published.licence
    if "/" in published.repository and published.sha256 is None:
        listed, licence = _listing(published)
        wanted = [published.file] if published.file else files_of_a_model(listed)
        if not wanted or not listed.keys() >= set(wanted):
            raise NotFetched(f"{published.source} has no {published.file or 'weights in a form that can be read'}")
        files = {file: listed[file] for file in wanted}
    missing = [one for file in files if not (one := replace(published, file=file)).place.is_file()]
    _record_standing(published)
    if missing:
        sizes = [files[one.file][0] or 0 for one in missing]
        much = f"{sum(sizes) / 1e6:,.0f} MB" if all(sizes) else "a file of unknown size"
        say(f"fetching {much} from {published.source} (licence: {licence}) to {published.place}")
        for one in missing:
            _fetch_file(one, *files[one.file], options)
        for path in (path for pattern in TEMPORARY for path in home().rglob(pattern)):
            say(f"{path} was left by a download of another program ({path.stat().st_size:,} bytes): yours to delete")
    return published.place


def _fetch_file(one: Published, size: int | None, sha256: str | None, options: dict[str, Any]) -> None:
    """Fetch one file to its place; raises NotFetched where it differs from its first download."""
    before, key = recorded(one.place), one.place.relative_to(home()).as_posix()

    def compare(now: str) -> None:
        if before not in (None, now):
            one.place.unlink(missing_ok=True)
            raise NotFetched(
                f"{one.source} now has another {one.file} (sha256 {now[:12]}) than at first ({before[:12]}). Where its "
                f"authors say so, take {key} out of {home() / DIGESTS} and run this again"
            )

    if sha256:
        compare(sha256)
    if one.web.endswith(".zip"):
        packed = one.place.with_suffix(".zip")
        packed.is_file() or download(packed, one.addresses(), size, sha256, **options)
        compare(came := _unpack(packed, one.place))
    else:
        headers = _signed() if "/" in one.repository else {}
        came = download(one.place, one.addresses(), size, sha256 or before, headers, **options)
    _record(one.place, came)


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


def _signed() -> dict[str, str]:
    """As the person who has logged in to the hub. Its own library's headers would ask it who calls, unasked."""
    wanted = not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN
    return {"Authorization": f"Bearer {token}"} if wanted and (token := get_token()) else {}


def _listing(published: Published) -> tuple[dict[str, tuple[int | None, str | None]], str]:
    """path -> (bytes, sha256 where the hub knows it) of a repository's files, and its licence."""
    address = f"{constants.ENDPOINT}/api/models/{published.repository}/revision/{quote(published.revision, safe='')}"
    try:
        headers = _signed() | {"Accept-Encoding": "identity"}
        response = requests.get(address, {"blobs": "true"}, headers=headers, timeout=30, stream=True)
    except requests.RequestException as error:
        named = "open_clip_config.json and open_clip_model.safetensors, or config.json and model.safetensors, and where"
        put = "it at" if published.file else f"{named} its page has them tokenizer files, into"
        why = f"{published.source} can't be reached ({type(error).__name__}). On a machine without network: fetch it on"
        raise NotFetched(f"{why} another, and put {put} {published.place}") from error
    if not response.ok:
        why = "there is none of this name, or it is private: `hf auth login`" if response.status_code == 401 else ""
        raise NotFetched(f"{published.source} answered {response.status_code} {why or response.reason}")
    try:
        facts = json.loads(text_of(response))
        listed = [(file["rfilename"], file.get("size"), file.get("lfs") or {}) for file in facts["siblings"]]
        files, card = {name: (size, lfs.get("sha256")) for name, size, lfs in listed}, facts.get("cardData") or {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotFetched(f"{published.source} answered with something else than a list of its files") from error
    return files, card.get("license_name") or card.get("license") or published.licence


def files_of_a_model(listed: Collection[str]) -> list[str]:
    """The files of a repository that make a folder to load: one kind of weights, and what stands beside."""
    own = "open_clip_config.json" in listed
    weights = next((name for name in NAMES if name in listed and (own or name.startswith("model."))), None)
    if weights is None or not (own or "config.json" in listed):
        return []
    parts = weights.replace(".safetensors.index.json", "-*.safetensors")
    flat = [name for name in listed if not {"/", "\\"} & {*name}]  # no name leads out of the folder
    return [name for name in flat if name in BESIDE or (name != weights and fnmatch(name, parts))] + [weights]
