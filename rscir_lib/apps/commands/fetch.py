"""Get PatternNet, PatternCom, UC Merced and encoders' weights, and check them (`rscir fetch --help`).

Weights go to a folder of yours, once for all pictures. Run it again after an interruption: what stands is skipped, what
is partial goes on.
"""

import html
import re
import shutil
import tomllib
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import requests
from PIL import Image
from tqdm.auto import tqdm

from rscir_lib.archive import read_archive
from rscir_lib.benchmarks.patterncom import ATTRIBUTES, CLASSES, read_patterncom
from rscir_lib.benchmarks.ucmcom import read_ucmcom
from rscir_lib.encoders import hub
from rscir_lib.encoders.hub import Published
from rscir_lib.storage.atomic import remove_unfinished, write_file
from rscir_lib.storage.downloads import NotFetched, download, text_of
from rscir_lib.storage.locks import folder_lock
from rscir_lib.storage.project import DATA

COMPLETE = Counter(dict.fromkeys(CLASSES, 800))  # images of each class of PatternNet
IMAGE_SIZE = (256, 256)
QUERIES = 21_000  # PatternCom has more composed queries than this
PATTERNCOM_ID = "1NP2Ryj4V2L_wwInQB6HjzPDPRH2k0J5U"  # a Google Drive folder
IMAGES, LISTING, UCM = (
    Published(**facts) for facts in tomllib.loads((DATA / "published" / "datasets.toml").read_text("utf-8")).values()
)
MOST_GROWTH = 10  # times its size that a zip of images may unpack to
UCM_IMAGES = (21, 100)  # classes, images of each
UCM_LABELS = {  # to be put there by hand
    "multilabels.tsv": "the 17 multi-labels of Chaudhuri et al. 2018, between tabs: a header, then 0 or 1 a label",
    "captions.json": "UCM-captions of Qu et al. 2016, as JSON: image name without suffix -> its five captions",
}


def fetch_images(root: Path) -> None:
    """PatternNet to `root/images/<class>/<image>`. The zip stays in `root/downloads`."""
    if _count(root) != COMPLETE:
        unzip_images(_get(IMAGES, root / "downloads" / IMAGES.file), root / "images")
    check_images(root)


def fetch_patterncom(root: Path) -> None:
    """`root/patternnet.csv` and `root/PatternCom/<attribute>.csv`."""
    _get(LISTING, root / LISTING.file)
    folder = root / "PatternCom"
    missing = [f"{attribute}.csv" for attribute in ATTRIBUTES if not (folder / f"{attribute}.csv").exists()]
    files = drive_folder(PATTERNCOM_ID) if missing else {}
    for name in missing:
        if name not in files:
            place = f"the Google Drive folder {PATTERNCOM_ID}"
            raise NotFetched(f"{place} shows no {name}: open it in a browser, and put its files in {folder}")
        _get(Published("patterncom", name, drive=files[name]), folder / name)
    check_patterncom(root)


def drive_folder(key: str) -> dict[str, str]:
    """name -> id of the files in a folder of Google Drive that everybody may see."""
    address = "https://drive.google.com/embeddedfolderview"
    page = text_of(requests.get(address, {"id": key}, headers={"Accept-Encoding": "identity"}, timeout=30, stream=True))
    entry = r'href="https://drive\.google\.com/file/d/([\w-]+)/.*?class="flip-entry-title">([^<]*)<'
    return {html.unescape(name).strip(): file for file, name in re.findall(entry, page, re.DOTALL)}


def fetch_models(root: Path) -> None:
    """The paper's two encoders to the home of the weights, unless an earlier version left them in `root/models`."""
    for published in map(hub.published_as, ("clip", "remoteclip")):
        hub.find_or_fetch(published, root / "models")


def fetch_ucm(root: Path) -> None:
    """UC Merced's 2,100 images to `root/images/<class>/<image>`; its labels are to be put beside them by hand.

    Raises FileNotFoundError saying which labels, by whom and in which form, until they are there.
    """
    classes, each = UCM_IMAGES
    if len(list(root.glob("images/*/*.tif"))) != classes * each:
        unzip_images(_get(UCM, root / "downloads" / UCM.file), root / "images")
    held = Counter(path.parent.name for path in root.glob("images/*/*.tif"))
    if len(held) != classes or set(held.values()) != {each}:
        raise ValueError(f"{root / 'images'} is not UC Merced, {classes} classes of {each} images; found {dict(held)}")
    missing = "; ".join(f"{file}: {content}" for file, content in UCM_LABELS.items() if not (root / file).exists())
    if missing:
        raise FileNotFoundError(f"{root}: the images are there; put the labels beside them by hand: {missing}")
    read_ucmcom(root)


