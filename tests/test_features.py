"""Feature stores and the authors' pickles."""

import builtins
import codecs
import functools
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import subprocess
import time
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from rscir_lib import features, pickles
from rscir_lib.archive import read_archive
from rscir_lib.features import Features, extract_features, read_features


def to_tensor(image):
    return torch.from_numpy(np.asarray(image.resize((8, 8)), np.float32)).permute(2, 0, 1) / 255


class FakeEncoder:
    """The encoders' interface: a fixed random projection of the 8 x 8 image, to `dim` numbers."""

    name, architecture, dim, device, precision = "fake", "tiny", 5, torch.device("cpu"), "float32"
    preprocess = staticmethod(to_tensor)

    def __init__(self, weights="aaa", delay=0.0):
        self.provenance = {"encoder": "fake", "weights_sha256": weights, "torch": torch.__version__}
        self.delay, self.seen = delay, 0
        self.projection = np.random.default_rng(0).normal(size=(192, self.dim)).astype(np.float32)

    def encode_images(self, batch):
        time.sleep(self.delay)
        self.seen += len(batch)
        rows = (batch.numpy().reshape(len(batch), -1) - 0.5) @ self.projection
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def draw(root, images=23, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(images):
        path = root / "images" / ("tennis_court" if i % 2 else "beach") / f"scene{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12 + seed, 3), np.uint8)).save(path)
    return read_archive(root)


@pytest.fixture
def archive(tmp_path):
    return draw(tmp_path / "Archive")


@pytest.fixture
def expected(archive):
    images = [to_tensor(Image.open(archive.path(i)).convert("RGB")) for i in range(len(archive))]
    return FakeEncoder().encode_images(torch.stack(images))


# --- extraction


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (7, 1), (64, None), (4, 2), (None, None)])
@pytest.mark.parametrize("device", ["cpu", "mps", "cuda"])
@pytest.mark.filterwarnings("ignore:.pin_memory")
def test_extract(archive, expected, tmp_path, monkeypatch, batch_size, workers, device):
    monkeypatch.setattr(FakeEncoder, "device", torch.device(device))  # which the fake one never asks for
    folder = extract_features(archive, FakeEncoder(), tmp_path / "store", batch_size, workers)
    read = read_features(folder, archive, FakeEncoder())
    np.testing.assert_allclose(read.aligned(archive), expected, atol=1e-6)
    assert read.feats.dtype == np.float32
    assert (read.files, read.classes) == (archive.files, archive.classes)
    assert read.classes[-1] == "tenniscourt"
    assert read.provenance["weights_sha256"] == "aaa"
    assert read.provenance["archive_fingerprint"] == archive.fingerprint
    assert sorted(p.name for p in folder.iterdir()) == ["features.json", "features.npy"]


@pytest.mark.filterwarnings("ignore:.pin_memory")
def test_batches_that_do_not_fit_into_memory_are_halved(archive, expected, tmp_path):
    class SmallGpu(FakeEncoder):
        device, sizes = torch.device("cuda"), ()

        def encode_images(self, batch):
            self.sizes += (len(batch),)
            if len(batch) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().encode_images(batch)

    encoder = SmallGpu()
    folder = extract_features(archive, encoder, tmp_path / "store", batch_size=12, workers=1)
    np.testing.assert_allclose(read_features(folder).feats, expected, atol=1e-6)
    assert {12, 6, 3} <= set(encoder.sizes)
    with pytest.raises(torch.OutOfMemoryError):
        features._encoded(Mock(encode_images=Mock(side_effect=torch.OutOfMemoryError("even one"))), torch.zeros(4, 1))


def test_workers_can_be_spawned(archive):
    # the start method of macOS and Windows pickles all that a worker needs
    images = pickle.loads(pickle.dumps(features._Images(archive, to_tensor, start=3)))
    assert len(images) == len(archive) - 3
    assert torch.equal(images[0], to_tensor(Image.open(archive.path(3))))


def test_complete_store_is_skipped_unless_overwritten(archive, tmp_path):
    extract_features(archive, FakeEncoder(), tmp_path / "store")
    again = FakeEncoder()
    extract_features(archive, again, tmp_path / "store", workers=1)
    assert again.seen == 0
    extract_features(archive, again, tmp_path / "store", workers=1, overwrite=True)
    assert again.seen == len(archive)


def test_unreadable_image_is_named_and_the_rest_continues(archive, expected, tmp_path):
    bad, whole = archive.path(17), archive.path(17).read_bytes()
    bad.write_bytes(whole[:60])
    with pytest.raises(ValueError, match=rf"row 17 of Archive.*{bad.name}"):
        extract_features(archive, FakeEncoder(), tmp_path / "store", batch_size=4)
    with pytest.raises(FileNotFoundError, match="unfinished"):
        read_features(tmp_path / "store")
    bad.write_bytes(whole)
    encoder = FakeEncoder()
    extract_features(archive, encoder, tmp_path / "store", batch_size=4, workers=1)
    assert encoder.seen == len(archive) - 16  # four batches were kept
    np.testing.assert_allclose(read_features(tmp_path / "store").feats, expected, atol=1e-6)


