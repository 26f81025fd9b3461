"""Runs the notebooks in order, each with parameters, and skips those that stand.

Executed copies, tables (CSV) and figures go to one folder a run (`run_folder`).
"""

import ast
import html
import itertools
import json
import os
import re
import sys
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
import pandas as pd
import papermill
import yaml
from nbclient.exceptions import CellControlSignal, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from PIL import Image

from rscir_lib import runs
from rscir_lib.analysis import bootstrap_mean
from rscir_lib.apps.commands import FAILURES
from rscir_lib.benchmarks.whucom import BUNDLES, draw_bundled
from rscir_lib.encoders import provide
from rscir_lib.features.extraction import unreadable_in_words
from rscir_lib.features.features import open_store
from rscir_lib.storage.atomic import read_json, remove_unfinished, write_json, write_text
from rscir_lib.storage.digests import sha256_of, sha256_of_file, sha256_of_sample
from rscir_lib.storage.folders import files_below
from rscir_lib.storage.locks import folder_lock
from rscir_lib.storage.measuring import measured
from rscir_lib.storage.project import DATA, ROOT

NOTEBOOKS, LIBRARY = ROOT / "notebooks", ROOT / "rscir_lib"
REAL = ["03", "04"]  # notebooks that a first run shows on real features; others that need no picture: 05, 09, 10
AVG = "Avg (95 % interval)"
TIMEOUT = 12 * 3600  # seconds that one cell may take: PatternNet by ViT-L-14 takes hours without a GPU


def declared_parameters(notebook: Path) -> dict[str, object]:
    """Names and default values of a notebook's parameters."""
    declared = papermill.inspect_notebook(str(notebook))
    return {name: ast.literal_eval(parameter["default"]) for name, parameter in declared.items()}


def select_notebooks(names: list[str]) -> list[Path]:
    """Notebooks by name or its beginning ("04"), in their order; all where `names` is empty."""
    notebooks = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    for name in names:
        if not any(path.stem.startswith(Path(name).stem) for path in notebooks):
            raise ValueError(f"no notebook {name!r}; there are {', '.join(path.stem for path in notebooks)}")
    beginnings = tuple(Path(name).stem for name in names) or ("",)
    return [path for path in notebooks if path.stem.startswith(beginnings)]


def resolve_parameters(notebooks: list[Path], given: dict[str, object]) -> dict[Path, dict[str, object]]:
    """The full parameters of each notebook: its defaults, replaced by the given values of those that it declares.

    A text given for a parameter that is not a text is read as a literal; a relative path counts from where the command
    runs. Raises ValueError for a parameter that no notebook declares, listing those that they do, and for a value that
    `runs.PARAMETERS` doesn't allow (or that is of another type than the default, where it has no rule).
    """
    defaults = {notebook: declared_parameters(notebook) for notebook in notebooks}
    known = {name: value for declared in defaults.values() for name, value in declared.items()}
    values = {}
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"no parameter {name!r} in these notebooks; they declare {', '.join(known)}")
        default = known[name]
        if isinstance(value, str) and not isinstance(default, str):
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                raise ValueError(f"{name}={value}: not a literal like {default!r}") from None
        kind = (int, float) if isinstance(default, float) else type(default)
        if name not in runs.PARAMETERS and not isinstance(value, kind):
            raise ValueError(f"{name}={value!r}: expected {type(default).__name__}, such as {default!r}")
        values[name] = runs.absolute(name, value)
    runs.check_parameters(**{name: value for name, value in values.items() if name in runs.PARAMETERS})
    return {nb: own | {k: v for k, v in values.items() if k in own} for nb, own in defaults.items()}


