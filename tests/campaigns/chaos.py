"""The campaign of kills: whatever ends a run, and however often, the next one comes to the same bits.

`make chaos` (ARGS=--quick for a short one). Extraction, drawing, fetching, training, the import of a GeoParquet file,
the explorer's page and the course's copies are killed before file operations, once and twice in a row, and at random by
SIGKILL, SIGTERM and SIGINT of their process group; the disk is full or read-only from some operation on; two run at
once; an extraction's images vanish and come back. The command that runs the notebooks is killed inside notebooks 02 to
06, itself, its kernel, or both. After each, a plain run must end well, and its result must equal, bit by bit, that of a
run that nothing disturbed.
Prints what was done, and exits with 1 at one differing bit, or one error that isn't a sentence about the folder.
"""

import argparse
import errno
import faulthandler
import hashlib
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial, partialmethod
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from tqdm.auto import tqdm

import rscir_lib
from rscir_lib.archive import read_archive
from rscir_lib.benchmarks.synthcom import draw_synthcom
from rscir_lib.features import extract_features, read_features, store
from rscir_lib.features import extraction as extraction_module

PROJECT = Path(rscir_lib.__file__).parents[1]
REFUSED, RAW, INTERRUPTED = 3, 5, 130  # exit codes: a documented error, any other error, Ctrl-C
HANGS = 600  # seconds: whatever takes longer, on a loaded machine too, hangs
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Subject:
    """What is disturbed: `run` makes a folder, `result` is each thing in it by name, as a digest."""

    name: str
    run: Callable[[Path], object]
    result: Callable[[Path], dict[str, str]]