def test_unreadable_image_in_a_worker_process(archive, tmp_path):
    archive.path(5).unlink()
    with pytest.raises(ValueError, match=f"row 5 of Archive.*{archive.names[5]}.*not on disk"):
        extract_features(archive, FakeEncoder(), tmp_path / "store", batch_size=4, workers=2)


def test_killed_extraction_continues(archive, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "SAVE_SECONDS", 0)
    store = tmp_path / "store"
    child = multiprocessing.get_context("fork").Process(
        target=extract_features, args=(archive, FakeEncoder(delay=0.1), store, 2)
    )
    child.start()
    while not (store / "features.partial.json").exists() and child.is_alive():
        time.sleep(0.01)
    time.sleep(0.15)
    child.kill()
    child.join()
    assert not (store / "features.json").exists()
    encoder = FakeEncoder()
    extract_features(archive, encoder, store, workers=1)
    assert 0 < encoder.seen < len(archive)
    np.testing.assert_allclose(read_features(store).feats, expected, atol=1e-6)


@pytest.mark.parametrize("deleted", ["the finished matrix's name", "the partial matrix"])
def test_progress_never_outlives_its_matrix(archive, expected, tmp_path, monkeypatch, deleted):
    store = tmp_path / "store"
    if deleted == "the partial matrix":
        interrupt(archive, store)
        (store / "features.partial.npy").unlink()
    else:  # killed between the matrix and features.json
        write = features._write_json
        with monkeypatch.context() as patch:
            patch.setattr(features, "_write_json", lambda p, v: write(p, v) if "partial" in p.name else 1 / 0)
            with pytest.raises(ZeroDivisionError):
                extract_features(archive, FakeEncoder(), store)
    with monkeypatch.context() as patch:  # killed again, before the first save
        patch.setattr(features, "_write_json", Mock(side_effect=ZeroDivisionError))
        patch.setattr(FakeEncoder, "encode_images", Mock(side_effect=ZeroDivisionError))
        with pytest.raises(ZeroDivisionError):
            extract_features(archive, FakeEncoder(), store, workers=1, batch_size=4)
    extract_features(archive, FakeEncoder(), store)
    np.testing.assert_allclose(read_features(store, archive).feats, expected, atol=1e-6)


@pytest.mark.parametrize("value", [0, np.nan, 2])
def test_rows_that_are_not_of_unit_length_are_never_read(archive, tmp_path, value):
    store = extract_features(archive, FakeEncoder(), tmp_path / "store")
    feats = np.load(store / "features.npy")
    feats[7] = value
    np.save(store / "features.npy", feats)
    state = json.loads((store / "features.json").read_text())
    digest = hashlib.sha256((store / "features.npy").read_bytes()).hexdigest()
    (store / "features.json").write_text(json.dumps(state | {"sha256": digest}))
    with pytest.raises(ValueError, match=rf"1 of 23 rows .* first row 7 \({archive.files[7]}"):
        read_features(store)


@pytest.mark.parametrize("value", [0, 2])
def test_rows_that_are_not_of_unit_length_are_never_finished(archive, tmp_path, monkeypatch, value):
    monkeypatch.setattr(FakeEncoder, "encode_images", lambda self, batch: np.full((len(batch), 5), value))
    with pytest.raises(ValueError, match="not of unit length"):
        extract_features(archive, FakeEncoder(), tmp_path / "store")
    assert not (tmp_path / "store" / "features.json").exists()


def interrupt(archive, store):
    whole = archive.path(20).read_bytes()
    archive.path(20).write_bytes(b"")
    with pytest.raises(ValueError, match="row 20"):
        extract_features(archive, FakeEncoder(), store, batch_size=4)
    archive.path(20).write_bytes(whole)


@pytest.mark.parametrize("unfinished", [False, True])
def test_another_encoder_or_archive_is_refused_with_both_fingerprints(archive, tmp_path, unfinished):
    store = tmp_path / "store"
    if unfinished:
        interrupt(archive, store)
    else:
        extract_features(archive, FakeEncoder(), store)
    with pytest.raises(ValueError, match="weights_sha256: stored aaa, asked for bbb"):
        extract_features(archive, FakeEncoder("bbb"), store)
    part = archive.subset(range(21))
    with pytest.raises(ValueError, match=f"stored {archive.fingerprint}, asked for {part.fingerprint}"):
        extract_features(part, FakeEncoder(), store)
    other = draw(tmp_path / "other" / "Archive", seed=1)  # equal file names, other images
    assert other.fingerprint == archive.fingerprint
    with pytest.raises(ValueError, match=r"archive_content: stored .*, asked for"):
        extract_features(other, FakeEncoder(), store)
    if not unfinished:
        with pytest.raises(ValueError, match="weights_sha256"):
            read_features(store, encoder=FakeEncoder("bbb"))
        with pytest.raises(ValueError, match="archive_content"):
            read_features(store, archive=other)
    extract_features(archive, FakeEncoder("bbb"), store, overwrite=True)
    assert read_features(store, archive, FakeEncoder("bbb")).provenance["weights_sha256"] == "bbb"


