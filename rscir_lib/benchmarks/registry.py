"""Which reader suits a folder."""

from collections.abc import Callable
from inspect import signature
from pathlib import Path

from rscir_lib.benchmarks.base import Benchmark
from rscir_lib.benchmarks.icir import read_icir
from rscir_lib.benchmarks.multilabels import FILES, read_multilabels
from rscir_lib.benchmarks.patterncom import read_patterncom
from rscir_lib.benchmarks.triplets import read_cirr, read_triplets
from rscir_lib.benchmarks.ucmcom import read_ucmcom
from rscir_lib.benchmarks.whucom import MARKER, read_whucom

# of a dataset root; `listing`, of a part of it, unless it lists its images itself; `protocol`, where there are several
Reader = Callable[..., Benchmark]
# the files and folders under a dataset root -> their reader; the first whose files are all there is taken
READERS: dict[tuple[str, ...], Reader] = {
    (MARKER,): read_whucom,
    ("PatternCom",): read_patterncom,
    ("query_files.csv", "database_files.csv"): read_icir,
    ("annotations/query_files.csv", "annotations/database_files.csv"): read_icir,
    ("triplets.csv",): read_triplets,
    ("triplets.json",): read_triplets,
    ("xview2_cir.csv",): read_triplets,
    ("cirr/captions", "cirr/image_splits"): read_cirr,
    ("captions", "image_splits"): read_cirr,
    **{(file, "captions.json"): read_ucmcom for file in FILES},
    **{(file,): read_multilabels for file in FILES},
}


def find_reader(root: str | Path) -> Reader | None:
    """The first of `READERS` whose files and folders are all under `root`; None where there is none."""
    folder = Path(root).expanduser()
    return next((reader for files, reader in READERS.items() if all((folder / f).exists() for f in files)), None)


def read_benchmark(root: str | Path, listing: str | Path | None = None, protocol: str = "released") -> Benchmark:
    """The benchmark that a dataset root holds, in whichever of the known formats.

    Args:
        root: The folder of images and labels.
        listing: A part of the archive, see `read_archive`.
        protocol: "released", or "first-release" where the benchmark is PatternCom.

    Raises:
        FileNotFoundError: No file of a known format is there.
        ValueError: The files can't be used as they stand; see the format's own reader.
    """
    reader = find_reader(root)
    if reader is None:
        known = "; ".join(" and ".join(files) for files in READERS)
        own = "lines of `image,attribute,value` in PatternCom/<attribute>.csv make one of your own"
        fetch = f"`make fetch DATASET_ROOT=...` gets PatternCom, and {own}"
        raise FileNotFoundError(f"{root}: no benchmark here. Expected one of: {known}; {fetch}")
    options = {"listing": listing or None, "protocol": protocol}
    for name in options.keys() - signature(reader).parameters.keys():
        if (value := options.pop(name)) not in (None, "released"):
            only = f"this benchmark has no other than its own; leave {name.upper()} at its default"
            raise ValueError(f"{name} {str(value)!r}: {only}")
    return reader(root, **options)