class SlowEncoder:
    """The encoders' interface; each image's row is computed alone, so that its bits don't depend on the batch."""

    name, architecture, dim, device, precision = "chaos", "tiny", 6, torch.device("cpu"), "float32"
    provenance = {"encoder": "chaos"}  # noqa: RUF012
    projection = np.random.default_rng(0).normal(size=(192, 6)).astype(np.float32)

    @staticmethod
    def preprocess(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image, np.float32)) / 255 - 0.5

    def encode_images(self, batch: torch.Tensor) -> np.ndarray:
        time.sleep(0.002 * len(batch))
        rows = np.stack([row.ravel() @ self.projection for row in batch.numpy()])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def all_files(folder: Path) -> dict[str, str]:
    """The digest of each file in a folder but hidden ones."""
    paths = [path for path in folder.rglob("[!.]*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): digest(path.read_bytes()) for path in paths}


def draw_archive(root: Path, images: int) -> None:
    rng = np.random.default_rng(1)
    for i in range(images):
        path = root / "images" / f"class{i % 3}" / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)


def extraction(archive_root: Path) -> Subject:
    archive = read_archive(archive_root)

    def run(folder: Path) -> None:
        extraction_module.SAVE_SECONDS = 0.02
        store.SHARD_BYTES = 17 * 6 * 4
        extract_features(archive, SlowEncoder(), folder, batch_size=3, workers=random.choice([1, 2]))

    def result(folder: Path) -> dict[str, str]:
        read = read_features(folder, archive, SlowEncoder())
        assert read.files == archive.files
        rows = {file: digest(row.tobytes()) for file, row in zip(read.files, read.feats, strict=True)}
        return rows | {"moments": digest(read.moments.covariance.tobytes())}

    return Subject("extraction", run, result)


def drawing() -> Subject:
    def run(folder: Path) -> None:
        draw_synthcom(folder, images_per_class=1, workers=random.choice([1, 2]))

    return Subject("drawing", run, all_files)


def fetching() -> Subject:
    """From a hub and a drive on this machine, in a process of their own."""
    from fetch_stand_in import fetch, stand_in
    from loopback.world import World

    world = World(Path(tempfile.mkdtemp()))
    stand_in(world, pytest.MonkeyPatch(), Path())
    multiprocessing.get_context("fork").Process(target=world.serve_forever, daemon=True).start()

    def run(folder: Path) -> None:
        os.environ["RSCIR_HOME"] = str(folder / "home")
        fetch.fetch(folder)

    def result(folder: Path) -> dict[str, str]:
        files = [path for path in folder.rglob("[!.]*") if path.is_file() and ".cache" not in path.parts]
        return {path.relative_to(folder).as_posix(): digest(path.read_bytes()) for path in files}

    return Subject("fetching", run, result)


def training(archive_root: Path) -> Subject:
    from rscir_lib.apps.commands import training

    files = read_archive(archive_root).files
    captions = archive_root / "captions.json"
    captions.write_text(json.dumps({file: [f"a picture of number {i % 5}"] for i, file in enumerate(files)}))

    def run(folder: Path) -> None:
        training.adapt(archive_root, captions, folder, epochs=5)

    def result(folder: Path) -> dict[str, str]:
        paths = [path for path in folder.glob("*") if path.suffix in (".safetensors", ".csv", ".png", ".unfinished")]
        return {path.name: digest(path.read_bytes()) for path in paths}

    return Subject("training", run, result)


def importing(archive_root: Path) -> Subject:
    """A GeoParquet file, which becomes a store of several shards."""
    from rscir_lib.features import Features, geoparquet

    archive, file = read_archive(archive_root), archive_root / "features.parquet"
    feats = np.random.default_rng(2).normal(size=(len(archive), 6)).astype(np.float32)
    feats /= np.linalg.norm(feats, axis=1, keepdims=True)
    geoparquet.write_geoparquet(Features.from_arrays(feats, archive.files, archive.classes, {}), file)

    def run(folder: Path) -> None:
        store.SHARD_BYTES = 9 * 6 * 4
        if not (folder / "manifest.json").exists():
            geoparquet.read_geoparquet(file, folder)

    def result(folder: Path) -> dict[str, str]:
        read = read_features(folder)
        return {file: digest(row.tobytes()) for file, row in zip(read.files, read.feats, strict=True)}

    return Subject("importing", run, result)


def page(archive_root: Path) -> Subject:
    """The explorer as files."""
    from rscir_lib.apps.explorer import Explorer
    from rscir_lib.apps.explorer.page import write_page
    from rscir_lib.encoders import load_encoder

    archive, encoder = read_archive(archive_root), load_encoder("demo", device="cpu")
    features = read_features(extract_features(archive, encoder, archive_root / "features"))

    def run(folder: Path) -> None:
        write_page(Explorer(archive, features, encoder, archive_root / "run"), folder, ["red"])

    return Subject("page", run, all_files)


def course() -> Subject:
    """Two notebooks' copies for students, with the pages that they link to."""
    from rscir_lib.apps.teaching.course import copy_pages, hand_out, student_copy

    paths = sorted(PROJECT.glob("notebooks/0[34]*.ipynb"))
    sources = [nbformat.read(path, as_version=4) for path in paths]

    def run(folder: Path) -> None:
        copy_pages(folder / "book")
        for number, source in enumerate(sources):
            hand_out(student_copy(source), folder / f"{number}.ipynb")

    return Subject("course", run, all_files)


def workbook(dataset: Path, notebooks: tuple[str, ...]) -> Subject:
    """The command that runs the notebooks."""
    draw_synthcom(dataset, images_per_class=2, workers=1)

    def run(folder: Path) -> None:
        os.chdir(PROJECT)
        words = [f"DATASET_ROOT={dataset}", f"OUTPUT_ROOT={folder}"]
        os.execv(sys.executable, [sys.executable, "-m", "rscir_lib.workbook", *notebooks, *words])

    def result(folder: Path) -> dict[str, str]:
        paths = [path for kind in ("tables/*.csv", "figures/*") for path in folder.glob(f"*/{kind}")]
        rows = read_features(next(folder.glob("*/features"))).feats
        files = {path.name: digest(path.read_bytes()) for path in paths if path.name != "02_throughput.csv"}
        return files | {f"row {i}": digest(row.tobytes()) for i, row in enumerate(rows)}

    return Subject("workbook", run, result)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def at_operation(folder: Path, number: int, act: Callable[[str], object]) -> None:
    """Call `act`, with the path, before the file operation of that number in the folder, and before each later one."""
    left, inside = number, os.fspath(folder)

    def hook(event: str, arguments: tuple) -> None:
        nonlocal left
        if event not in ("open", "os.rename", "os.remove", "os.mkdir"):
            return
        path = arguments[1] if event == "os.rename" else arguments[0]
        if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(inside):
            if event == "open" and not (arguments[2] or 0) & WRITES:
                return
            left -= 1
            if left < 0:
                act(os.fspath(path))

    sys.addaudithook(hook)


def fork(work: Callable[[], object], said: Path, before: Callable[[], object] | None = None) -> int:
    """Do the work in a process group of its own, and return its process id; what it says goes into `said`."""
    pid = os.fork()
    if pid:
        return pid
    code = RAW
    try:
        os.setsid()
        with said.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        faulthandler.register(signal.SIGALRM, file=2, chain=True)  # says where it hangs, then ends it
        signal.alarm(HANGS)
        # the bars' lock is shared with whoever was forked before, and may have been killed with it
        tqdm.set_lock(threading.RLock())
        tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)
        torch.set_num_threads(1)
        random.seed(os.getpid())
        if before:
            before()
        work()
        code = 0
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)  # for what is said, too
        os.write(1, f"{type(error).__name__}: {error}".encode(errors="replace"))
        code = REFUSED if isinstance(error, OSError | ValueError) else RAW
    finally:
        os._exit(code)


