"""The explorer as a page.

    python -m rscir_lib.apps.explorer serve [KEY=value ...]      # on this machine, by a small server
    python -m rscir_lib.apps.explorer page [KEY=value ...]       # as files in runs/page, without Python or network

KEY=value are the parameters of `open_run`, the notebooks' own: DATASET_ROOT, ENCODER, ARCHITECTURE, ...
"""

import argparse
import logging
import os
import sys
import webbrowser
from pathlib import Path

from rscir_lib.apps.explorer.page import write_page
from rscir_lib.apps.explorer.server import serve
from rscir_lib.apps.explorer.session import Explorer
from rscir_lib.benchmarks.synthcom import draw_synthcom
from rscir_lib.features import extract_features
from rscir_lib.runs import Run, open_run
from rscir_lib.storage.project import ROOT


def prepared(run: Run) -> Run:
    """The run, with its images drawn (the bundled ones) and its features extracted where they are not there yet."""
    if not run.parameters["DATASET_ROOT"] and not run.root.exists():
        print("drawing the bundled benchmark, once ...", flush=True)
        draw_synthcom(run.root)
    if not run.parameters["FEATURES"]:
        extract_features(run.images, run.encoder, run.store)
    return run


def first_query(explorer: Explorer) -> dict:
    """What a visitor without a link sees: the benchmark's first query, or the first image alone."""
    if explorer.benchmark is None or explorer.benchmark.queries.empty:
        return {"image": 0, "words": ""}
    queries = explorer.benchmark.queries[explorer.benchmark.queries["position"] >= 0]
    return {"image": int(queries["position"].iloc[0]), "words": queries["text"].iloc[0]}


def main(argv: list[str] | None = None) -> int:
    """The command line; exit code 1 for what can't be opened."""
    parser = argparse.ArgumentParser(
        prog="python -m rscir_lib.apps.explorer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["serve", "page"])
    parser.add_argument("parameters", nargs="*", metavar="KEY=value", help="what to open; default: the bundled run")
    parser.add_argument("--port", type=int, default=8866, help="of the server; 0 for any that is free")
    parser.add_argument("--out", type=Path, help="folder of the page (runs/page)")
    parser.add_argument("--words", type=Path, help="file of further texts that the page can be asked, one a line")
    args = parser.parse_intermixed_args(argv)
    logging.basicConfig(format="%(message)s")
    try:
        given = dict(word.partition("=")[::2] for word in args.parameters)
        explorer = Explorer.of(prepared(open_run(**{key: value for key, value in given.items() if value})))
        if args.command == "page":
            words = args.words.read_text(encoding="utf-8").splitlines() if args.words else []
            folder = args.out or ROOT / "runs" / "page"
            print(write_page(explorer, folder, [word.strip() for word in words if word.strip()]))
        else:
            serve(explorer, first_query(explorer), args.port, opened)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
    return 0


def opened(address: str) -> None:
    """Say where the page is, and show it where a person is there to see it."""
    print(f"the explorer is at {address} (Ctrl+C ends it)", flush=True)
    if sys.stdout.isatty() and (os.name != "posix" or sys.platform == "darwin" or os.environ.get("DISPLAY")):
        webbrowser.open(address)


if __name__ == "__main__":
    sys.exit(main())
