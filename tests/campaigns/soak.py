"""`make soak` (ARGS=--quick for half a minute): visitors by the hundred ask two explorers of one run.

They ask without a pause, for minutes: queries, pictures, scores, uploads, marks, and what no page asks. One of the
servers is killed and started again beneath them, the other stays; both write into one file of marks. Every answer to a
query is compared with what `search` says, and every mark that was answered is looked for at the end. The first part is
of queries alone, to one server: how long two hundred visitors wait for pictures that are known. Images are synthetic.
"""

import argparse
import asyncio
import base64
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import torch

from rscir_lib.apps.explorer import marks_table
from rscir_lib.archive import read_archive
from rscir_lib.benchmarks.synthcom import draw_synthcom
from rscir_lib.encoders import load_encoder
from rscir_lib.features import read_features
from rscir_lib.methods import METHODS
from rscir_lib.search import Searcher
from rscir_lib.similarity import best_first

TOP = 20
WORDS = "red,green,blue,two,three,oval,sand,grass,a red roof,many cars,water,dense,paved,round".split(",")
MIX = {"query": 70, "images": 12, "scores": 3, "mark": 6, "hello": 2, "upload": 2, "rated": 1, "strange": 4}
MOST_GROWTH = 1.5  # of a server's memory, from the first answers to the last


