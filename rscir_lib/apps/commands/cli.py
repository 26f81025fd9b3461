"""The `rscir` command: everything that people start. `rscir --help` lists it, `rscir COMMAND --help` explains one.

Each function below is a command, its docstring the help. What a command needs is imported when it runs, so that the
list and wrong options are answered at once.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import Any

from rscir_lib.apps.commands import FAILURES
from rscir_lib.storage.project import DATA, ROOT, check_checkout

Function = Callable[..., int | None]  # takes the parsed arguments as keywords, returns an exit code, or None for 0
Argument = tuple[tuple[str, ...], dict[str, Any]]  # what `add_argument` takes: names, options
COMMANDS: dict[str, tuple[Function, tuple[Argument, ...]]] = {}


def command(name: str, *arguments: Argument) -> Callable[[Function], Function]:
    """Makes a function a command of `rscir`."""

    def register(function: Function) -> Function:
        COMMANDS[name] = function, arguments
        return function

    return register


def argument(*names: str, **options: Any) -> Argument:
    """An argument of a command, as `add_argument` takes it."""
    return names, options


def path(text: str) -> Path:
    """A path of the command line, with ~ as the user's folder."""
    return Path(text).expanduser()


def port(text: str) -> int:
    """A port of this machine; the system would take a greater number for another port."""
    if not 0 <= int(text) < 2**16:
        raise argparse.ArgumentTypeError(f"{text} is no port; give one up to {2**16 - 1}, or 0 for any that is free")
    return int(text)


def parameters(words: list[str]) -> dict[str, str]:
    """The parameters among the words of a command, given as KEY=value."""
    return dict(word.split("=", 1) for word in words if "=" in word)


NOTEBOOKS = argument("words", nargs="*", metavar="NOTEBOOK | KEY=value", help="which (default: all); parameters")
PARAMETERS = argument("words", nargs="*", metavar="KEY=value", help="the run's parameters; without any the bundled run")


@command(
    "workbook",
    NOTEBOOKS,
    argument("--params", type=path, help="YAML file of parameters; KEY=value wins over it"),
    argument("--force", action="store_true", help="run also what is up to date"),
    argument("--timeout", type=int, default=12 * 3600, help="seconds that one cell may take"),
    argument("--show", metavar="TABLES", help="tables of the run to print, with commas between them: 04_map,05_map"),
    argument("--beside", action="store_true", help="one table of all the runs, with intervals; needs notebook 04"),
)
def run_workbook(words: list[str], params: Path | None, show: str | None, **options: Any) -> int | None:
    """Run the notebooks, without those whose results are there and up to date."""
    from rscir_lib.apps.commands import workbook

    notebooks = workbook.select_notebooks([word for word in words if "=" not in word])
    if not (words or params or show or options["beside"]):
        return workbook.run_bundled(**options)
    given = workbook.read_parameters(params) if params else {}
    return workbook.run_combinations(notebooks, given | parameters(words), show=(show or "").split(","), **options)


@command("methods", argument("runs", nargs="+", type=path, metavar="RUN_FOLDER"))
def print_methods(runs: list[Path]) -> None:
    """Print notebook 09's table of finished runs: what every method reaches, and its cost, as Markdown."""
    from rscir_lib.apps.commands.workbook import methods_of

    for run in runs:
        table = methods_of(run).reset_index()
        lines = [table.columns, ["---"] * table.shape[1], *table.to_numpy()]
        print(f"## {run.resolve().name}\n", *(f"| {' | '.join(line)} |" for line in lines), "", sep="\n")


@command(
    "paper",
    argument("runs", nargs="+", type=path, metavar="RUN_FOLDER"),
    argument("--out", type=path, default=ROOT / "runs" / "paper", help="folder of the paper's files"),
)
def write_paper(runs: list[Path], out: Path) -> None:
    """Write tables (LaTeX), figures (PDF) and a methods paragraph, with versions, digests and citations."""
    from rscir_lib.apps.commands.paper import write_paper

    print(write_paper(runs, out))


@command("explore", PARAMETERS, argument("--port", type=port, default=8866, help="0 for any that is free"))
def explore(words: list[str], port: int) -> None:
    """Pick a picture, type words, slide lambda: a page on this machine, until Ctrl+C."""
    from rscir_lib.apps.explorer import opening, server

    explorer = opening.open_explorer(parameters(words))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl+C is how this one ends, no interruption
    with suppress(KeyboardInterrupt):
        server.serve(explorer, port)


