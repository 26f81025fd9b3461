"""How long a person waits: from the slider, and from the last letter typed, to the pictures, in a real browser."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from browser import browser, served

from rscir_lib.apps.explorer.session import Explorer
from rscir_lib.archive import Archive
from rscir_lib.benchmarks.synthcom import draw_synthcom
from rscir_lib.encoders import load_encoder
from rscir_lib.features import Features

SIZES = (972, 30_400)  # the bundled archive's and PatternNet's
ALLOWED = {"slider": 50, "text": 300}  # milliseconds
# waits for the next drawing that an action causes; the component says how long it took
TIMED = """() => (act) => new Promise((done) => {
  const root = document.querySelector(".rscir");
  root.addEventListener("drawn", (event) => done(event.detail), {once: true});
  act(root);
})"""


def crowd(folder: Path, encoder: object, n: int, seed: int = 0) -> Explorer:
    """An explorer of n synthetic images: random features, and pictures of which every 81st is the same."""
    drawn = draw_synthcom(folder / "drawn", images_per_class=3, seed=1)
    pictures = sorted(path for path in (drawn / "images").rglob("*") if path.is_file())
    files = []
    for i in range(n):
        file = Path("images") / f"group{i % 10}" / f"{i:06d}{pictures[0].suffix}"
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        os.link(pictures[i % len(pictures)], folder / file)
        files.append(file.as_posix())
    archive = Archive(folder, tuple(files), tuple(file.split("/")[1] for file in files))
    feats = np.random.default_rng(seed).normal(size=(n, encoder.dim)).astype(np.float32)
    feats /= np.linalg.norm(feats, axis=1, keepdims=True)
    features = Features.from_arrays(feats, archive.files, archive.classes, {})
    return Explorer(archive, features, encoder, folder / "run")


def waits(page: object, queries: list[tuple[str, str]]) -> dict[str, list[float]]:
    """Milliseconds of every text and of every step of the slider, for some pictures (the end of a link) and texts."""
    found: dict[str, list[float]] = {"slider": [], "text": []}
    time = page.evaluate_handle(TIMED)
    for link, text in queries:
        # another picture, then words, typed at once; then, as a person does, a moment passes
        page.evaluate("([time, file]) => time(() => (location.hash = file))", [time, link])
        typed = """([time, text]) => time((root) => {
          const words = root.querySelector("input[list]");
          words.value = text;
          words.dispatchEvent(new Event("input"));
        })"""
        found["text"].append(page.evaluate(typed, [time, text]))
        page.wait_for_timeout(1000)
        slid = """([time, lambda]) => time((root) => {
          const slider = root.querySelector(".lambda");
          slider.value = lambda;
          slider.dispatchEvent(new Event("input"));
        })"""
        found["slider"] += [page.evaluate(slid, [time, k / 20]) for k in range(21)]
    return found


def measure(sizes: tuple[int, ...] = SIZES, repeats: int = 8, say: Callable[[str], None] = print) -> pd.DataFrame:
    """Median and 95th percentile in milliseconds, by archive size, with the demo encoder; allowed: what was set."""
    encoder = load_encoder("demo", device="cpu")
    rows = []
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder, browser() as chromium:
            say(f"{n:,} images ...")
            explorer = crowd(Path(folder), encoder, n)
            texts = explorer.words[:repeats]
            files = np.random.default_rng(1).choice(explorer.archive.files, len(texts), replace=False)
            with served(explorer) as address:
                page = chromium.new_page()
                page.goto(address)
                page.wait_for_selector(".rscir[data-drawn]")
                found = waits(page, [(f"image={file}&words=", text) for file, text in zip(files, texts, strict=True)])
            for what, times in found.items():
                median, late = np.percentile(times, [50, 95])
                rows.append((n, f"{what} to picture", len(times), round(median, 1), round(late, 1), ALLOWED[what]))
    return pd.DataFrame(rows, columns=["images", "what", "times", "median ms", "95th percentile ms", "allowed ms"])


if __name__ == "__main__":
    print(measure().to_string(index=False))
