"""The authors' feature pickles, read without running anything of theirs.

A pickle is a program. Here the few instructions are followed that build arrays, lists, dicts and texts, and no other.
To allow few names (`pickle.Unpickler.find_class`) isn't enough: pickle's own reader makes room for whatever is
announced, 32 GiB by six bytes, and hashes keys nested so deep that it never ends. Memory and time are in proportion to
the file here.
"""

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LONGEST = 4096  # characters of a message that quotes a pickle: a hostile one may hold names of any length

# Instructions that push the value that follows them
VALUES = frozenset(
    "UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8 INT BININT BININT1 "
    "BININT2 LONG1 FLOAT BINFLOAT".split()
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class _Refused(Exception):
    """The pickle asks for something that a file of features has no need of."""


def _exactly(kind: type, value: Any) -> Any:
    """The value, when it is of just this type."""
    if type(value) is not kind:
        raise _Refused(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


class _Dtype:
    """Stands in for numpy.dtype: plain numbers and strings only."""

    def __init__(self, spec: str, *_: Any) -> None:
        self.dtype = np.dtype(_exactly(str, spec))
        if self.dtype.kind not in "biufSU" or self.dtype.names:
            raise _Refused(f"an array of {self.dtype}, not of numbers or strings")

    def build(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands in for numpy.ndarray, so that no state of the pickle's making reaches numpy's C code."""

    def __init__(self, *_: Any) -> None:
        self.array: Any = None

    def build(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _from_buffer(data, dtype, shape, "F" if fortran else "C")


def _from_buffer(data: bytes, dtype: _Dtype, shape: tuple[int, ...] = (), order: str = "C", *_: Any) -> Any:
    return np.frombuffer(data, _exactly(_Dtype, dtype).dtype).reshape(
        _exactly(tuple, shape), order=_exactly(str, order)
    )[()]


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise _Refused(f"encoding {encoding!r}")
    return bytes(_exactly(str, text), "latin1")


# What a pickle gets for a name; nothing else that it can hold is callable. Protocols 0 to 2 write bytes by _codecs
NAMES: dict[str, Callable[..., Any]] = {"numpy ndarray": _Array, "numpy dtype": _Dtype, "_codecs encode": _encode}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    NAMES[f"{_core}.multiarray _reconstruct"] = _Array
    NAMES[f"{_core}.multiarray scalar"] = lambda dtype, data: _from_buffer(data, dtype)
    NAMES[f"{_core}.numeric _frombuffer"] = _from_buffer


def _dict(values: list[Any]) -> dict[str, Any]:
    """Keys and values in turn; texts alone are keys, for nested tuples take for ever to hash."""
    return {_exactly(str, key): value for key, value in zip(values[::2], values[1::2], strict=True)}


MAKERS: dict[str, Callable[[list[Any]], Any]] = {"TUPLE": tuple, "LIST": list, "DICT": _dict}


def _load(data: bytes) -> Any:
    """What a pickle builds. Raises nearly anything for a malformed one."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    left = 4 * len(data)  # bytes that calls may make: of what the file holds, a few copies

    def since_mark() -> list[Any]:
        start = marks.pop()
        values = stack[start:]
        del stack[start:]
        return values

    for instruction, value, _ in pickletools.genops(data):
        match instruction.name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case name if name in VALUES or name in CONSTANTS:
                stack.append(CONSTANTS.get(name, value))
            case "MARK":
                marks.append(len(stack))
            case "POP":
                stack.pop()
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                stack[-int(name[-1]) :] = [tuple(stack[-int(name[-1]) :])]
            case "TUPLE" | "LIST" | "DICT" as name:
                stack.append(MAKERS[name](since_mark()))
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT" as name:
                stack.append(MAKERS[name.removeprefix("EMPTY_")]([]))
            case "APPEND" | "APPENDS" as name:
                values = [stack.pop()] if name == "APPEND" else since_mark()
                _exactly(list, stack[-1]).extend(values)
            case "SETITEM" | "SETITEMS" as name:
                values = [stack.pop(-2), stack.pop()] if name == "SETITEM" else since_mark()
                _exactly(dict, stack[-1]).update(_dict(values))
            case "PUT" | "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                memo[len(memo) if value is None else int(value)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[int(value or 0)])
            case "GLOBAL" | "STACK_GLOBAL":
                named = value or f"{_exactly(str, stack.pop(-2))} {_exactly(str, stack.pop())}"
                if named not in NAMES:
                    raise _Refused(f"it asks for {named.replace(' ', '.')}")
                stack.append(NAMES[named])
            case "REDUCE":
                arguments = _exactly(tuple, stack.pop())
                stack.append(made := stack.pop()(*arguments))
                left -= len(made) if isinstance(made, bytes) else getattr(made, "nbytes", 0)
                if left < 0:
                    raise _Refused("it unpacks to many times its size")
            case "BUILD":
                state = stack.pop()
                if not isinstance(stack[-1], _Array | _Dtype):
                    raise _Refused(f"a {type(stack[-1]).__name__} with a state")
                stack[-1].build(state)
            case name:
                raise _Refused(f"instruction {name}")
    return stack.pop()


def read_pickle(path: Path) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Features (N, d), N files and N classes of the authors' `.pkl` (protocol, Data), as they stand there. Raises
    FileNotFoundError for an absent file, ValueError for a pickle of anything but arrays, lists and strings."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        content = _load(path.read_bytes())
    except Exception as error:  # a malformed pickle can raise anything
        reason = str(error)[:LONGEST]
        raise ValueError(f"{path} is refused: a feature file holds arrays, lists and strings only ({reason})") from None
    if type(content) is not dict or not content.keys() >= {"feats", "labels", "paths"}:
        held = str(sorted(content))[:LONGEST] if type(content) is dict else type(content).__name__
        raise ValueError(f"{path}: expected a dict with feats, labels and paths, found {held}")
    feats, labels, paths = (
        value.array if isinstance(value := content[key], _Array) else value for key in ("feats", "labels", "paths")
    )
    for key, values, types in (("labels", labels, str | int | np.integer), ("paths", paths, str)):
        if not isinstance(values, list | tuple | np.ndarray) or not all(isinstance(value, types) for value in values):
            raise ValueError(f"{path}: {key} must be a list of strings")
    feats = feats.copy() if isinstance(feats, np.ndarray) else feats  # the pickle's own bytes are read-only
    name = {label: str(label).replace("_", "") for label in labels}  # one text a class, however many its images
    return feats, tuple(map(str, paths)), tuple(name[label] for label in labels)