@command(
    "page",
    PARAMETERS,
    argument("--out", type=path, default=ROOT / "runs" / "page", help="folder of the page"),
    argument("--words", type=path, dest="texts", help="file of further texts that the page can be asked, one a line"),
)
def write_page(words: list[str], out: Path, texts: Path | None) -> None:
    """Write the explorer as files, which need neither Python nor network."""
    from rscir_lib.apps.explorer import opening, page

    lines = map(str.strip, texts.read_text(encoding="utf-8").splitlines()) if texts else ()
    print(page.write_page(opening.open_explorer(parameters(words)), out, [line for line in lines if line]))


@command("book", PARAMETERS)
def write_book(words: list[str]) -> None:
    """Write the notebooks as they ran, the pages and the API as a web site, into runs/book."""
    from rscir_lib.apps.teaching.book import write_book

    print(f"the book: {write_book(parameters(words)) / 'index.html'}")


@command(
    "course", NOTEBOOKS, argument("--out", type=path, default=ROOT / "runs" / "course", help="folder of the two copies")
)
def write_course(words: list[str], out: Path) -> None:
    """Write the notebooks for students, without solutions, and for teachers, with solutions that have been checked."""
    from rscir_lib.apps.teaching.course import write_course

    write_course([word for word in words if "=" not in word], parameters(words), out)


@command(
    "fetch",
    argument("root", type=path, nargs="?", metavar="DATASET_ROOT", help="folder of the images; encoders need none"),
    argument("--only", help="steps, with commas between them, or encoders; without it images,patterncom,models"),
    argument("--architecture", help="of the encoders; each one's default without it"),
)
def fetch_files(root: Path | None, only: str | None, architecture: str | None) -> None:
    """Download PatternNet, PatternCom, UC Merced or any encoder's weights, and check them."""
    from rscir_lib.apps.commands.fetch import PATTERNNET, fetch

    fetch(root, only.split(",") if only else PATTERNNET, architecture)


@command("encoders")
def list_encoders() -> None:
    """List the encoders that are published: size, licence, activation, where from, and where on this machine."""
    from rscir_lib.encoders import hub

    for name, architectures in hub.PUBLISHED.items():
        for architecture, one in architectures.items():
            size = f"{one.size / 1e6:,.0f} MB" if one.size else "?"
            facts = f"{size:>9}  {one.licence:14} {one.activation:18} {one.source or 'given by its authors'}"
            unsure = f"  (not verified: {one.unverified})" if one.unverified else ""
            print(f"{name:13} {architecture:13} {facts}{unsure}  {hub.find(one) or 'not here'}")
    print("and open_clip's tags such as ViT-B-32/laion2b_s34b_b79k, hf-hub:owner/name, a file, a folder.")
    print(f"`rscir fetch --only NAME` gets one to {hub.home()}; RSCIR_HOME moves that folder.")


@command(
    "draw",
    argument("root", type=path, help="folder to draw into"),
    argument("--seed", type=int, default=0, help="the bundled benchmark's is 0"),
)
def draw(root: Path, seed: int) -> None:
    """Draw the synthetic benchmark; with another seed it is one that nothing was tuned on."""
    from rscir_lib.benchmarks.synthcom import draw_synthcom

    print(draw_synthcom(root, seed))


@command(
    "whucom",
    argument("folder", type=path, nargs="?", default=DATA / "whucom", help="to draw into; data/whucom without it"),
)
def draw_whucom(folder: Path) -> None:
    """Draw WHUCom's two tasks, from the bundled features of CLIP and RemoteCLIP."""
    from rscir_lib.benchmarks import whucom

    whucom.draw_bundled(folder)


@command("unpack", argument("folder", type=path, help="i-CIR's, with its folder webdataset"))
def unpack(folder: Path) -> None:
    """Unpack the images of i-CIR's WebDataset shards, for its reader."""
    from rscir_lib.benchmarks.icir import unpack_shards

    print(f"{unpack_shards(folder):,} images unpacked")


@command(
    "tiles",
    argument("folder", type=path, help="of scenes: GeoTIFF, JPEG 2000, or any large image"),
    argument("--tile", type=int, default=256, help="side of a window in pixels"),
    argument("--overlap", type=int, default=0, help="pixels that neighbours share"),
    argument("--max-nodata", type=float, default=0.5, help="share of pixels without data a window may have"),
    argument("--listing", type=path, help="where to write it; FOLDER/tiles<TILE>.csv without it"),
    argument("--scenes", action="store_true", help="only images that are too large to be read whole; others stay"),
)
def list_tiles(folder: Path, tile: int, overlap: int, max_nodata: float, listing: Path | None, scenes: bool) -> None:
    """List the windows of large scenes, for every notebook's LISTING."""
    from rscir_lib.archive import write_listing
    from rscir_lib.archive.tiles import read_scenes

    archive = read_scenes(folder, tile, overlap, max_nodata, too_large_only=scenes)
    write_listing(archive, listing := listing or archive.root / f"tiles{tile}.csv")
    given = f"DATASET_ROOT={quote(str(archive.root))} LISTING={quote(str(listing.resolve()))}"
    then = f"make explore {given}, and ENCODER= as you have it; or make workbook with the same"
    print(f"{archive.note}\nwritten: {listing}\nnext: {then}")