class Server:
    """An explorer in a process of its own, at a port that stays its own."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        given = [f"DATASET_ROOT={root}", f"OUTPUT_ROOT={folder / 'runs'}", "ENCODER=demo", "DEVICE=cpu"]
        self.command = [sys.executable, "-m", "rscir_lib", "explore", "--port", str(self.port), *given]
        self.start()

    def start(self) -> None:
        self.errors = (self.folder / f"{self.port}.err").open("ab")
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        for line in self.process.stdout:
            if "http://" in line:
                return
        raise RuntimeError((self.folder / f"{self.port}.err").read_text()[-2000:])

    def stop(self, sent: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(sent)
        self.process.wait(60)
        self.process.stdout.close()
        self.errors.close()

    @property
    def memory(self) -> float:
        """MB in memory."""
        return psutil.Process(self.process.pid).memory_info().rss / 1e6


class Soak:
    """Questions, what their answers must be, and what came."""

    def __init__(self, root: Path, store: Path, pictures: int, seed: int) -> None:
        encoder = load_encoder("demo", device="cpu")
        self.archive = read_archive(root)
        self.search = Searcher(read_features(store), encoder, self.archive)
        self.pictures, self.seed = pictures, seed
        picture = self.archive.path(5).read_bytes()
        self.picture = base64.b64encode(picture).decode()
        self.seconds, self.counts = defaultdict(list), Counter()
        self.first: dict[bytes, tuple[dict, int, bytes]] = {}  # question -> its first answer, which is compared later
        self.wrong: list[str] = []
        self.marks: dict[tuple[str, ...], str] = {}  # the last that was answered; each visitor's are its own

    def question(self, draw: random.Random, visitor: int, kinds: dict[str, int]) -> dict:
        (kind,) = draw.choices([*kinds], [*kinds.values()])
        image, words = draw.randrange(self.pictures), draw.choice(WORDS)
        if kind == "query":
            return {"ask": kind, "images": [image], "words": words, "without": ""}
        if kind == "images":
            return {"ask": kind, "positions": [(image + k) % self.pictures for k in range(TOP)]}
        if kind == "scores":
            return {"ask": kind, "images": [image], "words": words, "without": "", "lam": 0.5, "method": "slerp"}
        if kind == "mark":
            image, answer = self.archive.files[image % 5], self.archive.files[draw.randrange(5)]
            verdict = draw.choice(["right", "wrong", ""])
            return {"ask": kind, "image": image, "text": f"visitor {visitor}", "answer": answer, "verdict": verdict}
        if kind == "upload":
            return {"ask": kind, "name": "own.jpg", "data": self.picture}
        if kind == "strange":
            return {"ask": "query", "images": draw.choice([[True], "x", None, {}, [1.5]]), "words": words}
        return {"ask": kind}

    def compare(self, question: dict, status: int, answer: dict) -> str:
        """ "" where the answer is right, else what is wrong with it."""
        kind = question["ask"]
        if kind == "query" and not (isinstance(question["images"], list) and type(question["images"][0]) is int):
            return "" if status == 400 and len(answer["error"].split()) > 3 else f"{status} to what no page asks"
        if status != 200 or "error" in answer:
            return f"{status} {answer.get('error')}"
        if kind in ("query", "scores"):
            method = METHODS[question.get("method", "weicom")]
            expected = self.search(question["images"][0], question["words"], 0.5, method, TOP).table
            positions = expected["position"].to_numpy()
            if kind == "scores":
                return "" if list(best_first(doubles(answer["scores"]), TOP)) == list(positions) else "another order"
            sides = [doubles(side) for side in answer["similarities"]]
            pairs = zip(sides, (expected["cosine_image"], expected["cosine_text"]), strict=True)
            if any((side[positions] != cosines).any() for side, cosines in pairs):
                return "other similarities"
            moments = ([torch.tensor(value).double() for value in side[:2]] for side in answer["moments"])
            image, text = (method.scale(torch.tensor(s), m) for s, m in zip(sides, moments, strict=True))
            order = best_first(method.combine(image, text, 0.5).numpy(), TOP)
            return "" if list(order) == list(positions) else f"hits {order[:5]} instead of {positions[:5]}"
        if kind == "upload":
            near = np.abs(doubles(answer["key"], np.float32) - self.search.gallery.rows([5])[0]).max() < 1e-3
            return "" if near else "another feature"
        if kind == "images":
            return "" if all(len(jpeg) > 500 for jpeg in answer["jpegs"]) and not answer["warning"] else "no pictures"
        if kind == "hello":
            return "" if tuple(answer["files"]) == self.archive.files and not answer["warning"] else "other files"
        return ""

    async def visit(self, visitor: int, ports: list[int], kinds: dict[str, int], until: float) -> None:
        """One visitor: a question, its answer, the next question."""
        draw, port, line = random.Random(f"{self.seed} {visitor}"), ports[visitor % len(ports)], None
        while time.monotonic() < until:
            question = self.question(draw, visitor, kinds)
            body = json.dumps(question).encode()
            try:
                line = line or await asyncio.open_connection("127.0.0.1", port, limit=2**24)
                began = time.perf_counter()
                status, reply = await asyncio.wait_for(posted(line, port, body), 120)
            except (OSError, asyncio.IncompleteReadError):  # the server that is started again
                self.counts["broken off"] += 1
                if line:
                    line[1].close()
                line = None
                if question["ask"] == "mark":  # it may have been kept, or not
                    self.marks[tuple(question[key] for key in ("image", "text", "answer"))] = "?"
                await asyncio.sleep(0.5)
                continue
            self.seconds[question["ask"]].append(time.perf_counter() - began)
            self.counts["answers"] += 1
            self.take(question, body, status, reply)

    def take(self, question: dict, body: bytes, status: int, reply: bytes) -> None:
        if question["ask"] == "mark":
            self.marks[tuple(question[key] for key in ("image", "text", "answer"))] = question["verdict"]
            return
        if question["ask"] == "hello":
            reply = json.dumps(json.loads(reply) | {"marks": []}).encode()  # those come and go
        if (
            self.first.setdefault(body, (question, status, reply))[1:] != (status, reply)
            and question["ask"] != "upload"
        ):
            self.wrong.append(f"{body[:150].decode()}: another answer than before, {status} {reply[:100]}")

    def check(self) -> None:
        """Compare what came with what `search` says; afterwards, so that nobody waits for it."""
        for body, (question, status, reply) in self.first.items():
            if problem := self.compare(question, status, json.loads(reply)):
                self.wrong.append(f"{body[:150].decode()}: {problem}")

    def lost_marks(self, path: Path) -> list[str]:
        """Marks that were answered and are not in the file, or other ones there."""
        kept = {tuple(row[:3]): row[3] for row in marks_table(path).to_numpy().tolist()}
        wrong = {key: verdict for key, verdict in self.marks.items() if verdict not in ("?", kept.get(key, ""))}
        return [f"mark {key}: {verdict!r} was saved, {kept.get(key, '')!r} is there" for key, verdict in wrong.items()]

    def show(self) -> None:
        for kind, seconds in sorted(self.seconds.items()):
            middle, late, last = 1000 * np.percentile(seconds, [50, 95, 99])
            print(f"  {kind:8} {len(seconds):7,} answers; ms: median {middle:.0f}, p95 {late:.0f}, p99 {last:.0f}")


def doubles(text: str, dtype: type = np.float64) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


async def posted(line: tuple[asyncio.StreamReader, asyncio.StreamWriter], port: int, body: bytes) -> tuple[int, bytes]:
    """Status and body of the reply."""
    reader, writer = line
    writer.write(f"POST /ask HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    return int(head.split(b" ", 2)[1]), await reader.readexactly(length)


@contextmanager
def servers(number: int, root: Path, folder: Path) -> Iterator[list[Server]]:
    running: list[Server] = []
    try:
        for _ in range(number):  # one after the other: the first makes the features
            running.append(Server(root, folder))
        yield running
    finally:
        for server in running:
            server.stop(signal.SIGKILL)


async def asked(
    soak: Soak, running: list[Server], visitors: int, seconds: float, kinds: dict[str, int], restarts: int
) -> None:
    until, ports = time.monotonic() + seconds, [server.port for server in running]
    visits = [asyncio.create_task(soak.visit(k, ports, kinds, until)) for k in range(visitors)]
    for _ in range(restarts):
        await asyncio.sleep(seconds / (restarts + 1))
        sent = random.choice([signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
        await asyncio.to_thread(running[-1].stop, sent)
        await asyncio.to_thread(running[-1].start)
        soak.counts["restarts"] += 1
    await asyncio.gather(*visits)


def campaign(
    folder: Path, visitors: int, seconds: float, restarts: int, images: int, pictures: int = 100
) -> tuple[Soak, float]:
    """Both parts; the second one's `Soak`, and the growth of the memory of the server that stayed."""
    seed, root = 0, draw_synthcom(folder / "drawn", images_per_class=images)
    with servers(2, root, folder) as running:
        (store,) = folder.glob("runs/**/features/manifest.json")
        known = Soak(root, store.parent, pictures, seed)
        asyncio.run(asked(known, running[:1], visitors, seconds / 4, {"query": 1}, 0))
        known.check()
        rate, wrong = known.counts["answers"] / (seconds / 4), len(known.wrong)
        print(f"{visitors} visitors, queries alone, {rate:,.0f} answers a second, {wrong} wrong")
        known.show()
        soak = Soak(root, store.parent, pictures, seed)
        asyncio.run(asked(soak, running, visitors, seconds / 8, MIX, 0))
        before = running[0].memory
        asyncio.run(asked(soak, running, visitors, seconds * 5 / 8, MIX, restarts))
        growth = running[0].memory / before
        soak.check()
        soak.wrong += known.wrong + soak.lost_marks(store.parents[1] / "marks.csv")
        counts = ", ".join(f"{count:,} {name}" for name, count in soak.counts.items())
        print(f"{visitors} visitors, all kinds, {counts}, {len(soak.marks):,} marks, {len(soak.wrong)} wrong")
        soak.show()
        print(f"  memory of a server: {before:.0f} MB, then {running[0].memory:.0f} MB")
        said = "".join((folder / f"{server.port}.err").read_text() for server in running)
        soak.wrong += [f"a server said: {said[:2000]}"] * ("Traceback" in said or len(said) > 20_000)
    return soak, growth


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40 visitors for half a minute, of 108 images")
    parser.add_argument("--visitors", type=int, help="at once; 200 without it")
    parser.add_argument("--seconds", type=float, help="of asking; 300 without it")
    options = parser.parse_args()
    visitors, seconds = (
        options.visitors or (40 if options.quick else 200),
        options.seconds or (24 if options.quick else 300),
    )
    warnings.simplefilter("ignore")  # the encoder never saw some of the words
    with tempfile.TemporaryDirectory() as folder:
        soak, growth = campaign(Path(folder), visitors, seconds, *((1, 4, 20) if options.quick else (4, 36)))
    for problem in soak.wrong[:20]:
        print("wrong:", problem)
    return int(bool(soak.wrong) or growth > MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