def test_moved_archive_updated_package_and_absent_images_are_accepted(archive, tmp_path):
    encoder = FakeEncoder()
    encoder.provenance["torch"] = "0.1"
    store = extract_features(archive, encoder, tmp_path / "store")
    moved = read_archive(archive.root.rename(tmp_path / "moved"))
    read_features(store, moved, FakeEncoder())
    read_features(store, archive)  # no image there any more: files and classes decide


def test_damaged_or_absent_store(archive, tmp_path):
    with pytest.raises(FileNotFoundError, match="no features here"):
        read_features(tmp_path / "store")
    store = extract_features(archive, FakeEncoder(), tmp_path / "store")
    with (store / "features.npy").open("r+b") as file:
        file.seek(200)
        file.write(b"?")
    with pytest.raises(ValueError, match="changed or cut short"):
        read_features(store)


def test_reading_does_not_write(archive, tmp_path):
    store = extract_features(archive, FakeEncoder(), tmp_path / "store")
    read_features(store).feats[:] = 0
    assert read_features(store).feats.any()


def test_infinite_features_name_the_image(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(FakeEncoder, "encode_images", lambda self, batch: np.full((len(batch), 5), np.nan))
    with pytest.raises(ValueError, match=f"no finite features for .*{archive.names[0]}"):
        extract_features(archive, FakeEncoder(), tmp_path / "store")


def test_empty_archive(archive, tmp_path):
    with pytest.raises(ValueError, match="no images"):
        extract_features(archive.subset([]), FakeEncoder(), tmp_path / "store")


# --- alignment


def test_aligned(archive):
    order = np.random.default_rng(0).permutation(len(archive))
    feats = np.arange(len(archive), dtype=np.float32)[:, None]
    for prefix in ("/home/someone/data/PatternNet/", "C:\\data\\", "", "elsewhere/"):
        files = [prefix + archive.files[i] for i in order]
        if "\\" in prefix:
            files = [file.replace("/", "\\") for file in files]
        aligned = Features(feats[order], tuple(files), (), {}).aligned(archive)
        np.testing.assert_array_equal(aligned, feats)
    flat = Features(feats[order], tuple(archive.names[i] for i in order), (), {})
    np.testing.assert_array_equal(flat.aligned(archive), feats)


def test_aligned_by_path_where_names_repeat(tmp_path):
    for cls in ("beach", "river"):
        (tmp_path / "images" / cls).mkdir(parents=True)
        (tmp_path / "images" / cls / "1.png").touch()
    archive = read_archive(tmp_path)
    files = tuple("/data/" + file for file in reversed(archive.files))
    feats = np.array([[1.0], [0.0]], np.float32)
    assert Features(feats, files, (), {}).aligned(archive).tolist() == [[0], [1]]
    with pytest.raises(ValueError, match=r"more than once \(1.png, 1.png\)"):
        Features(feats, ("a/1.png", "b/1.png"), (), {}).aligned(archive)


def test_misaligned_files_are_named(archive):
    feats = np.zeros((len(archive), 1), np.float32)
    part, more = archive.files[3:], (*archive.files[:-1], "images/beach/strange.png")
    with pytest.raises(ValueError, match=rf"3 without features \({archive.files[0]}"):
        Features(feats[3:], part, (), {}).aligned(archive)
    with pytest.raises(ValueError, match=r"1 without features \(.*\. Extract"):
        Features(feats, more, (), {}).aligned(archive)
    with pytest.raises(ValueError, match="1 more than once"):
        Features(feats[[*range(len(archive)), 0]], (*archive.files, archive.files[0]), (), {}).aligned(archive)


def test_features_of_a_whole_archive_serve_a_part(archive):
    feats = np.arange(len(archive), dtype=np.float32)[:, None]
    whole = Features(feats, archive.files, archive.classes, {})
    assert whole.aligned(archive.subset([4, 1])).ravel().tolist() == [4, 1]


# --- the authors' pickles


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


@settings(max_examples=150, deadline=None)
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


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.floats(0.5, 1, width=32)),
    st.integers(0, pickle.HIGHEST_PROTOCOL),
)
def test_pickle_round_trip(feats, protocol):
    stored = content(len(feats)) | {"feats": feats}
    read = pickles._Unpickler(io.BytesIO(pickle.dumps(stored, protocol))).load()
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
        ({"feats": [[1.0, 0.0]] * 6}, "found list"),
        ({"feats": np.ones(6, np.float32)}, r"found float32 \(6,\)"),
        ({"feats": np.ones((6, 1), np.int64)}, "found int64"),
        ({"feats": with_row(np.nan)}, r"1 rows .* first row 3 \(.*golfcourse003.jpg\), norm nan"),
        ({"feats": with_row(np.inf)}, "norm inf"),
        ({"feats": 3 * content()["feats"]}, "6 rows are not finite and L2-normalised, first row 0"),
        ({"labels": ["a"] * 5}, "6 rows of feats, but 5 labels"),
        ({"paths": ["a"] * 7}, "6 rows of feats, but 7 paths"),
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