def needed_first(plan: Mapping[Path, dict[str, object]]) -> list[str]:
    """The notebooks that make what a plan needs and isn't there: 01 draws SynthCom, 02 extracts, 09 ranks for 11."""
    own = ChainMap[str, Any](*plan.values())
    asked, features = {path.stem[:2] for path in plan}, runs.features_of(own)
    rows = own.get("RUNS_FOLDER") != "" or asked & {"04", "09"} or len(runs.finished_runs(runs.run_of(own).parent))
    stored = ("FEATURES" not in own and rows) or features.is_file() or (features / "manifest.json").is_file()
    whole = (runs.dataset_root() / "patternnet.csv").exists()  # which is written last
    there = {"01": own.get("DATASET_ROOT") or whole or ("DATASET_ROOT" not in own and stored), "02": stored, "09": rows}
    return [number for number, stands in there.items() if not stands and number not in asked]


def grid(given: dict[str, object]) -> dict[str, dict[str, object]]:
    """Every combination of the parameters that name several runs (`ENCODER=clip,remoteclip`, or a list in YAML).

    Maps what is varied, such as "ENCODER=clip ARCHITECTURE=RN50", to the parameters; one entry, "", without a grid. A
    value with a comma that is the path of something there is no grid.
    """
    several = {}
    for name in runs.IDENTITY[1:]:
        value = given.get(name)
        if isinstance(value, str) and "," in value and name != "TEMPLATE" and not Path(value).expanduser().exists():
            value = [one.strip() for one in value.split(",")]
        if isinstance(value, list):
            several[name] = list(dict.fromkeys(value)) or [""]
    labels = [[f"{name}={one}" for one in values] for name, values in several.items()]
    combined = zip(itertools.product(*labels), itertools.product(*several.values()), strict=True)
    return {" ".join(label): given | dict(zip(several, values, strict=True)) for label, values in combined}


def _inputs(parameters: dict[str, object], run: Path) -> Iterator[tuple[str, Path]]:
    """Every file that a notebook may read, by role and relative path: data set, encoder, features, and so on."""
    places = {"data": runs.dataset_root(parameters.get("DATASET_ROOT", "")), "published": ROOT / "data" / "published"}
    if "FEATURES" in parameters:  # 01 needs none, 02 makes them
        places["FEATURES"] = runs.features_of(parameters)
    encoder = parameters.get("ENCODER")
    if encoder:
        places["ENCODER"] = ROOT / "data" / "demo_encoder" if encoder == "demo" else runs.encoder_folder(encoder)
    places |= {name: runs.from_root(parameters.get(name, "")) for name in runs.paths.FURTHER_INPUTS}
    if "RUNS_FOLDER" in parameters:  # what it compares
        folder = runs.from_root(parameters["RUNS_FOLDER"]) or run.parent
        yield from ((f"RUNS_FOLDER/{name}", path) for name, path in runs.finished_runs(folder)["rows"].items())
    for role, place in places.items():
        # results are no input, where the run or its neighbours lie inside the dataset
        results = run.parent if place in run.parent.parents else run
        for file, path in files_below(place).items() if place else ():
            if role == "FEATURES" or not path.is_relative_to(results):
                yield f"{role}/{file}", path


def fingerprint(notebook: Path, parameters: dict[str, object], run: Path) -> dict[str, str]:
    """sha256 of all that the results depend on: parameters, cells, library, sizes and times of the inputs (`made_of`).

    Paths count by what lies there, not by where it is, so that results stand in a moved project. `places` says where
    the inputs are; what stays there must be the same file, unchanged since (`inodes`), whatever its size and time.
    """
    values = {name: bool(value) if name in runs.PATHS else value for name, value in parameters.items()}
    if values.get("ENCODER") and (folder := runs.encoder_folder(values["ENCODER"])):
        values["ENCODER"] = folder.name
    cells = [cell.source for cell in nbformat.read(notebook, as_version=4).cells]
    library = [file + sha256_of_file(path) for file, path in files_below(LIBRARY).items() if "__pycache__" not in file]
    stats = {name: (path, path.stat()) for name, path in _inputs(parameters, run)}
    inputs = [f"{name} {stat.st_size} {stat.st_mtime_ns}\n" for name, (_, stat) in stats.items()]
    return {
        "made_of": sha256_of(json.dumps(values, sort_keys=True), *cells, *library, *inputs),
        "places": sha256_of(*(f"{path}\n" for path, _ in stats.values())),
        "inodes": sha256_of(*(f"{stat.st_ino} {stat.st_ctime_ns}\n" for _, stat in stats.values())),
    }