@command(
    "verify",
    argument("store", type=path, help="of features, such as runs/synthcom_demo/features"),
    argument("--archive", type=path, help="the images' folder: read them, too"),
    argument("--listing", type=path, help="of the archive"),
)
def verify(store: Path, archive: Path | None, listing: Path | None) -> None:
    """Read every byte of a feature store again, and of its images, and compare the checksums."""
    from rscir_lib.archive import read_archive
    from rscir_lib.features.features import verify_features

    print(f"{verify_features(store, read_archive(archive, listing) if archive else None)}: whole")


@command(
    "geoparquet export",
    argument("store", type=path),
    argument("file", type=path),
    argument("--archive", type=path, help="the images' folder, for their footprints"),
    argument("--listing", type=path, help="of the archive"),
)
def export_geoparquet(store: Path, file: Path, archive: Path | None, listing: Path | None) -> None:
    """Write a feature store as GeoParquet: id, class, embedding, footprint and more."""
    from rscir_lib.archive import read_archive
    from rscir_lib.features import read_features
    from rscir_lib.features.geoparquet import write_geoparquet

    features = read_features(store)
    images = read_archive(archive, listing) if archive else None
    print(f"{features}: written to {write_geoparquet(features, file, images)}")


@command(
    "geoparquet import",
    argument("file", type=path),
    argument("store", type=path),
    argument("--embedding", default="embedding", help="column of the embeddings"),
    argument("--id", default="id", help="column that names a row"),
    argument("--geometry", help="column of the places, '' for none; without it what the file declares, or a usual one"),
)
def import_geoparquet(file: Path, store: Path, embedding: str, id: str, geometry: str | None) -> None:
    """Read somebody's embeddings from GeoParquet into a feature store."""
    from rscir_lib.features import read_features
    from rscir_lib.features.geoparquet import read_geoparquet

    features = read_features(read_geoparquet(file, store, embedding, id, geometry=geometry))
    print(f"{features}: {store}; places: {features.provenance.get('places', 'as declared')}")


@command(
    "train adapt",
    argument("root", type=path, help="dataset root with images/<class>/ or patternnet.csv"),
    argument("captions", type=path, help="JSON, image name -> list of captions"),
    argument("--out", type=path, required=True, help="folder of the encoder"),
    argument("--epochs", type=int, default=90),
    argument("--lincir", action="store_true", help="and LinCIR's network (LINCIR in notebook 09)"),
)
def train_adapt(root: Path, captions: Path, out: Path, epochs: int, lincir: bool) -> None:
    """Train an encoder on an archive with captions."""
    from rscir_lib.apps.commands.training import adapt

    print(adapt(root, captions, out, epochs, lincir=lincir).round(3))


@contextmanager
def every_interrupt_counts() -> Iterator[None]:
    """Raises KeyboardInterrupt at the end where one came and was lost: Python drops what is raised while it clears an
    object away, and the command would end as if nothing had been."""
    came: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        came.append(number)
        signal.default_int_handler(number, frame)

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where a shell has interrupts ignored
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns its exit code: 1 where it failed (a line says why), 2 for wrong words, 130 for Ctrl+C."""
    words = sys.argv[1:] if argv is None else argv
    name = next((name for name in COMMANDS if words[: len(name.split())] == name.split()), None)
    if words[:1] in ([], ["-h"], ["--help"]):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:{width}}  {function.__doc__}" for name, (function, _) in COMMANDS.items()]
        print("usage: rscir COMMAND ...\n", *lines, sep="\n")
        return 0
    if name is None:
        print(f"error: no command {words[0]!r}; rscir --help lists them", file=sys.stderr)
        return 2
    function, arguments = COMMANDS[name]
    parser = argparse.ArgumentParser(prog=f"rscir {name}", description=function.__doc__)
    for names, options in arguments:
        parser.add_argument(*names, **options)
    logging.basicConfig(format="%(message)s")
    try:
        check_checkout(Path.cwd())
        given = vars(parser.parse_intermixed_args(words[len(name.split()) :]))
        with every_interrupt_counts():
            return function(**given) or 0
    except FAILURES as error:
        how = "; `make` installs it, or pip install 'rscir-workbook[scenes]'" * isinstance(error, ModuleNotFoundError)
        print(f"error: {error}{how}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where this one stopped", file=sys.stderr)
        return 130
