"""The authors' feature pickles, without running anything: arrays, lists and strings are built, all else refused."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np


class _Global:
    """What a pickle gets for a name: it can be called, and neither read nor changed."""

    def __init__(self, call: Callable) -> None:
        self.call = call

    def __call__(self, *args):
        return self.call(*args)

    def __setstate__(self, state) -> None:
        raise pickle.UnpicklingError("a function with a state")


class _Dtype:
    """Stands in for numpy.dtype: plain numbers and strings only."""

    def __init__(self, spec: str, *_) -> None:
        self.dtype = np.dtype(str(spec))
        if self.dtype.kind not in "biufSU" or self.dtype.names:
            raise pickle.UnpicklingError(f"an array of {self.dtype}, not of numbers or strings")

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands in for numpy.ndarray, so that no state of the pickle's making reaches numpy's C code."""

    def __init__(self, *_) -> None:
        self.array = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _from_buffer(data, dtype, shape, "F" if fortran else "C")


def _from_buffer(data: bytes, dtype: _Dtype, shape: tuple = (), order: str = "C"):
    return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)[()]


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode("latin1")


GLOBALS: dict[tuple[str, str], Callable] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,  # how protocols 0 to 2 write bytes
}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    GLOBALS[f"{_core}.multiarray", "_reconstruct"] = _Array
    GLOBALS[f"{_core}.multiarray", "scalar"] = lambda dtype, data: _from_buffer(data, dtype)
    GLOBALS[f"{_core}.numeric", "_frombuffer"] = lambda data, dtype, *rest: _from_buffer(data, dtype, *rest)


class _Unpickler(pickle.Unpickler):
    """Builds numpy arrays and scalars of numbers and strings, lists, strings; refuses every other name."""

    def find_class(self, module: str, name: str) -> _Global:
        if (module, name) not in GLOBALS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _Global(GLOBALS[module, name])


def read_pickle(path: Path) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Features (N, d) float32, N files and N classes of the authors' `.pkl` (protocol, Data).

    Raises FileNotFoundError for an absent file, ValueError for a pickle of anything but arrays, lists and strings, and
    for rows that are not finite and L2-normalised.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            content = _Unpickler(file).load()
    except Exception as error:  # a malformed pickle can raise anything
        raise ValueError(f"{path} is refused: a feature file holds arrays, lists and strings only ({error})") from error
    keys = ("feats", "labels", "paths")
    if not isinstance(content, dict) or not content.keys() >= set(keys):
        held = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path}: expected a dict with feats, labels and paths, found {held}")
    feats, labels, files = (getattr(content[key], "array", content[key]) for key in keys)
    if not isinstance(feats, np.ndarray) or feats.ndim != 2 or feats.dtype.kind != "f":
        found = f"{feats.dtype} {feats.shape}" if isinstance(feats, np.ndarray) else type(feats).__name__
        raise ValueError(f"{path}: feats must be an (N, d) array of floats, found {found}")
    for key, value, types in (("labels", labels, (str, int, np.integer)), ("paths", files, str)):
        if not isinstance(value, list | tuple | np.ndarray) or not all(isinstance(v, types) for v in value):
            raise ValueError(f"{path}: {key} must be a list of strings")
        if len(value) != len(feats):
            raise ValueError(f"{path}: {len(feats)} rows of feats, but {len(value)} {key}")
    feats = np.array(feats, np.float32, order="C")  # the pickle's own bytes are read-only
    norms = np.linalg.norm(feats, axis=1)
    wrong = np.flatnonzero(~(np.abs(norms - 1) < 1e-3))  # so that NaN is wrong too
    if wrong.size:
        raise ValueError(
            f"{path}: {wrong.size} rows are not finite and L2-normalised, first row {wrong[0]} "
            f"({files[wrong[0]]}), norm {norms[wrong[0]]:.6g}"
        )
    classes = tuple(str(label).replace("_", "") for label in labels)
    return feats, tuple(map(str, files)), classes
