"""The campaign of kills: whatever ends a run, and however often, the next one comes to the same bits.

`make chaos` (ARGS=--quick for a short one). Extraction, drawing and training are killed before every file operation,
once and twice in a row, and at random by SIGKILL and SIGTERM of their process group and SIGINT; the disk is full or
read-only from some operation on; images vanish and come back; two extractions run at once. After each, a plain run
must end well, and its result must equal, bit by bit, that of a run that nothing disturbed.
Prints what was done, and exits with 1 at one differing bit, or one error that isn't a sentence about the folder.
"""

import argparse
import errno
import hashlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from rscir_lib import features, store
from rscir_lib.archive import read_archive
from rscir_lib.features import extract_features, read_features
from rscir_lib.synthcom import draw_synthcom

REFUSED, INTERRUPTED, RAW = 3, 4, 5  # exit codes: a documented error, Ctrl-C, any other error
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


def draw_archive(root: Path, images: int) -> None:
    rng = np.random.default_rng(1)
    for i in range(images):
        path = root / "images" / f"class{i % 3}" / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)


def extraction(archive_root: Path) -> Subject:
    archive = read_archive(archive_root)

    def run(folder: Path) -> None:
        features.SAVE_SECONDS = 0.02
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

    def result(folder: Path) -> dict[str, str]:
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): digest(path.read_bytes()) for path in paths}

    return Subject("drawing", run, result)


def training() -> Subject:
    from rscir_lib import training

    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (12, training.SIZE, training.SIZE, 3), np.uint8)
    captions = [[f"a picture of number {i % 5}"] for i in range(12)]

    def run(folder: Path) -> None:
        training.train(images, captions, folder, steps=10, batch_size=4)

    def result(folder: Path) -> dict[str, str]:
        return {path.name: digest(path.read_bytes()) for path in folder.glob("*.safetensors")}

    return Subject("training", run, result)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def at_operation(folder: Path, number: int, act: Callable[[], object]) -> None:
    """Call `act` before the file operation of that number in the folder, and before each later one."""
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
                act()

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
        torch.set_num_threads(1)
        random.seed(os.getpid())
        if before:
            before()
        work()
        code = 0
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError as error:
        os.write(1, f"{type(error).__name__}: {error}".encode(errors="replace"))
        code = REFUSED
    except BaseException as error:
        os.write(1, f"{type(error).__name__}: {error}".encode(errors="replace"))
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
        assert wait(fork(lambda: self.subject.run(whole), self.said)) == 0, self.said.read_text()
        self.seconds = time.monotonic() - started
        self.expected = self.subject.result(whole)

    @property
    def said(self) -> Path:
        return self.folder / "said.txt"

    def disturbed(self, store: Path, before: Callable[[], object] | None = None, shot: tuple | None = None) -> bool:
        """One run that may be ended: by `before`, or by `shot`, (signal, seconds). Whether it came to its end."""
        pid = fork(lambda: self.subject.run(store), self.said, before)
        if shot:
            time.sleep(shot[1])
            try:
                os.killpg(pid, shot[0])
            except ProcessLookupError:  # before its group is made: as good as never started
                os.kill(pid, signal.SIGKILL)
        code = wait(pid)
        self.counts["kills"] += code in (-signal.SIGKILL, -signal.SIGTERM, INTERRUPTED)
        self.counts["refusals"] += code == REFUSED
        if code == RAW or (code == REFUSED and str(store) not in self.said.read_text()):
            self.failures.append(f"{self.subject.name}, {store.name}: {self.said.read_text()[-500:]}")
        return code == 0

    def finish(self, store: Path, what: str) -> None:
        """A plain run must end well, at the expected bits."""
        code = wait(fork(lambda: self.subject.run(store), self.said))
        self.counts["resumes"] += 1
        if code:
            self.failures.append(f"{self.subject.name}, {what}: resumed, exit {code}: {self.said.read_text()[-500:]}")
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
            if self.disturbed(target, lambda n=number, t=target: at_operation(t, n, shoot)):
                self.finish(target, what)
                return
            if twice:
                again = random.randrange(number + 2)
                self.disturbed(target, lambda n=again, t=target: at_operation(t, n, shoot))
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
                self.disturbed(target, shot=shots[-1])
            what = ", ".join(f"{sent.name} after {seconds:.3f} s" for sent, seconds in shots)
            self.finish(target, what)
            yield what

    def full_disk(self, times: int) -> Iterator[str]:
        """No room, or no leave to write, from some operation on; or for files beyond a size."""
        for number in range(times):
            target = self.folder / f"disk{number}"
            if number % 3 == 2:
                size = random.randrange(50, 3000)
                what = f"no file larger than {size} bytes"
                self.disturbed(target, lambda s=size: resource.setrlimit(resource.RLIMIT_FSIZE, (s, s)))
            else:
                code = (errno.ENOSPC, errno.EROFS)[number % 3]
                operation = random.randrange(40)
                what = f"{os.strerror(code)} from operation {operation}"
                self.disturbed(target, lambda t=target, o=operation, c=code: at_operation(t, o, lambda: refuse(c)))
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
            if wait(pid):
                self.failures.append(f"images vanish: {self.said.read_text()[-500:]}")
            for path in away:
                path.with_suffix(".away").rename(path)
            self.finish(target, "images vanish")
            yield "images vanish"

    def two_at_once(self, times: int) -> Iterator[str]:
        """Two runs into one folder; one may be refused, in a sentence."""
        for number in range(times):
            target = self.folder / f"two{number}"
            both = [fork(lambda t=target: self.subject.run(t), self.folder / f"said{i}.txt") for i in range(2)]
            codes = sorted(map(wait, both))
            if codes not in ([0, 0], [0, REFUSED]):
                self.failures.append(f"two at once: exits {codes}, {(self.folder / 'said1.txt').read_text()[-500:]}")
            self.finish(target, "two at once")
            yield "two at once"