def _stands(stamp: Path, notebook: Path, parameters: dict[str, object], run: Path) -> bool:
    """Whether the results that a stamp names are there, and everything they depend on is as it was."""
    try:
        old = read_json(stamp)
        if not isinstance(old.get("results"), dict):
            raise ValueError(f"{stamp} is damaged (it names no results)")
    except FileNotFoundError:
        return False
    except ValueError as error:
        print(f"      {error}; {notebook.stem} runs again", file=sys.stderr)
        return False
    files = _files(run, parameters)
    there = {file: sha256_of_sample(files[file][0], 2**20) for file in old["results"] if file in files}
    if not there or there != old["results"]:
        return False
    now = fingerprint(notebook, parameters, run)
    moved = now["made_of"] == old.get("made_of") and now["places"] != old.get("places")
    if moved:
        write_json(stamp, old | now)
    return moved or all(old.get(key) == value for key, value in now.items())


def run_notebook(notebook: Path, parameters: dict[str, object], timeout: int, force: bool = False) -> str:
    """Executes one notebook into its run folder, unless its results stand. Returns "ran", "stands" or how it ended.

    One command at a time works in a run folder; another waits. The stamp of the results is written last, so that
    a notebook that was killed runs again. Raises RuntimeError naming notebook, cell and error.
    """
    run = runs.run_of(parameters)
    copy, stamp = run / "notebooks" / notebook.name, run / "notebooks" / f"{notebook.stem}.json"
    with folder_lock(run):
        for room in ("notebooks", "tables", "figures"):  # the features have a lock of their own
            remove_unfinished(run / room)
        if not (force or parameters.get("OVERWRITE")) and _stands(stamp, notebook, parameters, run):
            return "stands"
        stamp.unlink(missing_ok=True)
        before = _files(run, parameters)
        done = execute(notebook, copy, parameters, timeout)
        after = _files(run, parameters)
        # a store that stood already is the result of the notebook that makes it, too
        kept = "features/" if "OVERWRITE" in parameters else ()
        made = [file for file in after if after[file] != before.get(file) or file.startswith(kept)]
        results = {file: sha256_of_sample(after[file][0], 2**20) for file in made}  # of shards of features, 64 MiB
        write_json(stamp, fingerprint(notebook, parameters, run) | {"results": results})
    ended = any(out.get("ename") == "SystemExit" for cell in done.cells for out in cell.get("outputs", []))
    return "ran as far as it goes without labels" if ended else "ran"


def _files(run: Path, parameters: dict[str, object]) -> dict[str, tuple[Path, int, int]]:
    """Path, size and time of every file of a run that may be a notebook's result, its features wherever they lie."""
    store = files_below(runs.features_of(parameters | {"FEATURES": ""}))
    files = files_below(run) | {f"features/{file}": path for file, path in store.items()}
    paths = {f: path for f, path in files.items() if "/" in f and not re.fullmatch(r"notebooks/.*\.json", f)}
    return {f: (path, (stat := path.stat()).st_size, stat.st_mtime_ns) for f, path in paths.items()}


