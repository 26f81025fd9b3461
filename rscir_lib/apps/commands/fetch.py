"""Get PatternNet, PatternCom and the paper's two checkpoints into a dataset root, and check them.

    rscir fetch DATASET_ROOT [--only images,patterncom,models]
    rscir fetch DATASET_ROOT --only remoteclip,georsclip           # RemoteCLIP's others, and GeoRSCLIP
    rscir fetch UCM_ROOT --only ucm                                # UC Merced's images, for UCMCom

Run it again after an interruption: what stands is skipped, what is partial goes on.
"""

import re
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from PIL import Image
from tqdm.auto import tqdm

from rscir_lib.archive import read_archive
from rscir_lib.benchmarks.patterncom import ATTRIBUTES, CLASSES, read_patterncom
from rscir_lib.benchmarks.ucmcom import read_ucmcom
from rscir_lib.storage.atomic import remove_unfinished, write_file
from rscir_lib.storage.locks import folder_lock

IMAGES_PER_CLASS = 800
IMAGE_SIZE = (256, 256)
QUERIES = 21_000  # PatternCom has more composed queries than this
PATTERNCOM_ID = "1NP2Ryj4V2L_wwInQB6HjzPDPRH2k0J5U"  # a Google Drive folder


@dataclass(frozen=True)
class Source:
    """A file: where it belongs under the dataset root and where it comes from."""

    path: str
    least: int  # bytes; anything smaller is an error page or a part
    drive: str = ""  # Google Drive id
    hub: tuple[str, str, str] | None = None  # repository, its type, its revision
    inside: str = ""  # path in the repository and below models/; the path's name if ""


IMAGES = Source(
    "downloads/PatternNet.zip",
    least=10**9,
    hub=("torchgeo/PatternNet", "dataset", "2dbd901b00e301967a5c5146b25454f5d3455ad0"),
)
LISTING = Source("patternnet.csv", least=10**5, drive="1sIdH0DVR2JxCEYQgp8041sUOYfLdGgyV")
CLIP = Source("models/CLIP-ViT-L-14.bin", least=10**8, drive="1F9Kk7PZXhkv1KkCN0CCrctE5nnS1DmUv")
REMOTECLIP = Source(
    "models/RemoteCLIP-ViT-L-14.pt",
    least=10**8,
    drive="1zAqlxASKvNTFQB-ftf6Wn42nFX5IeTKB",
    hub=("chendelong/RemoteCLIP", "model", "main"),
)
UCM = Source(
    "downloads/UCMerced_LandUse.zip",
    least=3 * 10**8,
    hub=("torchgeo/ucmerced", "dataset", "7c5ef3454d9b1cccfa7ccde0c01fc8f00a45909a"),
)
UCM_IMAGES = (21, 100)  # classes, images of each
UCM_LABELS = {  # to be put there by hand
    "multilabels.tsv": "the 17 multi-labels of Chaudhuri et al. 2018, between tabs: a header, then 0 or 1 a label",
    "captions.json": "UCM-captions of Qu et al. 2016, as JSON: image name without suffix -> its five captions",
}


FURTHER = {
    "remoteclip": [
        Source(f"models/RemoteCLIP-{name}.pt", 10**8, hub=("chendelong/RemoteCLIP", "model", "main"))
        for name in ("RN50", "ViT-B-32")
    ],
    "georsclip": [
        Source(
            f"models/ckpt/RS5M_{name}.pt",
            10**8,
            hub=("Zilun/GeoRSCLIP", "model", "main"),
            inside=f"ckpt/RS5M_{name}.pt",
        )
        for name in ("ViT-B-32", "ViT-L-14", "ViT-H-14")
    ],
}


def fetch_images(root: Path) -> None:
    """PatternNet to `root/images/<class>/<image>`. The zip stays in `root/downloads`."""
    if _count(root) != _complete():
        unzip_images(_get(root, IMAGES), root / "images")
    check_images(root)


