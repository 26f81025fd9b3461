"""The authors' pickles: read as they are, and refused whatever else they hold."""

import builtins
import codecs
import functools
import os
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helpers import examples
from rscir_lib.features import pickles, read_features


def content(n=6, d=4, seed=0, dtype=np.float32):
    feats = np.random.default_rng(seed).normal(size=(n, d))
    feats /= np.linalg.norm(feats, axis=1, keepdims=True)
    paths = [f"/home/x/PatternNet/images/golf_course/golfcourse{i:03}.jpg" for i in range(n)]
    return {"feats": feats.astype(dtype), "labels": ["golf_course"] * n, "paths": paths}


def numpy_1(data):
    """The same pickle as numpy 1 wrote it (frames dropped: they are optional, and their length changes)."""
    while (frame := data.find(b"\x95")) in (2, 3) and data[0] == 0x80:
        data = data[:frame] + data[frame + 9 :]
    for module in (b"multiarray", b"numeric"):
        new, old = b"numpy._core." + module, b"numpy.core." + module
        data = data.replace(b"\x8c" + bytes([len(new)]) + new, b"\x8c" + bytes([len(old)]) + old)
        data = data.replace(b"c" + new, b"c" + old)
    assert b"_core" not in data
    return data


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("rewrite", [numpy_1, bytes], ids=["numpy 1", "numpy 2"])
@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", "<f2"])
def test_read_pickle(tmp_path, protocol, rewrite, dtype):
    path = tmp_path / "patternnet_clip.pkl"
    stored = content(dtype=dtype)
    stored["labels"] = [np.str_(label) for label in stored["labels"]]
    if protocol % 2:  # another memory layout, and strings as an array
        stored = stored | {"feats": np.asfortranarray(stored["feats"]), "paths": np.array(stored["paths"])}
    path.write_bytes(rewrite(pickle.dumps(stored, protocol)))
    read = read_features(path)
    assert read.feats.dtype == np.float32
    assert read.feats.flags.writeable
    np.testing.assert_array_equal(read.feats, stored["feats"].astype(np.float32))
    assert read.files == tuple(content()["paths"])
    assert set(read.classes) == {"golfcourse"}
    assert {type(v) for v in read.files + read.classes} == {str}
    assert read.provenance["encoder"] == "not recorded"


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


MALICIOUS = {
    "posix.system": Call(os.system, "echo pwned > {mark}"),
    "builtins.eval": Call(builtins.eval, "open({mark!r}, 'w')"),
    "builtins.getattr": Call(builtins.getattr, "", "join"),
    "subprocess.Popen": Call(subprocess.Popen, ["touch", "{mark}"]),
    "numpy.load": Call(np.load, "{mark}"),
    "numpy.fromfile": Call(np.fromfile, "{mark}"),
    "numpy.loadtxt": Call(np.loadtxt, "{mark}"),
    "rot13": Call(codecs.encode, "text", "rot13"),
    "torch": torch.zeros(2),
    "partial": functools.partial(os.system, "true"),
    "object": np.array([{}, []], dtype=object),
    "not of numbers or strings": np.zeros(2, dtype=[("a", "f4"), ("b", "O")]),
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", MALICIOUS)
@pytest.mark.parametrize("nest", [lambda x: x, lambda x: content() | {"labels": [[{"a": (x,)}]]}])
def test_malicious_pickle_is_refused(tmp_path, name, protocol, nest):
    mark, path = tmp_path / "mark", tmp_path / "evil.pkl"
    payload = MALICIOUS[name]
    if isinstance(payload, Call):
        function, args = payload.reduced
        args = [a.format(mark=str(mark)) if isinstance(a, str) else a for a in args]
        payload = Call(function, *args)
    path.write_bytes(pickle.dumps(nest(payload), protocol))
    with pytest.raises(ValueError, match=r"evil\.pkl is refused") as refusal:
        read_features(path)
    assert not mark.exists()
    assert name.split(".")[-1] in str(refusal.value)


def opcodes(*parts):
    return b"\x80\x04" + b"".join(parts) + b"."


@pytest.mark.parametrize(
    "data",
    [
        opcodes(b"cnumpy\nndarray\n(dS'call'\ncos\nsystem\nsb"),  # build a state into a global
        opcodes(b"c_codecs\nencode\n}(X\x04\x00\x00\x00callX\x01\x00\x00\x00xub"),
        opcodes(b"c_codecs\nencode\nN}(X\x04\x00\x00\x00callX\x01\x00\x00\x00xu\x86b"),  # by its slots
        opcodes(b"\x8c\x05numpy\x8c\x10ndarray.__class__\x93"),  # a dotted name
        opcodes(b"cnumpy\nndarray\n)\x81"),  # __new__ without __init__
        opcodes(b"cnumpy\ndtype\n(S'O'\ntR"),
        opcodes(b"cnumpy\ndtype\n(S'f4,O'\ntR"),
        opcodes(b"I1\n\x82\x01"),  # the extension registry
        opcodes(b"S'x'\nQ"),  # a persistent id
        b"",
        b"\x80",
        b"garbage",
        opcodes(b"\x8e\xff\xff\xff\xff\xff\xff\x00\x00"),  # announces 2^48 bytes
    ],
)
def test_crafted_pickle_is_refused(tmp_path, data):
    path = tmp_path / "evil.pkl"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"evil\.pkl is refused"):
        read_features(path)
    path.write_bytes(pickle.dumps(content()))
    assert read_features(path).feats.shape == (6, 4)  # nothing was left behind