def execute(notebook: Path, copy: Path, parameters: dict[str, object], timeout: int) -> nbformat.NotebookNode:
    """Runs a notebook by papermill, into a copy. Raises RuntimeError naming notebook, cell and error."""
    # the kernel must import this library, whatever is installed in its environment, and be, of all kernels named
    # python3, this environment's, whatever a cluster puts first
    for name, own in (("PYTHONPATH", str(ROOT)), ("JUPYTER_PATH", str(Path(sys.prefix, "share", "jupyter")))):
        others = [path for path in os.environ.get(name, "").split(os.pathsep) if path not in ("", own)]
        os.environ[name] = os.pathsep.join([own, *others])
    # papermill takes braces in a path for parameters of its own
    notebooks = [str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, copy)]
    try:
        done = papermill.execute_notebook(
            *notebooks, parameters, kernel_name="python3", language="python", cwd=str(NOTEBOOKS),
            execution_timeout=timeout, extra_arguments=["--log-level=CRITICAL"], progress_bar=sys.stderr.isatty(),
        )  # fmt: skip
    except PapermillExecutionError as error:
        own = re.escape(Path(str(parameters.get("PLUGINS") or ".")).name)
        lines = re.findall(rf"{own}:\d+", re.sub(r"\x1b\[[\d;]*m", "", "\n".join(error.traceback))) if own else []
        where = ", ".join([notebook.stem, f"cell [{error.exec_count}]", *lines[-1:]])  # the last line of one's own code
        raise RuntimeError(f"{where}: {error.ename}: {error.evalue}\n  executed up to there: {copy}") from None
    except (CellControlSignal, DeadKernelError) as error:
        raise RuntimeError(f"{notebook.stem}: {type(error).__name__}: {str(error).strip()}") from None
    # a copy that is passed on says nothing of this machine's folders, unless a parameter does
    done.metadata.papermill |= {"input_path": notebook.name, "output_path": copy.name}
    write_text(copy, nbformat.writes(done) + "\n")
    return done


def read_parameters(path: Path) -> dict[str, object]:
    """The parameters in a YAML file. Raises ValueError naming the file for anything but lines of `NAME: value`."""
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        kind = "nothing" if given is None else f"a {type(given).__name__}"
        raise ValueError(f"{path}: expected lines of `NAME: value`, such as `ENCODER: clip`; found {kind}")
    return given


def run_plan(
    plan: dict[Path, dict[str, object]], timeout: int = TIMEOUT, force: bool = False, show: Sequence[str] = ()
) -> Path:
    """Runs the notebooks of a plan in order, printing times and memory, then the tables whose names are in `show`.

    Stops at the first failure, which it raises. Returns the run's folder.
    """
    own = ChainMap[str, Any](*plan.values())
    if "ENCODER" in own and (notice := runs.notice_of(**own)):  # the notebooks' copies say it too
        print(notice, flush=True)
    for number, (notebook, parameters) in enumerate(plan.items(), 1):
        print(f"[{number}/{len(plan)}] {notebook.stem} ...", flush=True)
        seconds, mib, outcome = measured(run_notebook, notebook, parameters, timeout, force)
        memory = f", {mib:,.0f} MiB" if outcome != "stands" else ""
        print(f"      {outcome}, {seconds:.1f} s{memory}", flush=True)
    run = runs.run_of(dict(own))  # not the last notebook's, which may know no data set
    with suppress(OSError):  # nothing is drawn, or no features are stored
        opened = runs.open_run(**{name: own[name] for name in (*runs.IDENTITY, "FEATURES") if name in own})
        archive = opened.whole_archive  # which prints what is left out of the folder
        if said := unreadable_in_words(open_store(opened.store).unreadable, archive):
            print(said)
    print(f"results: {write_index(run)}")
    for table in filter(None, show):
        shown = pd.read_csv(run / "tables" / f"{table}.csv").to_string(index=False, float_format="{:.4g}".format)
        print(f"\n{table}.csv\n{shown}")
    return run


def beside_each_other(finished: Mapping[str, Path]) -> pd.DataFrame:
    """Of finished runs, by what tells them apart, every method's Avg mAP in per cent with its 95 % interval
    (`bootstrap_mean`), in words. FileNotFoundError where notebook 04 hasn't run."""
    lines = []
    for name, run in finished.items():
        rows = runs.read_rows(run / "tables" / "04_rows.csv")
        for (method, lam), part in rows.groupby(["method", "lambda"], sort=False, dropna=False):
            said = "{Avg:.1f} ({low:.1f} to {high:.1f})".format_map(bootstrap_mean(part, samples=1000))
            lines.append([name, method, "" if pd.isna(lam) else f"{lam:g}", said])
    return pd.DataFrame(lines, columns=["run", "method", "lambda", AVG])