def fetch_patterncom(root: Path) -> None:
    """`root/patternnet.csv` and `root/PatternCom/<attribute>.csv`."""
    _get(root, LISTING)
    folder = root / "PatternCom"
    files = [folder / f"{attribute}.csv" for attribute in ATTRIBUTES]

    def download() -> None:
        import gdown

        _resumed(partial(gdown.download_folder, id=PATTERNCOM_ID, output=str(folder)), folder, "*.part")
        missing = [file.name for file in files if not file.exists()]
        if missing:
            raise ValueError(f"the folder has no {', '.join(missing)}")

    if not all(file.exists() for file in files):
        by_hand = f"the files {', '.join(file.name for file in files)} of the Google Drive folder {PATTERNCOM_ID}"
        _try(folder, {by_hand: download})
    check_patterncom(root)


def fetch_models(root: Path) -> None:
    """The checkpoints to `root/models`."""
    _get(root, CLIP)
    _get(root, REMOTECLIP)


def fetch_further(sources: list[Source], root: Path) -> None:
    """Checkpoints that the paper doesn't use."""
    for source in sources:
        _get(root, source)


def fetch_ucm(root: Path) -> None:
    """UC Merced's 2,100 images to `root/images/<class>/<image>`; its labels are to be put beside them by hand.

    Raises FileNotFoundError saying which labels, by whom and in which form, until they are there.
    """
    classes, each = UCM_IMAGES
    if len(list(root.glob("images/*/*.tif"))) != classes * each:
        unzip_images(_get(root, UCM), root / "images")
    held = Counter(path.parent.name for path in root.glob("images/*/*.tif"))
    if len(held) != classes or set(held.values()) != {each}:
        raise ValueError(f"{root / 'images'} is not UC Merced, {classes} classes of {each} images; found {dict(held)}")
    missing = [f"{file}: {content}" for file, content in UCM_LABELS.items() if not (root / file).exists()]
    if missing:
        raise FileNotFoundError(
            f"{root}: the images are there; put the labels beside them by hand: {'; '.join(missing)}"
        )
    read_ucmcom(root)


STEPS = {"images": fetch_images, "patterncom": fetch_patterncom, "models": fetch_models, "ucm": fetch_ucm}
PATTERNNET = ("images", "patterncom", "models")  # what is fetched unless told
STEPS |= {name: partial(fetch_further, sources) for name, sources in FURTHER.items()}


def unzip_images(packed: Path, images: Path, most_growth: float = 10) -> None:
    """Unpack the members `.../<class>/<image>.jpg` (or `.tif`) to `images/<class>/<image>.jpg`; skips those that stand.

    An image stands whole or not at all. Raises ValueError for a damaged zip, for a member that would land elsewhere,
    and for a zip that would unpack to more than `most_growth` times its size: photographs hardly shrink when packed.
    """
    try:
        with zipfile.ZipFile(packed) as file:
            members = [m for m in file.infolist() if re.search(r"(^|/)[^/.][^/]*\.(jpg|tif)$", m.filename)]
            growth = sum(member.file_size for member in members) / packed.stat().st_size
            if growth > most_growth:
                raise ValueError(
                    f"{packed} would unpack to {growth:.0f} times its size, the limit is {most_growth:g}: these are no "
                    "JPEG images; don't use it"
                )
            remove_unfinished(images)
            for member in tqdm(members, desc=f"unpack {packed.name}", unit="image"):
                target = images.joinpath(*PurePosixPath(member.filename).parts[-2:])
                if target.resolve().parent.parent != images.resolve():
                    raise ValueError(f"{packed}: member {member.filename!r} leads out of its folder; don't use it")
                if not target.exists() or target.stat().st_size != member.file_size:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with file.open(member) as source:  # never more than its stated size
                        write_file(target, partial(shutil.copyfileobj, source))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{packed} is damaged ({error}); delete it and fetch again") from error
    except OSError as error:
        raise OSError(
            error.errno,
            f"{packed} to {images}: {error.strerror or error}; what is unpacked stays. Make room, or make it writable, "
            "and run this again; if it stops there again, the zip is damaged: delete it",
        ) from error


def check_images(root: Path) -> None:
    """Raises ValueError unless `root/images` holds 38 classes of 800 images, 256 x 256 (every 50th is opened)."""
    held, complete = _count(root), _complete()
    wrong = [f"{cls} {held[cls]}/{complete[cls]}" for cls in held | complete if held[cls] != complete[cls]]
    if wrong:
        raise ValueError(f"{root / 'images'} is not PatternNet: images per class {', '.join(sorted(wrong)[:5])}")
    for path in sorted(root.glob("images/*/*.jpg"))[::50]:
        with Image.open(path) as image:
            if image.size != IMAGE_SIZE:
                raise ValueError(f"{path} is {image.size}, PatternNet's images are {IMAGE_SIZE}; fetch them again")