STEPS = {"images": fetch_images, "patterncom": fetch_patterncom, "models": fetch_models, "ucm": fetch_ucm}
PATTERNNET = ("images", "patterncom", "models")  # what is fetched unless told


def unzip_images(packed: Path, images: Path) -> None:
    """Unpack the members `.../<class>/<image>.jpg` (or `.tif`) to `images/<class>/<image>.jpg`; skips those that stand.

    An image stands whole or not at all. Raises ValueError for a damaged zip, for a member that would land elsewhere,
    and for a zip that would unpack to more than `MOST_GROWTH` times its size: photographs hardly shrink when packed.
    """
    try:
        with zipfile.ZipFile(packed) as file:
            members = [m for m in file.infolist() if re.search(r"(^|/)[^/.][^/]*\.(jpg|tif)$", m.filename)]
            growth = sum(member.file_size for member in members) / packed.stat().st_size
            if growth > MOST_GROWTH:
                problem = f"would unpack to {growth:.0f} times its size, the limit is {MOST_GROWTH}"
                raise ValueError(f"{packed} {problem}: these are no JPEG images; don't use it")
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
        advice = "make room, or make it writable, and run this again; if it stops there again, delete the zip"
        problem = f"{packed} to {images}: {error.strerror or error}; what is unpacked stays: {advice}"
        raise OSError(error.errno, problem) from error


def check_images(root: Path) -> None:
    """Raises ValueError unless `root/images` holds 38 classes of 800 images, 256 x 256 (every 50th is opened)."""
    held = _count(root)
    wrong = [f"{cls} {held[cls]}/{COMPLETE[cls]}" for cls in held | COMPLETE if held[cls] != COMPLETE[cls]]
    if wrong:
        raise ValueError(f"{root / 'images'} is not PatternNet: images per class {', '.join(sorted(wrong)[:5])}")
    for path in sorted(root.glob("images/*/*.jpg"))[::50]:
        with Image.open(path) as image:
            if image.size != IMAGE_SIZE:
                raise ValueError(f"{path} is {image.size}, PatternNet's images are {IMAGE_SIZE}; fetch them again")


def check_patterncom(root: Path) -> None:
    """Raises ValueError unless listing and labels are PatternNet's and PatternCom's, and fit the images."""
    archive = read_archive(root)
    if Counter(archive.classes) != COMPLETE:
        raise ValueError(f"{root / LISTING.file} does not list PatternNet's images; delete it and fetch again")
    queries = len(read_patterncom(root, ATTRIBUTES).queries)
    if queries <= QUERIES:
        raise ValueError(f"{root / 'PatternCom'} gives {queries} composed queries, not more than {QUERIES}")
    absent = [file for file in archive.files if not (root / file).exists()]
    if absent and (root / "images").exists():
        raise ValueError(f"{root}: {len(absent)} listed images are not on disk, first {absent[0]}")


def _count(root: Path) -> Counter[str]:
    return Counter(path.parent.name.replace("_", "") for path in root.glob("images/*/*.jpg"))


def _get(published: Published, target: Path) -> Path:
    """A data set's file at `target`, fetched unless it stands."""
    if not target.exists():
        download(target, published.addresses("dataset"), published.size, published.sha256)
    return target


def fetch(root: Path | None, steps: Sequence[str] = PATTERNNET, architecture: str | None = None) -> None:
    """Fetches in the order given: `STEPS` into a dataset root, one command at a time, encoders to their home.

    Raises:
        ValueError: For what is neither a step nor a published encoder, and for a step without a dataset root.
        OSError: For what could not be fetched, saying what helps.
    """
    published = {step: hub.published_as(step, architecture) for step in steps if step not in STEPS}
    if unknown := [step for step, one in published.items() if one is None]:
        raise ValueError(
            f"nothing to fetch is called {', '.join(map(repr, unknown))}; there are {', '.join(STEPS)}, "
            f"{', '.join(hub.PUBLISHED)}, open_clip's tags such as ViT-B-32/laion2b_s34b_b79k, and hf-hub:owner/name"
        )
    for step in steps:
        if step in published:
            print(f"{step}: complete in {hub.fetch(published[step])}")
        elif root is None:
            raise ValueError(f"where shall {step} be fetched to? give a folder: rscir fetch DATASET_ROOT --only {step}")
        else:
            with folder_lock(root):
                STEPS[step](root)
            print(f"{step}: complete in {root}")