def write_sweep(finished: Mapping[str, Path]) -> Path:
    """Writes `sweep.html` among finished runs, and returns its path: every method's Avg mAP by each choice of lambda,
    from notebook 09, else at notebook 04's lambdas, with a link to each run's own page."""
    tables = []
    for name, run in finished.items():
        best, rows = run / "tables" / "09_methods.csv", run / "tables" / "04_rows.csv"
        if best.is_file() and not (rows.is_file() and rows.stat().st_mtime > best.stat().st_mtime):
            table = methods_of(run).filter(regex="^(lambda|Avg )").reset_index()
        elif rows.is_file():
            table = beside_each_other({name: run})
        else:
            table = pd.DataFrame({"method": ["no results"]})
        table = table.map(html.escape).assign(run=f'<a href="{quote(run.name)}/index.html">{html.escape(name)}</a>')
        tables.append(table.set_index("run").reset_index())
    shown = pd.concat(tables).to_html(escape=False, index=False, na_rep="")
    page = [*_head("Runs"), "<p>mAP in per cent, mean over attributes.</p>", shown, "</main></html>\n"]
    return write_text(next(iter(finished.values())).parent / "sweep.html", "\n".join(page))


def _head(title: str) -> list[str]:
    """How a page of files begins."""
    title = html.escape(title)
    return [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<style>body{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em}img{max-width:100%}",
        "td,th{padding:.2em .6em;text-align:left;vertical-align:top}table{border-collapse:collapse}",
        "summary h2{display:inline;font-size:1.1em}summary{padding:.4em 0;cursor:pointer}</style>",
        f"<main><h1>{title}</h1>",
    ]


def write_index(run: Path) -> Path:
    """Writes a page of a run, with relative links, and returns its path: what queries reach; folded up, its files."""
    kinds = "figures/*.png", "figures/*.html", "tables/*.csv", "notebooks/*.ipynb"
    files = [path for kind in kinds for path in sorted(run.glob(kind))]
    seen = {"05_lambda_curves": "what lambda does", "06_best": "the best queries", "06_worst": "the worst queries"}
    seen |= {"left_out": "what was left out of the folder of images, and what helps"}
    links = [f'<a href="{path.parent.name}/{path.name}">{seen[path.stem]}</a>' for path in files if path.stem in seen]
    links += [
        "<code>make explore</code> with this run's DATASET_ROOT, ENCODER and LISTING",
        "<code>make book</code>, a web site",
    ]
    parts = [*_head(run.name), _reached(run), f"<nav><p>Where to go on: {', '.join(links)}.</p></nav>"]
    titles = {path.stem[:2]: path.stem.replace("_", " ") for path in select_notebooks([])}
    title_of = {path: titles.get(path.name[:2], path.stem) for path in files}
    for title, group in itertools.groupby(sorted(files, key=title_of.__getitem__), title_of.__getitem__):
        items = [*map(_item, group)]
        count = f"{len(items)} file{'s' * (len(items) > 1)}"
        parts += [f"<details><summary><h2>{html.escape(title)}</h2>, {count}</summary><ul>", *items, "</ul></details>"]
    return write_text(run / "index.html", "\n".join([*parts, "</main></html>\n"]))


def _reached(run: Path) -> str:
    """What the queries of a run reach by each method, where notebook 04 has ranked them."""
    if not (path := run / "tables" / "04_rows.csv").is_file():
        return "<p>No query is judged here: that takes labels, and notebook 04.</p>"
    ap = runs.read_rows(path).groupby(["method", "lambda"], sort=False, dropna=False)["AP"]
    table = pd.DataFrame({"median AP": 100 * ap.median(), "mean AP": 100 * ap.mean()}).reset_index()
    best = table.loc[table["median AP"].idxmax()].fillna("none")
    words = f"Half of {ap.size().max():,} queries reach an average precision (AP) of {best['median AP']:.1f} % or more"
    by = f"by {html.escape(best['method'])}, lambda {best['lambda']}, the best here"
    return f"<p><strong>{words} {by}.</strong> In per cent:</p>{table.round(1).to_html(index=False, na_rep='')}"


