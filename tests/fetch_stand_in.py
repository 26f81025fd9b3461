"""A PatternNet of 4 images a class, held by the world on the loopback interface."""

import io
import itertools
import zipfile
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image

from loopback.world import digest
from rscir_lib.apps.commands import fetch
from rscir_lib.benchmarks.patterncom import ATTRIBUTES, CLASSES
from rscir_lib.encoders import hub
from rscir_lib.storage import downloads

PER_CLASS = 4


def jpg(size=(256, 256)):
    data = io.BytesIO()
    Image.new("RGB", size, "green").save(data, "JPEG")
    return data.getvalue()


def zipped(members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return data.getvalue()


def folder_of(cls):
    return {"golfcourse": "golf_course"}.get(cls, cls)  # folders may carry underscores


FILES = [f"images/{folder_of(c)}/{c}{i:03}.jpg" for c in sorted(CLASSES) for i in range(1, PER_CLASS + 1)]


def patternnet(**changes):
    others = {"PatternNet/patternnet_description.pdf": b"%PDF", "__MACOSX/images/beach/._beach001.jpg": b"?"}
    return zipped({f"PatternNet/{file}": jpg() for file in FILES} | others | changes)


def listing():
    lines = [f"{file} {i // PER_CLASS} {file.split('/')[1]}" for i, file in enumerate(FILES)]
    return "\n".join(lines).encode()


def labels(attribute):
    values = itertools.cycle(["one", "two"])
    return "\n".join(f"{Path(f).name},{attribute},{v}" for f, v in zip(FILES, values, strict=False)).encode()


def stand_in(world, monkeypatch, home):
    """Let the world hold a PatternNet of 4 images a class and the paper's weights, and lead fetching there."""
    for key, value in (world.environment | {"RSCIR_HOME": str(home)}).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(fetch, "COMPLETE", Counter(dict.fromkeys(fetch.CLASSES, PER_CLASS)))
    monkeypatch.setattr(fetch, "QUERIES", 100)
    monkeypatch.setattr(fetch, "download", partial(downloads.download, timeout=5, pause=0.001))
    zip_of_images(world, monkeypatch, patternnet())
    world.drive = {fetch.LISTING.drive: ("patternnet.csv", listing())}
    world.drive |= {f"{attribute:a<30}": (f"{attribute}.csv", labels(attribute)) for attribute in ATTRIBUTES}
    world.folders[fetch.PATTERNCOM_ID] = [(key, name) for key, (name, _) in list(world.drive.items())[1:]]
    for name, content in (("clip", b"PK" + bytes(2000)), ("remoteclip", b"PK" + bytes(3000))):
        published = replace(hub.published_as(name), size=len(content), sha256=digest(content))
        monkeypatch.setitem(hub.PUBLISHED, name, {"ViT-L-14": published})
        world.drive[published.drive] = (published.file, content)
        world.hub[published.repository, "model"] = {published.file: content}
        world.hub["revisions", published.repository] = {published.revision: b""}


def zip_of_images(world, monkeypatch, content):
    """What the hub gives as PatternNet."""
    monkeypatch.setattr(fetch, "IMAGES", replace(fetch.IMAGES, size=len(content), sha256=digest(content)))
    world.hub[fetch.IMAGES.repository, "dataset"] = {fetch.IMAGES.file: content}
    world.hub["revisions", fetch.IMAGES.repository] = {fetch.IMAGES.revision: b""}
