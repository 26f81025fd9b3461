"""The explorer's page: what every host shows, and a folder of files that needs no Python and no network."""

import html
import json
import re
from pathlib import Path

from tqdm.auto import tqdm

from rscir_lib.apps.explorer.session import Explorer, base64_of
from rscir_lib.storage.atomic import write_text
from rscir_lib.storage.folders import check_ours

HERE = Path(__file__).parent
IMPORT = re.compile(r'^import [^;]+ from "\./(.+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?!default )", re.MULTILINE)
TOGETHER = 50  # thumbnails a file: a page opened from the disk can read scripts, and nothing else
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="explorer.css"></head>
<body style="margin:0"><main id="explorer"></main>{data}<script src="explorer.js"></script></body></html>
"""


def joined(name: str) -> str:
    """A module with all that it imports, imported ones first; they share one scope, so top-level names are unique."""
    scripts: dict[str, str] = {}

    def add(name: str) -> None:
        text = (HERE / name).read_text(encoding="utf-8")
        for other in IMPORT.findall(text):
            if other not in scripts:
                add(other)
        scripts[name] = EXPORT.sub("", IMPORT.sub("", text))

    add(name)
    return "\n".join(scripts.values())


def page_files(title: str, host: str, data: str = "") -> dict[str, str]:
    """The page's files by name. host: the module that answers its questions; data: the markup of further scripts."""
    return {
        "explorer.js": f'"use strict";\n{{\n{joined(host)}}}\n',  # first: by it a folder is known as ours
        "index.html": PAGE.format(title=html.escape(title), data=data),
        "explorer.css": (HERE / "explorer.css").read_text(encoding="utf-8"),
    }


def write_page(explorer: Explorer, folder: str | Path, words: list[str] | None = None) -> Path:
    """Write the page, `data.js` (features, encoded texts) and `thumbnails/` into a folder; returns its `index.html`.

    words: texts that can be typed besides those that the explorer suggests (values of the benchmark, classes, what the
    bundled encoder learned); all are encoded here. Features stay float32: in float16 the page would be a little
    smaller and its order of hits no longer the library's. Raises ValueError for a folder that holds anything else.
    """
    folder, archive = Path(folder), explorer.archive
    check_ours(folder, "explorer.js")
    words = list(dict.fromkeys([*explorer.words, *(words or [])]))
    if not words:
        raise ValueError("the page needs words to encode: the archive has no benchmark and no classes; give some")
    facts = explorer.hello()
    known = [method for method in facts["methods"] if method["rule"]]
    alone = {"marks": [], "marksFile": "", "warning": "", "hasKernel": False, "whole": True}  # without a server
    data = {
        "facts": facts | alone | {"words": words, "methods": known},
        "footprints": [explorer.footprint(position) for position in range(len(archive))],
        "dim": explorer.feats.shape[1],
        "feats": base64_of(explorer.feats),
        "wordFeats": base64_of(explorer.encoder.encode_texts(words)),
        "together": TOGETHER,
        "rated": explorer.rated(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in page_files(explorer.title, "page.js", '<script src="data.js"></script>').items():
        write_text(folder / name, text)
    (folder / "thumbnails").mkdir(exist_ok=True)
    for old in (folder / "thumbnails").glob("[0-9]*.js"):
        old.unlink()
    for number, start in enumerate(tqdm(range(0, len(archive), TOGETHER), desc="thumbnails", unit="file")):
        jpegs = explorer.thumbnails.of(range(start, min(start + TOGETHER, len(archive))))
        text = json.dumps([base64_of(jpeg) for jpeg in jpegs])
        write_text(folder / "thumbnails" / f"{number}.js", f"RSCIR.thumbnails({number}, {text});\n")
    write_text(folder / "data.js", f"globalThis.RSCIR = {json.dumps(data)};\n")
    return folder / "index.html"
