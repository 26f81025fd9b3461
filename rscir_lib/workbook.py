"""Runs the notebooks in order, each with parameters, and skips those that stand.

    python -m rscir_lib.workbook                                     # all six on the bundled benchmark
    python -m rscir_lib.workbook 03 04 ENCODER=clip DATASET_ROOT=~/PatternNet
    python -m rscir_lib.workbook --params notebooks/params/patternnet_clip.yaml

Executed copies, tables (CSV) and figures go to one folder a run (`run_folder`).
"""

import argparse
import ast
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import yaml
from nbclient.exceptions import CellControlSignal, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from rscir_lib.runs import ROOT, dataset_root, run_of

NOTEBOOKS = ROOT / "notebooks"


def declared_parameters(notebook: Path) -> dict[str, object]:
    """Names and default values of a notebook's parameters."""
    found = papermill.inspect_notebook(str(notebook))
    return {name: ast.literal_eval(parameter["default"]) for name, parameter in found.items()}


def select_notebooks(names: list[str]) -> list[Path]:
    """Notebooks by name or its beginning ("04"), in their order; all where `names` is empty."""
    there = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    for name in names:
        if not any(path.stem.startswith(Path(name).stem) for path in there):
            raise ValueError(f"no notebook {name!r}; there are {', '.join(path.stem for path in there)}")
    return [path for path in there if not names or any(path.stem.startswith(Path(n).stem) for n in names)]


def resolve_parameters(notebooks: list[Path], given: dict[str, object]) -> dict[Path, dict[str, object]]:
    """Each notebook's full parameters: its defaults, replaced by what is given and it declares.

    A value given as text for a parameter that is no text is read as a literal. Raises ValueError for a parameter that
    none of the notebooks declares, listing those there are, and for a value of another type than the default's.
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
            except (ValueError, SyntaxError):
                raise ValueError(f"{name}={value}: not a literal like {default!r}") from None
        if not isinstance(value, (int, float) if isinstance(default, float) else type(default)):
            raise ValueError(f"{name}={value!r}: expected {type(default).__name__}, such as {default!r}")
        if isinstance(value, str) and value and (name.endswith("_ROOT") or "/" in value):
            value = os.path.abspath(os.path.expanduser(value))  # the notebooks run in another folder
        values[name] = value
    return {nb: own | {k: v for k, v in values.items() if k in own} for nb, own in defaults.items()}


def _inputs(parameters: dict[str, object], run: Path) -> Iterator[Path]:
    """Every file that a notebook may read: data set, encoder, features, what its parameters point at."""
    roots = [dataset_root(parameters.get("DATASET_ROOT", "")), ROOT / "data" / "published"]
    roots += [run / "features"] if "FEATURES" in parameters else []  # 01 needs none, 02 makes them
    roots += [ROOT / "data" / "demo_encoder"] if parameters.get("ENCODER") == "demo" else []
    roots += [Path(value) for value in parameters.values() if isinstance(value, str) and value.startswith("/")]
    for root in roots:
        if root != Path(parameters.get("OUTPUT_ROOT") or "/"):
            yield from [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())


def fingerprint(notebook: Path, parameters: dict[str, object], run: Path) -> str:
    """sha256 of what the results follow from: parameters, cells, library, sizes and times of the inputs."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    for cell in nbformat.read(notebook, as_version=4).cells:
        digest.update(cell.source.encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    for path in _inputs(parameters, run):
        stat = path.stat()
        digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def run_notebook(notebook: Path, parameters: dict[str, object], timeout: int, force: bool = False) -> str:
    """Executes one notebook into its run folder, unless its results stand. Returns "ran" or "stands".

    Raises RuntimeError naming notebook, cell and error.
    """
    run = run_of(parameters)
    copy, stamp = run / "notebooks" / notebook.name, run / "notebooks" / f"{notebook.stem}.json"
    if not force and stamp.exists():
        old = json.loads(stamp.read_text())
        if old["fingerprint"] == fingerprint(notebook, parameters, run) and all(
            (run / result).exists() for result in old["results"]
        ):
            return "stands"
    stamp.unlink(missing_ok=True)
    start = time.time()
    try:
        papermill.execute_notebook(
            str(notebook), str(copy), parameters, kernel_name="python3", language="python", cwd=str(NOTEBOOKS),
            execution_timeout=timeout, extra_arguments=["--log-level=CRITICAL"], progress_bar=sys.stderr.isatty(),
        )  # fmt: skip
    except PapermillExecutionError as error:
        where = f"{notebook.stem}, cell [{error.exec_count}]"
        raise RuntimeError(f"{where}: {error.ename}: {error.evalue}\n  executed up to there: {copy}") from None
    except (CellControlSignal, DeadKernelError) as error:
        raise RuntimeError(f"{notebook.stem}: {type(error).__name__}: {str(error).strip()}") from None
    results = [p for p in run.rglob("*") if p.is_file() and p.stat().st_mtime >= start - 1]
    results = [str(p.relative_to(run)) for p in results]
    stamp.write_text(json.dumps({"fingerprint": fingerprint(notebook, parameters, run), "results": results}))
    return "ran"


def refresh(notebooks: list[Path]) -> None:
    """Runs notebooks in place, with their defaults, and strips all outputs but the result tables that nbval checks."""
    for notebook in notebooks:
        execute = ["nbconvert", "--to=notebook", "--execute", "--inplace", "--log-level=WARN"]
        strip = ["nbstripout", "--keep-count", "--keep-id", "--extra-keys=metadata.language_info.version"]
        for command in (execute, strip):
            subprocess.run([sys.executable, "-m", *command, str(notebook)], check=True)
        print(f"{notebook.stem} refreshed", flush=True)


def main(argv: list[str] | None = None) -> int:
    """The command line; exit code 1 at the first failure."""
    parser = argparse.ArgumentParser(prog="python -m rscir_lib.workbook", description=__doc__.split("\n")[0])
    parser.add_argument("words", nargs="*", metavar="NOTEBOOK | KEY=value", help="which (default: all); parameters")
    parser.add_argument("--params", type=Path, help="YAML file of parameters; KEY=value wins over it")
    parser.add_argument("--force", action="store_true", help="run what stands, too")
    parser.add_argument("--timeout", type=int, default=12 * 3600, help="seconds that one cell may take")
    parser.add_argument("--published", action="store_true", help="print the result beside the published tables")
    parser.add_argument("--refresh", action="store_true", help="rewrite the committed result tables of the notebooks")
    args = parser.parse_intermixed_args(argv)
    try:
        notebooks = select_notebooks([word for word in args.words if "=" not in word])
        if args.refresh:
            refresh(notebooks)
            return 0
        given = yaml.safe_load(args.params.read_text()) if args.params else {}
        given |= dict(word.split("=", 1) for word in args.words if "=" in word)
        plan = resolve_parameters(notebooks, given)
        for number, (notebook, parameters) in enumerate(plan.items(), 1):
            start = time.perf_counter()
            print(f"[{number}/{len(plan)}] {notebook.stem} ...", flush=True)
            outcome = run_notebook(notebook, parameters, args.timeout, args.force)
            print(f"      {outcome}, {time.perf_counter() - start:.1f} s", flush=True)
        run = run_of(parameters)
        print(f"results: {run}")
        if args.published:
            for table in ("04_map", "04_beside_published", "04_nearest_version"):
                print(f"\n{table}.csv\n{pd.read_csv(run / 'tables' / f'{table}.csv').round(2).to_string(index=False)}")
    except (ValueError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
