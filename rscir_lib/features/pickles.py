"""The authors' feature pickles, without running anything: arrays, lists and strings are built, all else refused."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

LONGEST = 4096  # characters of a message that a pickle has a word in


class _Global:
    """What a pickle gets for a name: it can be called, and neither read nor changed."""

    def __init__(self, call: Callable, spend: Callable[[int], None]) -> None:
        self.call, self.spend = call, spend

    def __call__(self, *args):
        result = self.call(*args)
        self.spend(len(result) if isinstance(result, bytes) else getattr(result, "nbytes", 0))
        return result


class _Dtype:
    """Stands in for numpy.dtype: plain numbers and strings only."""

    def __init__(self, spec: str, *_) -> None:
        self.dtype = np.dtype(_a(str, spec))
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


def _a(kind: type, value):
    if type(value) is not kind:
        raise pickle.UnpicklingError(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _from_buffer(data: bytes, dtype: _Dtype, shape: tuple = (), order: str = "C"):
    return np.frombuffer(data, _a(_Dtype, dtype).dtype).reshape(_a(tuple, shape), order=_a(str, order))[()]


def _encode(text: str, encoding: str) -> bytes:
    if _a(str, encoding) != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return _a(str, text).encode("latin1")


GLOBALS: dict[tuple[str, str], Callable] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,  # how protocols 0 to 2 write bytes
}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    GLOBALS[f"{_core}.multiarray", "_reconstruct"] = _Array
    GLOBALS[f"{_core}.multiarray", "scalar"] = lambda dtype, data: _from_buffer(data, dtype)
    GLOBALS[f"{_core}.numeric", "_frombuffer"] = lambda data, dtype, *rest: _from_buffer(data, dtype, *rest)

# What picklers write for dicts, lists, tuples, strings, bytes and small numbers, for names and calls, and for keeping
# a value to use it again. No other instruction is followed.
_NAMES = """
    MARK STOP POP POP_MARK PROTO FRAME EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE
    TUPLE1 TUPLE2 TUPLE3 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG1 FLOAT BINFLOAT GLOBAL STACK_GLOBAL REDUCE BUILD PUT BINPUT
    LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
""".split()


class _Instructions(dict):
    def __missing__(self, code: int):
        raise pickle.UnpicklingError(f"instruction {bytes([code])!r}")


class _Unpickler(pickle._Unpickler):
    """Builds numpy arrays and scalars of numbers and strings, lists, strings; refuses every other name.

    It is the one in Python, whose memory and time are in proportion to the file: the one in C allots what a pickle
    announces, and a few bytes can announce 4 GiB.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.left = 4 * len(file.getbuffer())  # bytes that calls may make: of what the file holds, two copies

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise pickle.UnpicklingError("it unpacks to many times its size")

    def find_class(self, module: str, name: str) -> _Global:
        if (module, name) not in GLOBALS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}"[:LONGEST])
        return _Global(GLOBALS[module, name], self.spend)

    def load_bytearray8(self) -> None:
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))  # as much as there is

    def load_build(self) -> None:
        if not isinstance(self.stack[-2], _Array | _Dtype):
            raise pickle.UnpicklingError(f"a {type(self.stack[-2]).__name__} with a state")
        super().load_build()

    def load_reduce(self) -> None:
        _a(_Global, self.stack[-2])
        super().load_reduce()

    def load_setitem(self) -> None:
        _a(str, self.stack[-2])  # nested tuples take forever to hash
        super().load_setitem()

    def load_setitems(self) -> None:
        for key in self.stack[::2]:
            _a(str, key)
        super().load_setitems()

    def load_dict(self) -> None:
        for key in self.stack[::2]:
            _a(str, key)
        super().load_dict()


_followed = {code: pickle._Unpickler.dispatch[code].__name__ for code in (getattr(pickle, n)[0] for n in _NAMES)}
_Unpickler.dispatch = _Instructions({code: getattr(_Unpickler, name) for code, name in _followed.items()})


def read_pickle(path: Path) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Features (N, d) float32, N files and N classes of the authors' `.pkl` (protocol, Data), as they stand there.

    Raises FileNotFoundError for an absent file, ValueError for a pickle of anything but arrays, lists and strings.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        content = _Unpickler(io.BytesIO(path.read_bytes())).load()
    except Exception as error:  # a malformed pickle can raise anything
        said = str(error)[:LONGEST]
        raise ValueError(f"{path} is refused: a feature file holds arrays, lists and strings only ({said})") from None
    keys = ("feats", "labels", "paths")
    if type(content) is not dict or not content.keys() >= set(keys):
        held = str(sorted(content))[:LONGEST] if type(content) is dict else type(content).__name__
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
    once = {label: str(label).replace("_", "") for label in labels}  # a class has one name, however many its images
    file = {file: str(file) for file in files}
    feats = np.array(feats, np.float32, order="C")  # the pickle's own bytes are read-only
    return feats, tuple(file[f] for f in files), tuple(once[label] for label in labels)
