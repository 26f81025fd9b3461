"""The benchmark's quick forms: that they run, and write what they promise. No time is asserted."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bench import main, patterncom_shaped, plain_loop, random_features, random_texts, scale
from bench.compiled import CompiledEncoder, compile_tower
from bench.measure import Report
from PIL import Image

from rscir_lib.encoders import load_encoder
from rscir_lib.evaluation import evaluate
from rscir_lib.features import Features, store


def test_plain_loop_is_the_same_measure():
    """What the evaluator is timed against computes the same thing."""
    benchmark = patterncom_shaped(380)
    archive = benchmark.archive
    features = Features.from_arrays(random_features(archive.classes, 16), archive.files, archive.classes, {})
    rows = evaluate(benchmark, features, lambda t: random_texts(t, 16), methods=["weicom"], progress=False)
    assert plain_loop(benchmark, features.feats) == pytest.approx(rows["AP"].tolist(), abs=1e-3)


def test_benchmark_has_the_shape_of_patterncom():
    composition = patterncom_shaped(3_800).counts()
    assert composition.index.get_level_values("attribute").nunique() == 6
    assert composition["values"].str.split(", ").str.len().between(2, 5).all()
    assert composition["positives min"].min() >= 1


def test_bench(tmp_path, capsys):
    main(["--quick", "--out", str(tmp_path)])
    table = pd.read_csv(tmp_path / "bench.csv")
    assert set(table["section"]) == {"evaluator", "query", "extractor", "precision"}
    assert (table["seconds"].dropna() > 0).all()
    assert table.loc[table["what"] == "evaluate, weicom, per query", "ratio"].notna().all()
    assert "evaluate, weicom, per query" in capsys.readouterr().out


def test_a_store_that_is_damaged_is_made_again_and_another_one_is_left(tmp_path):
    folder = scale.make_store(tmp_path / "store", 2_000, 8, 2**13)
    shard = sorted(folder.glob("*[0-9a-f].npy"))[0]
    before = shard.read_bytes()
    shard.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    scale.make_store(folder, 2_000, 8, 2**13)
    assert shard.read_bytes() == before
    with pytest.raises(FileExistsError, match=r"holds another store .*2000.*; delete it, or choose another folder"):
        scale.make_store(folder, 1_000, 8, 2**13)
    assert shard.read_bytes() == before


def test_scale(tmp_path, capsys, monkeypatch):
    """A store of five shards, made, and found standing when its making was cut off; answers held to a plain scan."""
    written, write = [], store.write_shard

    def cut_off(*arguments, **options):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(write(*arguments, **options))
        return written[-1]

    monkeypatch.setattr(store, "write_shard", cut_off)
    with pytest.raises(KeyboardInterrupt):
        main(["scale", "--quick", "--out", str(tmp_path)])
    monkeypatch.setattr(store, "write_shard", write)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*.npy")}
    assert len(before) == 4
    main(["scale", "--quick", "--queries", "4", "--out", str(tmp_path)])
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    table = pd.read_csv(tmp_path / "scale.csv")
    assert set(table["section"]) == {"store", "limit", "scan", "core", "scaling", "check", "dask", "resident"}
    assert table["what"].str.contains("a worker killed: equal bytes").sum() == 1
    assert table.loc[table["section"] == "scaling", "images"].max() == 20_000
    assert (tmp_path / "scaling.png").stat().st_size > 10_000
    assert "equal to a plain float64 scan" in capsys.readouterr().out


def test_the_plain_scan_sees_a_wrong_answer():
    features = Features.from_arrays(
        random_features(["a", "b"] * 50, 16), [f"{i}.png" for i in range(100)], ["a", "b"] * 50
    )
    asked = scale.Asked.of(features, 2, 5)
    positions, found = asked.search(features)[0], asked.ranks(features)
    scale.check(Report(), features, asked, positions, found)
    with pytest.raises(RuntimeError, match="query 1: another top 20 or other ranks"):
        scale.check(Report(), features, asked, np.stack([positions[0], positions[1][::-1]]), found)


def test_rehearsal(tmp_path, capsys):
    main(["rehearse", "--quick", "--out", str(tmp_path)])
    table = pd.read_csv(tmp_path / "rehearsal.csv")
    assert list(table["what"][:4]) == [
        "draw SynthCom (synthetic)",
        "read the benchmark",
        "extract, demo",
        "evaluate, four methods, eleven lambdas",
    ]
    assert table["what"].str.contains("load remoteclip RN50").any()
    loads = table["what"].str.startswith("load")  # a small step may live on what was freed before it
    assert (table.loc[loads, "mib"] > 0).all()
    assert "weicom" in capsys.readouterr().out


def compiled(encoder):
    """As `compile_tower` makes it, without the compiling."""
    return CompiledEncoder(**vars(encoder) | {"batch_size": 5})


def noise(encoder, n):
    shape = encoder.preprocess(Image.new("RGB", (9, 9))).shape
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))


def test_what_is_compiled_for_one_size_gets_no_other(monkeypatch):
    encoder = load_encoder("demo", device="cpu")
    sizes, encode = [], encoder.model.encode_image
    monkeypatch.setattr(encoder.model, "encode_image", lambda batch: sizes.append(len(batch)) or encode(batch))
    features = compiled(encoder).encode_images(noise(encoder, 12))
    assert sizes == [5, 5, 5]
    np.testing.assert_allclose(features, encoder.encode_images(noise(encoder, 12)), atol=1e-6)


def test_what_is_compiled_stays_in_its_process():
    encoder = load_encoder("demo", device="cpu")
    with pytest.raises(TypeError, match="a compiled encoder can't be sent to another process: send the plain one"):
        pickle.dumps(compiled(encoder))
    assert pickle.loads(pickle.dumps(encoder)).name == "demo"


def test_only_a_gpu_gains_by_compiling():
    with pytest.raises(ValueError, match="demo is on cpu, where nothing is gained; leave compile_tower out"):
        compile_tower(load_encoder("demo", device="cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_a_compiled_tower_says_the_same():
    encoder = load_encoder("demo", device="cuda", precision="bfloat16")
    faster = compile_tower(encoder, batch_size=8)
    cosines = (faster.encode_images(noise(encoder, 11)) * encoder.encode_images(noise(encoder, 11))).sum(axis=1)
    assert len(cosines) == 11
    assert cosines.min() > 0.999
    assert faster.provenance["precision"] == "bfloat16, compiled"


@pytest.mark.skipif(sys.platform != "linux", reason="process groups are Linux's here")
def test_ctrl_c_ends_it_without_a_traceback(tmp_path):
    code = (
        "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"sys.argv = ['bench', 'scale', '--quick', '--out', {str(tmp_path)!r}]; "
        f"runpy.run_path({str(Path(scale.__file__).parent)!r}, run_name='__main__')"
    )
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([sys.executable, "-u", "-c", code], **options) as process:
        assert any(line.startswith("core") for line in process.stdout)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "interrupted" in errors