def check_patterncom(root: Path) -> None:
    """Raises ValueError unless listing and labels are PatternNet's and PatternCom's, and fit the images."""
    archive = read_archive(root)
    if Counter(archive.classes) != _complete():
        raise ValueError(f"{root / LISTING.path} does not list PatternNet's images; delete it and fetch again")
    queries = len(read_patterncom(root, ATTRIBUTES).queries)
    if queries <= QUERIES:
        raise ValueError(f"{root / 'PatternCom'} gives {queries} composed queries, not more than {QUERIES}")
    absent = [file for file in archive.files if not (root / file).exists()]
    if absent and (root / "images").exists():
        raise ValueError(f"{root}: {len(absent)} listed images are not on disk, first {absent[0]}")


def _count(root: Path) -> Counter[str]:
    return Counter(path.parent.name.replace("_", "") for path in root.glob("images/*/*.jpg"))


def _complete() -> Counter[str]:
    return Counter(dict.fromkeys(CLASSES, IMAGES_PER_CLASS))


def _get(root: Path, source: Source) -> Path:
    """Path of a source's file, fetched unless it stands."""
    path = root / source.path
    if path.exists():
        _check_file(path, source)
        return path

    def from_drive() -> None:
        import gdown

        _resumed(partial(gdown.download, id=source.drive, output=str(path)), path.parent, f"{path.name}*.part")
        _check_file(path, source)

    def from_hub() -> None:
        import huggingface_hub

        repository, kind, revision = source.hub
        file = source.inside or path.name
        below = path.parents[file.count("/")]
        huggingface_hub.hf_hub_download(repository, file, repo_type=kind, revision=revision, local_dir=below)
        _check_file(path, source)

    ways = {}
    if source.drive:
        ways[f"the file with Google Drive id {source.drive}"] = from_drive
    if source.hub:
        ways[f"{source.inside or path.name} of the Hugging Face {source.hub[1]} {source.hub[0]}"] = from_hub
    path.parent.mkdir(parents=True, exist_ok=True)
    _try(path, ways)
    return path


def _resumed(download: Callable[..., object], folder: Path, parts: str) -> None:
    """Go on from the parts in the folder; afresh where the server can't, as when a part is whole already."""
    from gdown.exceptions import DownloadError

    again = partial(download, resume=True, timeout=60, retries=3)
    try:
        again()
    except DownloadError as error:
        if "byte range" not in str(error):
            raise
        for part in folder.glob(parts):
            part.unlink()
        again()


def _try(target: Path, ways: dict[str, Callable[[], None]]) -> None:
    """Fetch `target` in the first way that works; the keys say what someone doing it by hand looks for."""
    failures = []
    for download in ways.values():
        try:
            return download()
        except ImportError as error:
            raise ImportError(f'{error}: install what fetching needs, pip install -e ".[fetch]"') from error
        except Exception as error:  # the libraries raise all kinds
            failures.append(f"{type(error).__name__}: {error}")
    raise FileNotFoundError(
        f"{target} could not be fetched ({'; '.join(failures)}).\n"
        f"Get it by hand: put {' or '.join(ways)} at {target}, then run this again"
    )


def _check_file(path: Path, source: Source) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        page = file.read(100).lstrip().startswith(b"<")
    if page or size < source.least:
        content = "a web page" if page else f"{size} bytes"
        path.rename(path.with_suffix(".wrong"))
        raise ValueError(
            f"{path.name} is {content}, expected at least {source.least} bytes; it is now {path.stem}.wrong"
        )


def fetch(root: Path, steps: Sequence[str] = PATTERNNET) -> None:
    """Fetches into a dataset root by the names of `STEPS`, in the order given; one command at a time works there."""
    if unknown := [step for step in steps if step not in STEPS]:
        raise ValueError(f"nothing to fetch is called {', '.join(map(repr, unknown))}; there are {', '.join(STEPS)}")
    with folder_lock(root):
        for step in steps:
            STEPS[step](root)
            print(f"{step}: complete in {root}")