def wait(pid: int) -> int:
    """The exit code, or minus the signal; with what is left of its group ended."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return code


@dataclass
class Campaign:
    """Disturbs one subject again and again, and counts."""

    subject: Subject
    folder: Path
    counts: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        started = time.monotonic()
        whole = self.folder / "undisturbed"
        assert wait(fork(lambda: self.subject.run(whole), self.said)) == 0, self.words()
        self.seconds = time.monotonic() - started
        self.expected = self.subject.result(whole)

    @property
    def said(self) -> Path:
        return self.folder / "said.txt"

    def words(self) -> str:
        """What the last run said."""
        return self.said.read_text(errors="replace")

    def failed(self, what: str, code: int) -> None:
        ended = f"exit {code}" if code >= 0 else signal.Signals(-code).name
        said = self.words() or "nothing"
        said = said if len(said) < 4000 else f"{said[:2000]}\n...\n{said[-2000:]}"
        self.failures.append(f"{self.subject.name}, {what}: {ended}, having said: {said}")

    def disturbed(
        self, store: Path, what: str, before: Callable[[], object] | None = None, shot: tuple | None = None
    ) -> bool:
        """One run that may be ended: by `before`, or by `shot`, (signal, seconds). Whether it came to its end."""
        pid = fork(lambda: self.subject.run(store), self.said, before)
        if shot:
            time.sleep(shot[1])
            try:
                os.killpg(pid, shot[0])
            except ProcessLookupError:  # before its group is made: as good as never started
                os.kill(pid, signal.SIGKILL)
        code = wait(pid)
        killed, refused = code in (-signal.SIGKILL, -signal.SIGTERM, INTERRUPTED), code == REFUSED
        self.counts["kills"] += killed
        self.counts["refusals"] += refused
        if code and not killed and not (refused and str(store) in self.words()):
            self.failed(what, code)
        return code == 0

    def finish(self, store: Path, what: str) -> None:
        """A plain run must end well, at the expected bits."""
        code = wait(fork(lambda: self.subject.run(store), self.said))
        self.counts["resumes"] += 1
        if code:
            self.failed(f"{what}, then resumed", code)
            return
        found = self.subject.result(store)
        self.counts["compared"] += len(found)
        wrong = [name for name in self.expected.keys() | found.keys() if self.expected.get(name) != found.get(name)]
        self.counts["different"] += len(wrong)
        if wrong:
            self.failures.append(f"{self.subject.name}, {what}: {len(wrong)} differ, such as {wrong[0]}")
        shutil.rmtree(store)

    def every_operation(self, step: int, twice: bool) -> Iterator[str]:
        """Killed before each file operation; twice: and again before a random one of the next run."""
        number = 0
        while True:
            what = f"killed at operation {number}{' and again' * twice}"
            target = self.folder / f"operation{number}{twice}"
            if self.disturbed(target, what, lambda n=number, t=target: at_operation(t, n, shoot)):
                self.finish(target, what)
                return
            if twice:
                again = random.randrange(number + 2)
                self.disturbed(target, what, lambda n=again, t=target: at_operation(t, n, shoot))
            self.finish(target, what)
            number += step
            yield what

    def at_random(self, times: int) -> Iterator[str]:
        """One to three signals, at any time."""
        for number in range(times):
            target = self.folder / f"random{number}"
            shots = []
            for _ in range(random.choice([1, 1, 2, 3])):
                sent = random.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
                shots.append((sent, random.uniform(0, 1.1 * self.seconds)))
                what = ", ".join(f"{sent.name} after {seconds:.3f} s" for sent, seconds in shots)
                self.disturbed(target, what, shot=shots[-1])
            self.finish(target, what)
            yield what

    def full_disk(self, times: int, most: int) -> Iterator[str]:
        """No room, or no leave to write, from one of the first operations on; or for files beyond a size."""
        for number in range(times):
            target = self.folder / f"disk{number}"
            if number % 3 == 2:
                size = random.randrange(50, 3000)
                what = f"no file larger than {size} bytes"
                soft = (size, resource.RLIM_INFINITY)
                self.disturbed(target, what, lambda s=soft: resource.setrlimit(resource.RLIMIT_FSIZE, s))
            else:
                code = (errno.ENOSPC, errno.EROFS)[number % 3]
                operation = random.randrange(most)
                what = f"{os.strerror(code)} from operation {operation}"
                no = partial(refuse, code)
                self.disturbed(target, what, lambda t=target, o=operation, n=no: at_operation(t, o, n))
            self.finish(target, what)
            yield what

    def vanishing(self, root: Path, times: int) -> Iterator[str]:
        """Some images are gone during a run, and back before the next."""
        paths = sorted(root.rglob("*.png"))
        for number in range(times):
            target, away = self.folder / f"vanishing{number}", random.sample(paths, 9)
            pid = fork(lambda t=target: self.subject.run(t), self.said)
            time.sleep(random.uniform(0, self.seconds / 2))
            for path in away:
                path.rename(path.with_suffix(".away"))
            if code := wait(pid):
                self.failed("images vanish", code)
            for path in away:
                path.with_suffix(".away").rename(path)
            self.finish(target, "images vanish")
            yield "images vanish"

    def two_at_once(self, times: int) -> Iterator[str]:
        """Two runs into one folder: the second waits, or is refused in a sentence about the folder."""
        for number in range(times):
            target = self.folder / f"two{number}"
            said = [self.folder / f"said{i}.txt" for i in range(2)]
            codes = [wait(pid) for pid in [fork(lambda t=target: self.subject.run(t), each) for each in said]]
            words = [each.read_text(errors="replace") for each in said]
            refused = [str(target) in word for code, word in zip(codes, words, strict=True) if code == REFUSED]
            self.counts["refusals"] += len(refused)
            if sorted(codes) not in ([0, 0], [0, REFUSED]) or not all(refused):
                self.failures.append(f"{self.subject.name}, two at once: exits {codes}, having said: {words}")
            self.finish(target, "two at once")
            yield "two at once"

    def inside_notebooks(self, times: int) -> Iterator[str]:
        """Killed inside each notebook in turn, from the first to the last: the command, its kernel, or both."""
        took = re.findall(r"\] (\w+) \.\.\.\n +ran, ([\d.]+) s", self.words())
        for number in range(times):
            target = self.folder / f"notebooks{number}"
            for notebook, seconds in took:
                pid = fork(lambda t=target: self.subject.run(t), self.said)
                while f"] {notebook} ..." not in self.words() and psutil.pid_exists(pid):
                    time.sleep(0.05)
                time.sleep(random.uniform(0.2, 0.8) * float(seconds))
                sent = random.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
                whom = random.choice(["command", "kernel", "both"])
                what = f"{sent.name} to the {whom} in {notebook}"
                command = psutil.Process(pid)
                kernels = command.children(recursive=True)
                for process in {"command": [command], "kernel": kernels, "both": [command, *kernels]}[whom]:
                    with suppress(psutil.NoSuchProcess):
                        process.send_signal(sent)
                code = wait(pid)
                self.counts["kills"] += code != 0
                if code == 1 and "\nerror: 0" not in self.words():  # the notebook's name follows
                    self.failed(what, code)
                yield what
            self.finish(target, f"killed inside {len(took)} notebooks")


def shoot(path: str) -> None:
    os.killpg(0, signal.SIGKILL)


def refuse(code: int, path: str) -> None:
    raise OSError(code, os.strerror(code), path)


NOTEBOOKS = ("02", "03", "04", "05", "06")


def parts(campaign: Campaign, archive_root: Path, quick: bool) -> list[Iterator[str]]:
    """What is done to a subject; the slow ones are killed at fewer operations."""
    name = campaign.subject.name
    if name == "workbook":
        return [campaign.inside_notebooks(1 if quick else 2)]
    step, times, most = {
        "extraction": (1, 40, 40),
        "drawing": (9, 10, 120),
        "fetching": (21, 12, 400),
        "training": (4, 4, 30),
        "importing": (1, 10, 40),
        "page": (1, 6, 20),
        "course": (5, 6, 60),
    }[name]
    if quick:
        step, times = 9 * step, max(2, times // 10)
    done = [
        campaign.every_operation(step, False),
        campaign.every_operation(step if name == "extraction" else 4 * step, True),
        campaign.at_random(times),
        campaign.full_disk(times, most),
        campaign.two_at_once(times // 8 + 1),
    ]
    return [*done, campaign.vanishing(archive_root, times // 8 + 1)] if name == "extraction" else done


def main(arguments: list[str] | None = None) -> int:
    """The command line; exit code 1 where anything differs or fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of it, and notebooks 02 and 03 alone")
    parser.add_argument("--seed", type=int, default=0, help="of the random times and operations")
    subjects = {
        "extraction": lambda folder: extraction(folder / "Archive"),
        "drawing": lambda folder: drawing(),
        "fetching": lambda folder: fetching(),
        "training": lambda folder: training(folder / "Archive"),
        "importing": lambda folder: importing(folder / "Archive"),
        "page": lambda folder: page(folder / "Archive"),
        "course": lambda folder: course(),
        "workbook": lambda folder: workbook(folder / "SynthCom", NOTEBOOKS[: 2 if options.quick else None]),
    }
    parser.add_argument("--only", choices=subjects, action="append", help="one of them; may be given again")
    options = parser.parse_args(arguments)
    random.seed(options.seed)
    tqdm.monitor_interval = 0  # no thread here: forks don't mix with threads
    total, failures, started = Counter(), [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos ü ") as name:
        folder = Path(name).resolve()
        draw_archive(folder / "Archive", 40)
        for subject in [subjects[name](folder) for name in options.only or subjects]:
            own = folder / subject.name
            own.mkdir()
            campaign = Campaign(subject, own)
            with tqdm(desc=subject.name, unit="trial") as bar:
                for part in parts(campaign, folder / "Archive", options.quick):
                    for _ in part:
                        bar.update()
            print(f"{subject.name}: {told(campaign.counts)}", *campaign.failures, sep="\nFAILED ", flush=True)
            total += campaign.counts
            failures += campaign.failures
    print(f"{told(total)}, {len(failures)} failures, in {time.monotonic() - started:.0f} s (seed {options.seed})")
    return 1 if failures or total["different"] or not total["compared"] else 0


def told(counts: Counter) -> str:
    """The counts in words."""
    return (
        f"{counts['kills']} kills, {counts['refusals']} refusals, {counts['resumes']} resumes, "
        f"{counts['compared']} rows and files compared bit by bit, {counts['different']} different"
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))  # what the tests share
    sys.exit(main())
