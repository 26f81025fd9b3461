"""The explorer as a folder of files that needs no Python and no network: for a project page, or a lecture."""

import base64
import html
import json
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from rscir_lib.apps.explorer.modules import joined
from rscir_lib.apps.explorer.session import Explorer, browser_rule
from rscir_lib.storage.atomic import write_text

HERE = Path(__file__).parent
TOGETHER = 50  # thumbnails a file: a page opened from the disk can read scripts, and nothing else
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title><link rel="icon" href="data:,">
<style>body{{margin:0}}
{style}</style></head>
<body><main id="explorer"></main><script src="data.js"></script><script type="module">
{script}</script></body></html>
"""


def write_page(explorer: Explorer, folder: str | Path, words: list[str] | None = None) -> Path:
    """Write `index.html`, `data.js` (features, encoded texts) and `thumbnails/` into a folder; returns `index.html`.

    words: the texts that can be typed, encoded here; None for those the explorer suggests (values of the benchmark,
    classes, what the bundled encoder learned). Features stay float32: in float16 the page would be a little smaller
    and its order of hits no longer the library's.
    """
    folder, archive = Path(folder), explorer.archive
    words = list(dict.fromkeys([*explorer.words, *(words or [])]))
    if not words:
        raise ValueError("the page needs words to encode: the archive has no benchmark and no classes; give some")
    facts, _ = explorer.hello()
    known = [m for m in facts["methods"] if browser_rule(m["name"])[1]]
    data = {
        "facts": facts | {"words": words, "methods": known, "uploads": False, "marks": None, "whole": True},
        "files": archive.files,
        "classIndex": explorer.class_index.tolist(),
        "footprints": [explorer._footprint(i) for i in range(len(archive))] if facts["map"] else None,
        "dim": explorer.feats.shape[1],
        "feats": _base64(explorer.feats),
        "wordFeats": _base64(explorer.encoder.encode_texts(words)),
        "together": TOGETHER,
    } | _benchmark(explorer)
    (folder / "thumbnails").mkdir(parents=True, exist_ok=True)
    for old in (folder / "thumbnails").glob("[0-9]*.js"):
        old.unlink()
    for number, start in enumerate(tqdm(range(0, len(archive), TOGETHER), desc="thumbnails", unit="file")):
        some = explorer.thumbnails.of(range(start, min(start + TOGETHER, len(archive))))
        encoded = json.dumps([base64.b64encode(one).decode() for one in some])
        write_text(folder / "thumbnails" / f"{number}.js", f"RSCIR.thumbnails({number}, {encoded});\n")
    write_text(folder / "data.js", f"globalThis.RSCIR = {json.dumps(data)};\n")
    style = (HERE / "explorer.css").read_text(encoding="utf-8")
    page = PAGE.format(title=html.escape(explorer.title), style=style, script=joined("page.js"))
    return write_text(folder / "index.html", page)


def _benchmark(explorer: Explorer) -> dict:
    """The benchmark's queries with their average precision, and the sets of relevant and left out images."""
    if explorer.benchmark is None:
        return {"queries": [], "targets": []}
    queries = explorer.benchmark.queries.reset_index(drop=True)
    queries = queries[queries["position"] >= 0]
    ap = explorer.precisions().reindex(queries.index)
    rows = [
        [int(q.position), q.text, q.attribute, int(q.target), explorer._left_out(queries.loc[q.Index]).tolist(),
         None if np.isnan(ap[q.Index]) else ap[q.Index]]
        for q in queries.itertuples()
    ]  # fmt: skip
    return {"queries": rows, "targets": [target.tolist() for target in explorer.benchmark.targets]}


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()