def _item(path: Path) -> str:
    """A file of a run as an item of a list, a figure with its picture and what that shows."""
    shown, file = html.escape(path.stem), quote(f"{path.parent.name}/{path.name}")
    if path.suffix != ".png":
        return f'<li><a href="{file}">{shown}</a> ({path.suffix[1:]})</li>'
    alt = shown
    with suppress(OSError), Image.open(path) as image:  # somebody's own, which can't be read
        alt = html.escape(image.info.get("Description", path.stem))
    return f'<li><a href="{file}">{shown}<br><img src="{file}" alt="{alt}" loading="lazy"></a></li>'


def run_combinations(notebooks: list[Path], given: dict[str, object], beside: bool = False, **options: object) -> int:
    """Runs notebooks once, or for every combination of a `grid`, the others too where one fails.

    Returns an exit code; options are those of `run_plan`, and `beside`: whether one table of all runs is printed at the
    end. Raises what a single combination raises.
    """
    combinations, failed, finished = grid(given), dict[str, str](), dict[str, Path]()
    several, folders = len(combinations) > 1, dict[Path, str]()
    for number, (label, parameters) in enumerate(combinations.items(), 1):
        label = label or f"ENCODER={given.get('ENCODER', 'demo')}"
        print(f"\n({number}/{len(combinations)}) {label}\n" * several, end="", flush=True)
        try:
            plan = resolve_parameters(notebooks, parameters)
            own = ChainMap[str, Any](*plan.values())
            provide(own.get("ENCODER", "demo"), own.get("ARCHITECTURE", ""), runs.models_of(**own))  # before any folder
            if before := needed_first(plan):
                print(f"first {' and '.join(before)}, which make what is needed and not there yet", flush=True)
                names = [*before, *(path.stem for path in notebooks)]
                plan = resolve_parameters(select_notebooks(names), parameters)
            first = folders.setdefault(runs.run_of(next(iter(plan.values()))), label)
            if first != label:
                raise ValueError(f"{label} is the same run as {first}: the files there are equal; leave one out")
            finished[label] = run_plan(plan, **options)
        except FAILURES as error:
            if not several:
                raise
            failed[label] = str(error).partition("\n")[0]
            print(f"error: {error}", file=sys.stderr, flush=True)
    if finished and several:
        print(f"\nall runs on one page: {write_sweep(finished)}")
    judged = {name: run for name, run in finished.items() if (run / "tables" / "04_rows.csv").is_file()}
    for name in sorted(finished.keys() - judged.keys()) if beside else ():
        print(f"  not beside the others, since notebook 04 hasn't run there: {name}")
    if beside and judged:
        print(f"\nAvg mAP in per cent, over images and words:\n{beside_each_other(judged).to_string(index=False)}")
    if several:
        print(f"\n{len(finished)} of {len(combinations)} combinations finished")
    for label, first_line in failed.items():
        print(f"  failed: {label}: {first_line}")
    return int(bool(failed))


def run_bundled(**options: Any) -> int:
    """The notebooks on SynthCom; some on WHUCom, whose features are real; the last one, which compares the runs."""
    draw_bundled(DATA / "whucom")
    real = {"DATASET_ROOT": str(DATA / "whucom" / "collages"), "ENCODER": str(BUNDLES["clip"].parent)}
    *first, last = select_notebooks([])
    parts = (first, {}), (select_notebooks(REAL), real), ([last], {})
    return max(run_combinations(notebooks, given, **options) for notebooks, given in parts)


def methods_of(run: Path) -> pd.DataFrame:
    """Notebook 09's table of a run, as text: what every method is worth and costs. FileNotFoundError without it."""
    if not (path := run / "tables" / "09_methods.csv").is_file():
        raise FileNotFoundError(f"{path} is missing: run notebook 09 there")
    return pd.read_csv(path, index_col="method", dtype=str, keep_default_na=False)