def shoot() -> None:
    os.killpg(0, signal.SIGKILL)


def refuse(code: int) -> None:
    raise OSError(code, os.strerror(code))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    parser.add_argument("--seed", type=int, default=0, help="of the random times and operations")
    parser.add_argument("--only", choices=["extraction", "drawing", "training"], help="one of the three")
    options = parser.parse_args(arguments)
    random.seed(options.seed)
    os.environ["TQDM_DISABLE"] = "1"
    step, times = (9, 4) if options.quick else (1, 40)
    total, failures, started = Counter(), [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos ü ") as name:
        folder = Path(name).resolve()
        draw_archive(folder / "Archive", 40)
        subjects = [extraction(folder / "Archive"), drawing()] + ([] if options.quick else [training()])
        for subject in [subject for subject in subjects if options.only in (None, subject.name)]:
            own = folder / subject.name
            own.mkdir()
            campaign = Campaign(subject, own)
            slow = subject.name != "extraction"
            parts = [
                campaign.every_operation(step * (1 + 8 * slow), False),
                campaign.at_random(times // (1 + 3 * slow)),
            ]
            if not slow:
                parts += [
                    campaign.every_operation(step, True),
                    campaign.full_disk(times),
                    campaign.vanishing(folder / "Archive", times // 8 + 1),
                    campaign.two_at_once(times // 8 + 1),
                ]
            with tqdm(desc=subject.name, unit="trial", disable=False) as bar:
                for part in parts:
                    for _ in part:
                        bar.update()
            print(subject.name, dict(campaign.counts), flush=True)
            total += campaign.counts
            failures += campaign.failures
    for failure in failures:
        print("FAILED", failure)
    seconds = time.monotonic() - started
    print(
        f"{total['kills']} kills, {total['refusals']} refusals, {total['resumes']} resumes, {total['compared']} rows "
        f"and files compared, {total['different']} different, in {seconds:.0f} s (seed {options.seed})"
    )
    return 1 if failures or total["different"] or not total["compared"] else 0


if __name__ == "__main__":
    sys.exit(main())