@examples(150)
@given(st.data())
def test_damaged_pickle_never_does_more_than_refuse(tmp_path_factory, data):
    whole = bytearray(pickle.dumps(content(), data.draw(st.sampled_from([0, 2, 4, 5]))))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.pkl"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        read = read_features(path)
    except ValueError:
        return
    assert read.feats.ndim == 2  # a letter or digit changed


@examples(60)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.floats(0.5, 1, width=32)),
    st.integers(0, pickle.HIGHEST_PROTOCOL),
)
def test_pickle_round_trip(feats, protocol):
    stored = content(len(feats)) | {"feats": feats}
    read = pickles._load(pickle.dumps(stored, protocol))
    np.testing.assert_array_equal(getattr(read["feats"], "array", read["feats"]), feats)
    assert (read["labels"], read["paths"]) == (stored["labels"], stored["paths"])


def with_row(value):
    feats = content()["feats"].copy()
    feats[3] = value
    return feats


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"feats": None}, "found NoneType"),
        ({"feats": np.ones((0, 8), np.float32), "labels": [], "paths": []}, r"at least 1; found float32 \(0, 8\)"),
        ({"feats": np.ones((6, 0), np.float32)}, r"at least 1; found float32 \(6, 0\)"),
        ({"paths": ["a.jpg"] * 6}, "a.jpg has 6 rows"),
        ({"feats": with_row(0)}, "first row 3 .*, length 0"),
        ({"feats": [[1.0, 0.0]] * 6}, "found list"),
        ({"feats": np.ones(6, np.float32)}, r"found float32 \(6,\)"),
        ({"feats": np.ones((6, 1), np.int64)}, "found int64"),
        ({"feats": with_row(np.nan)}, r"1 rows .* first row 3 \(.*golfcourse003.jpg\), length nan"),
        ({"feats": with_row(np.inf)}, "length inf"),
        ({"feats": 3 * content()["feats"]}, "6 rows are not finite and L2-normalised, first row 0"),
        ({"labels": ["a"] * 5}, "6 rows of feats, but 5 classes"),
        ({"paths": ["a"] * 7}, "6 rows of feats, but 7 files"),
        ({"paths": "a" * 6}, "paths must be a list of strings"),
        ({"labels": [1.5] * 6}, "labels must be a list of strings"),
    ],
)
def test_malformed_content(tmp_path, change, problem):
    path = tmp_path / "features.pkl"
    path.write_bytes(pickle.dumps(content() | change))
    with pytest.raises(ValueError, match=problem):
        read_features(path)


def test_missing_key_wrong_type_and_no_file(tmp_path):
    path = tmp_path / "features.pkl"
    with pytest.raises(FileNotFoundError, match=r"features\.pkl"):
        read_features(path)
    path.write_bytes(pickle.dumps({"feats": 1, "labels": 2}))
    with pytest.raises(ValueError, match=r"found \['feats', 'labels'\]"):
        read_features(path)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match="found list"):
        read_features(path)


def put(index):
    return b"K\x00r" + index.to_bytes(4, "little") + b"0"


def copies_of_one_text(count):
    one = b"\x8c\x06latin1\x94" + b"X" + (100_000).to_bytes(4, "little") + b"a" * 100_000 + b"\x94"
    return b"c_codecs\nencode\n\x94]\x94(" + one + b"00" + b"h\x00h\x03h\x02\x86R" * count + b"e"


BOMBS = {
    "a place for 2^32 values": (opcodes(put(2**32 - 1), b"N"), None),
    "a text places it": (opcodes(b"K\x00p999999999\n0N"), None),
    "2^40 bytes announced": (opcodes(b"\x8e" + (2**40).to_bytes(8, "little")), "refused"),
    "2^30 characters announced": (opcodes(b"X" + (2**30).to_bytes(4, "little")), "refused"),
    "a frame of 2^40": (opcodes(b"\x95" + (2**40).to_bytes(8, "little")), "refused"),
    "10,000 copies of one text": (opcodes(copies_of_one_text(10_000)), "many times its size"),
    "tuples of tuples as a key": (opcodes(b")" + b"2\x86" * 90 + b"}h\x00"), "instruction DUP"),
    "a set": (opcodes(b"\x8f"), "instruction"),
    "a number of a million digits": (opcodes(b"\x8b" + (10**6).to_bytes(4, "little") + b"\x7f" * 10**6), "instruction"),
    "a list as a key": (opcodes(b"}]Ns"), "a list where a str belongs"),
    "a state for an array": (
        opcodes(b"cnumpy._core.numeric\n_frombuffer\n(C\x04aaaacnumpy\ndtype\n\x8c\x02f4\x85RK\x01\x85\x8c\x01CtR}b"),
        "with a state",
    ),
}

READ = """
import resource, sys
from pathlib import Path
from rscir_lib.features.pickles import read_pickle

room = 2**28 + int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (room, room))
for path in sys.argv[1:]:
    try:
        read_pickle(Path(path))
    except ValueError as error:
        print(str(error)[:300].replace("\\n", " "))
"""


@pytest.mark.slow
def test_bombs(tmp_path):
    """Each is refused, with a quarter of a GiB to spend on all of them, at once."""
    paths = []
    for number, (data, _) in enumerate(BOMBS.values()):
        paths.append(tmp_path / f"{number:02}.pkl")
        paths[-1].write_bytes(data)
    started = time.monotonic()
    said = subprocess.run(
        [sys.executable, "-c", READ, *map(str, paths)], capture_output=True, text=True, timeout=300, check=True
    ).stdout.splitlines()
    assert time.monotonic() - started < 60
    for path, line, (name, (_, message)) in zip(paths, said, BOMBS.items(), strict=True):
        assert str(path) in line, name
        assert "MemoryError" not in line, name
        assert (message or "expected a dict") in line, (name, line)
