"""A run: what a notebook works with, and the runs that are there already."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
from matplotlib.figure import Figure

from rscir_lib.archive import Archive, read_archive
from rscir_lib.runs.parameters import RunConfig, check_parameters, checked
from rscir_lib.runs.paths import (
    DIGITS, dataset_root, encoder_folder, features_of, from_root, models_of, notice_of, read_note, run_of,
)  # fmt: skip
from rscir_lib.storage.atomic import write_file, write_text
from rscir_lib.storage.bounds import of_file
from rscir_lib.storage.digests import sha256_of
from rscir_lib.storage.project import DATA, check_checkout

if TYPE_CHECKING:  # each takes seconds to import, and not every caller needs them
    from rscir_lib.benchmarks.base import Benchmark
    from rscir_lib.encoders import Encoder
    from rscir_lib.features import Features
    from rscir_lib.methods.base import EncodeTexts
    from rscir_lib.ranking import AutoLambda

# tables with one row a query that notebooks save; the first that a run has is compared
ROWS = ("09_rows", "04_rows")
WHUCOM = DATA / "whucom"
PRINTED = 100  # rows of a table that still goes into a paper
PACKAGES = ("rscir-workbook", "numpy", "pandas", "torch", "open_clip_torch")  # what numbers hang on

Saved = TypeVar("Saved", Figure, pd.DataFrame, pd.Series)


@dataclass(frozen=True)
class Run:
    """All that a notebook works with, each part read when it is first used. Made by `open_run`.

    Attributes:
        folder: Where results go.
        root: The folder of the dataset.
        config: The parameters that the run was opened with.
    """

    folder: Path
    root: Path
    config: RunConfig

    @cached_property
    def listing(self) -> Path | None:
        """The file that restricts the archive, if one does."""
        return from_root(self.config.LISTING)

    @cached_property
    def whole_archive(self) -> Archive:
        """Every image of the dataset, with features or without."""
        if not self.config.DATASET_ROOT and not self.root.exists():
            raise FileNotFoundError(f"{self.root}: the bundled benchmark is not drawn yet; run notebook 01, then 02")
        archive = read_archive(self.root, self.listing)
        if "left out" in archive.note:
            print(f"{self.root.name}: {archive.note}")
        table = pd.DataFrame(archive.left_out, columns=["left out", "how many", "what helps"])
        if len(table) or (self.folder / "tables" / "left_out.csv").exists():  # what an earlier one says is no longer so
            self.save(table, "left_out", index=False)
        return archive

    @cached_property
    def archive_with_features(self) -> Archive:
        """The images that have features; what is left out (an image that can't be read) is printed."""
        if self.unread:
            print(self.unread)
        return self.features.readable(self.whole_archive)

    @property
    def unread(self) -> str:
        """What is said of images that can't be read, with what helps; "" where every one can."""
        from rscir_lib.features.extraction import unreadable_in_words

        return unreadable_in_words(self.features.unreadable, self.whole_archive)

    @property
    def notice(self) -> str:
        """See `notice_of`."""
        return notice_of(**self.config.model_dump())

    @cached_property
    def encoder(self) -> "Encoder":
        """The encoder, loaded; `notice` is printed, where there is one."""
        from rscir_lib.encoders import load_encoder, prompted

        if self.notice:
            print(self.notice, flush=True)
        config, models = self.config, models_of(**self.config.model_dump())
        given = config.ARCHITECTURE, config.DEVICE, config.PRECISION, models
        return prompted(load_encoder(encoder_folder(config.ENCODER) or config.ENCODER, *given), config.TEMPLATE)

    @cached_property
    def store(self) -> Path:
        """Where the features lie: what FEATURES names, a table beside the images, or what notebook 02 writes."""
        return features_of(self.config.model_dump())

    @cached_property
    def features(self) -> "Features":
        """The features of the archive by the encoder. Raises FileNotFoundError before notebook 02 has made them."""
        from rscir_lib.features import read_features

        return read_features(self.store, self.whole_archive, self.encoder)

    @cached_property
    def has_benchmark(self) -> bool:
        """Whether the dataset has labels to make queries from."""
        from rscir_lib.benchmarks.registry import find_reader

        return find_reader(self.root) is not None

    @cached_property
    def benchmark(self) -> "Benchmark":
        """The queries over the images that have features. Raises FileNotFoundError where there are no labels."""
        from rscir_lib.benchmarks.registry import read_benchmark

        benchmark = read_benchmark(self.root, self.listing, self.config.PROTOCOL)
        gone = set(self.whole_archive.files) - set(self.archive_with_features.files)
        return benchmark.without(gone) if gone else benchmark

    @cached_property
    def auto(self) -> "AutoLambda":
        """The lambda of the benchmark's queries that is read off their similarities, without a label."""
        from rscir_lib.evaluation.evaluate import compose
        from rscir_lib.ranking import read_lambda
        from rscir_lib.similarity.gallery import InMemory

        gallery = InMemory(self.features.aligned(self.benchmark.archive))
        return read_lambda(compose(self.benchmark, gallery, self.encoder.encode_texts, self.features), gallery)

    def lambdas(self, given: Sequence[float | str]) -> list[float]:
        """Distinct lambdas, with a number for "auto", which is printed."""
        if "auto" in given:
            print(f"auto: {self.auto}")
        return list(dict.fromkeys(self.auto.lam if lam == "auto" else float(lam) for lam in given))

    @property
    def title(self) -> str:
        """Of figures and pages: archive, encoder, and its architecture, or what it is where that has no name ("custom")."""
        own = " (trained on drawings)" if self.encoder.name == "demo" else ""
        architecture = f" {self.encoder.architecture}".replace(" custom", own)
        template = "" if self.config.TEMPLATE == "{}" else f", {self.config.TEMPLATE!r}"
        return f"{self.whole_archive.name}, {self.encoder.name}{architecture}{template}"

    @property
    def facts(self) -> pd.Series:
        """What the run's numbers rest on, for a methods section: sizes, digests, versions."""
        made = self.encoder.provenance
        versions = {f"version of {name}": f"{name} {version(name)}" for name in PACKAGES}
        facts = {
            "archive": self.whole_archive.name, "dataset": self.whole_archive.fingerprint[:16],
            "images": len(self.archive_with_features), "queries": len(self.benchmark.queries),
            "protocol": self.benchmark.protocol, "encoder": self.encoder.name,
            "architecture": self.encoder.architecture, "weights": made.get("weights_sha256", ""),
            "precision": self.config.PRECISION, "template": self.config.TEMPLATE,
        }  # fmt: skip
        return pd.Series(facts | versions, name="value")

    def check(self, **parameters: Any) -> None:
        """Checks the notebook's other parameters (`check_parameters`), and that POSITION and QUERY are in this run."""
        check_parameters(**parameters)
        position, query = parameters.get("POSITION", 0), parameters.get("QUERY")
        if position and position >= (size := len(self.archive_with_features)):
            raise ValueError(f"POSITION={position}: expected 0 to {size - 1}, a position in {self.root}")
        if query is not None and self.has_benchmark and query not in (index := self.benchmark.queries.index):
            raise ValueError(f"QUERY={query}: expected {index[0]} to {index[-1]}, a row of benchmark.queries")

    def end_without_labels(self) -> None:
        """Ends a notebook here where the dataset has no labels; does nothing where it has.

        papermill takes SystemExit for success; in JupyterLab it stops "run all" below the printed sentence.
        """
        if not self.has_benchmark:
            print(f"{self.whole_archive.name} has no labels: this notebook ends here. The rest needs labelled queries.")
            raise SystemExit(0)

    def save(self, result: Saved, name: str, **options: Any) -> Saved:
        """Writes a figure to `figures/<name>.png` and `.pdf`, or a table to `tables/<name>.csv` and, where it is short,
        `.tex`, whole, and returns it.

        A figure's `description` goes into the PNG as its alternative text; options are those of `to_csv`.
        """
        if isinstance(result, Figure):
            description = getattr(result, "description", "")
            metadata = {"Description": description} if description else None
            draw = partial(result.savefig, format="png", metadata=metadata, pil_kwargs={"compress_level": 3})
            write_file(self.folder / "figures" / f"{name}.png", draw)
            undated = partial(result.savefig, format="pdf", metadata={"CreationDate": None, "Subject": description})
            write_file(self.folder / "figures" / f"{name}.pdf", undated)
        else:
            write_text(self.folder / "tables" / f"{name}.csv", result.to_csv(**options))
            if len(result) <= PRINTED:
                write_text(self.folder / "tables" / f"{name}.tex", latex_table(result))
        return result


def latex_words(words: object) -> str:
    """A text as LaTeX shows it, on one line: no character is a command, and none joins the next, as -- does to a dash."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\0": "{}"}
    line = re.sub(r"[\0-\x1f\x7f-\x9f\ud800-\udfff]", " ", str(words))
    apart = re.sub(r"(?<=[-'`<>,?!])(?=[-'`<>,])", "\0", line)
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in apart)


def latex_table(table: pd.DataFrame | pd.Series) -> str:
    """A table for LaTeX's booktabs: per cents with one decimal, shares with three, lambdas as short as can be."""
    frame = pd.DataFrame(table)
    levels = [frame.index.get_level_values(level) for level in range(frame.index.nlevels)]
    columns: list[tuple[Any, Any, str]] = [(level.name, level, "g") for level in levels]
    align = "l" * len(levels)
    for name, values in frame.items():  # names may be there twice
        most = pd.to_numeric(values, errors="coerce").astype(float).abs().max()
        columns.append((name, values, ".1f" if most > 1.5 else ".3f"))
        align += "r" if most == most else "l"

    def shown(value: Any, form: str) -> str:
        if value is None or value is pd.NA or value != value:
            return ""
        words = format(value, form) if isinstance(value, float) else latex_words(value)
        return f"{{}}{words}" if words.startswith(("[", "*")) else words  # after a line break LaTeX takes either for its own

    head = [shown(name, "g") for name, _, _ in columns]
    rows = zip(*([shown(value, form) for value in values] for _, values, form in columns), strict=True)
    lines = [" & ".join(cells) + r" \\" for cells in (head, *rows)]
    start = [rf"\begin{{tabular}}{{{align}}}", r"\toprule", lines[0], r"\midrule"]
    return "\n".join([*start, *lines[1:], r"\bottomrule", r"\end{tabular}", ""])


def finished_runs(folder: str | Path) -> pd.DataFrame:
    """The runs in a folder that have results by query.

    The index is their names; columns architecture, protocol, precision, listing, and `rows`, the path of their table.
    """
    runs = {}
    for note in sorted(Path(folder).glob("*/run.json")):
        tables = [note.parent / "tables" / f"{name}.csv" for name in ROWS]
        if (noted := read_note(note)) and (saved := [table for table in tables if table.is_file()]):
            own = {key: noted.get(key, "") for key in ("architecture", "protocol", "precision")}
            runs[note.parent.name] = {**own, "listing": "part" if noted.get("listing") else "", "rows": saved[0]}
    columns = ["architecture", "protocol", "precision", "listing", "rows"]
    return pd.DataFrame(runs.values(), list(runs), columns).rename_axis("run")


def read_rows(path: str | Path) -> pd.DataFrame:
    """Rows of `evaluate` that a run has saved. Raises ValueError naming the file where a column is missing."""
    with of_file(Path(path), "delete it and run its notebook again"):
        rows = pd.read_csv(path, index_col=0, keep_default_na=False, na_values={"lambda": [""]}, dtype={"choice": str})
        for column in ("attribute", "image", "text", "method", "lambda", "AP"):
            if column not in rows:
                raise ValueError(f"no column {column!r}")
        if "choice" not in rows:  # of notebook 04, whose lambdas nobody chose
            rows["choice"] = rows["lambda"].map("{:g}".format, na_action="ignore").fillna("")
    return rows.rename_axis("query")


def real_tasks() -> "dict[str, tuple[Benchmark, Features, EncodeTexts]]":
    """The two tasks that WHUCom constructs from the bundled features of CLIP and RemoteCLIP, by task and encoder.

    They are drawn where they aren't yet.
    """
    from rscir_lib.benchmarks import read_benchmark, whucom
    from rscir_lib.encoders import load_encoder
    from rscir_lib.features import read_features

    whucom.draw_bundled(WHUCOM)
    tasks: dict[str, tuple[Benchmark, Features, EncodeTexts]] = {}
    for task, (name, table) in itertools.product(("collages", "lookalikes"), whucom.BUNDLES.items()):
        benchmark = read_benchmark(folder := WHUCOM / whucom.folder_of(task, name))
        features = read_features(folder / f"{name}.npz", benchmark.archive)
        tasks[f"{task}, {name}"] = benchmark, features, load_encoder(table.parent).encode_texts
    return tasks


def open_run(DATASET_ROOT: str = "", **parameters: str) -> Run:
    """The run of a notebook's parameters, its folder made if need be.

    Args:
        DATASET_ROOT: Folder of images and labels; "" is the bundled benchmark.
        parameters: Further fields of `RunConfig`: ENCODER, ARCHITECTURE, LISTING, PROTOCOL, OUTPUT_ROOT, MODELS_ROOT,
            DEVICE, PRECISION, FEATURES, PLUGINS.

    Raises:
        ValueError: Naming parameter and value, before any folder is made; or for a folder that holds another run.
        RuntimeError: Where the notebook lies in another copy of the project than the library.
    """
    check_checkout(Path.cwd())
    config = checked(RunConfig, {"DATASET_ROOT": DATASET_ROOT, **parameters})
    run = Run(run_of(config.model_dump()), dataset_root(config.DATASET_ROOT), config)
    if plugins := from_root(config.PLUGINS):  # what the results were made with
        text = plugins.read_text(encoding="utf-8")
        (run.folder / "plugins").mkdir(exist_ok=True)
        write_text(run.folder / "plugins" / f"{plugins.stem}_{sha256_of(text)[:DIGITS]}.py", text)
    return run
