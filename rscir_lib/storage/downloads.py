"""Downloads that resume where they were cut. A file is complete, or not there at all.

Neither library that could do it does: huggingface_hub 2.x begins each file anew under a random name, and gives up
where a connection is reset; gdown takes a whole part for a server's fault (tests/loopback shows both).
"""

import errno
import hashlib
import html
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from io import FileIO
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import requests
from tqdm.auto import tqdm
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from rscir_lib.storage.digests import sha256_of_file
from rscir_lib.storage.locks import folder_lock

# A server that sends fewer bytes in so many seconds is left: one that sends a byte now and then would never end
FEWEST, SLOWEST = 2**10, 60
LARGEST_PAGE = 2**25  # bytes of a page or list that is held in memory; the longest list of a repository has a tenth
TRIES = 6  # in a row without a new byte, before another place is tried
LONGEST_WAIT = 600  # seconds that a server may ask us to wait; the hub's limits are over after 300
BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers that are worth another try
LASTING = (requests.exceptions.SSLError, requests.exceptions.ProxyError)  # not better in a moment


class NotFetched(OSError):
    """A file that couldn't be fetched; the message says why, and what helps."""


class _Again(Exception):
    """A fault after which another try is worth while. after: seconds that the server asks us to wait."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


@dataclass
class _Part:
    """A file that is being fetched: the bytes received so far, and the connections that bring the rest."""

    file: FileIO  # opened to append
    whole: int | None  # bytes of the complete file, where known
    address: str
    headers: Mapping[str, str]
    session: requests.Session
    timeout: float

    @property
    def size(self) -> int:
        return self.file.tell()

    def restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()

    def fill(self, pause: float, name: str) -> None:
        """Bring the part to its whole length, over as many connections as it takes."""
        failures, began, furthest = 0, self.size, self.size
        with tqdm(total=self.whole, unit="B", unit_scale=True, desc=name, initial=self.size) as bar:
            while True:
                try:
                    return self.stream(bar)
                except (_Again, requests.RequestException, HTTPError) as fault:
                    failures = 1 if self.size > furthest else failures + 1
                    furthest = max(furthest, self.size)
                    reason = _in_words(fault, self.timeout)
                    if failures >= TRIES:
                        raise NotFetched(f"{reason}, {TRIES} times without a new byte") from fault
                    if isinstance(fault, LASTING) or ("be reached" in reason and furthest == began):
                        raise NotFetched(reason) from fault
                    wait = getattr(fault, "after", None) or pause * 2 ** (failures - 1)
                    if wait > LONGEST_WAIT:
                        # urllib3 counts up to 6 hours
                        raise NotFetched(f"{reason} and asks to wait for {wait:.0f} seconds or more") from fault
                    if wait >= 10:
                        bar.write(f"      {urlsplit(self.address).hostname} {reason}; going on in {wait:.0f} seconds")
                    time.sleep(wait)

    def stream(self, bar: tqdm) -> None:
        """One connection's worth; returns when the part is whole."""
        if self.whole is not None and self.size > self.whole:
            self.restart()
        if self.size == self.whole:
            return
        with self.answer() as response:
            start, total = _range_of(response, self)
            if self.whole is not None and total not in (None, self.whole):
                raise NotFetched(f"has {total} bytes, expected {self.whole}")
            if start != self.size:
                self.restart()
                if start:
                    raise _Again(f"answered from byte {start}, not from where it was asked")
            if total is not None and shutil.disk_usage(Path(self.file.name).parent).free < total - self.size:
                raise OSError(errno.ENOSPC, f"no room for the {total - self.size:,} bytes to come", self.file.name)
            bar.total = whole = total or self.whole
            began, before = time.monotonic(), self.size
            while piece := response.raw.read1(2**20):  # what has come, so that a connection that breaks loses nothing
                if self.file.write(piece) != len(piece):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.file.name)
                if self.whole is not None and self.size > self.whole:
                    raise NotFetched(f"sends more than the {self.whole} bytes expected")
                bar.update(self.size - bar.n)
                if time.monotonic() - began > SLOWEST:
                    if self.size - before < FEWEST:
                        raise NotFetched(f"sends fewer than {FEWEST / SLOWEST:.0f} bytes a second")
                    began, before = time.monotonic(), self.size
        if whole is None and response.headers.get("Transfer-Encoding") != "chunked":
            self.restart()
            raise NotFetched("doesn't say how many bytes it has, so that nobody knows whether all came")
        if whole is not None and self.size != whole:
            raise _Again(f"sent {self.size} of {whole} bytes")

    def answer(self) -> requests.Response:
        """The response to a request for the missing bytes; pages that Google Drive shows first are followed, without
        what only the first host may know."""
        rest = {"Range": f"bytes={self.size}-"} if self.size else {}
        response = self.session.get(self.address, headers={**self.headers, **rest}, stream=True, timeout=self.timeout)
        if response.ok and response.headers.get("Content-Type", "").startswith("text/html"):
            response = self.session.get(_file_behind(response), headers=rest, stream=True, timeout=self.timeout)
        return response


def download(
    target: Path,
    addresses: Sequence[str],
    size: int | None = None,
    sha256: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 30,
    pause: float = 1,
) -> str:
    """Fetch a file from the first of its addresses that has it, resuming what an earlier run left.

    Args:
        target: The file; its folder is made. One that stands is replaced.
        addresses: Of the same file, the best place first.
        size, sha256: Of the file, in bytes and hexadecimal, where known: anything else is refused.
        headers: Sent to the first address only; `requests` drops Authorization where that redirects to another host.
        timeout: Seconds without a byte after which a connection counts as broken.
        pause: Seconds before the second try; each further one waits twice as long.

    Returns:
        sha256 of the file.

    Raises:
        NotFetched: With what each address answered. The part stays, for the next call.
        OSError: A disk without room for it, or that can't be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    with folder_lock(target.parent), requests.Session() as session:
        session.headers.update({"Accept-Encoding": "identity", "User-Agent": "rscir-workbook"})
        for place, address in enumerate(addresses):
            known = sha256 or hashlib.sha256(address.encode()).hexdigest()  # bytes of two files are never mixed
            path = target.with_name(f"{target.name}.{known[:8]}.part")
            try:
                with path.open("ab", buffering=0) as file:
                    part = _Part(file, size, address, (headers or {}) if place == 0 else {}, session, timeout)
                    resumed = part.size
                    part.fill(pause, target.name)
                    if resumed and sha256 not in (None, sha256_of_file(path)):
                        part.restart()  # what an earlier run left may have been damaged
                        part.fill(pause, target.name)
                    came = sha256_of_file(path)
                    if sha256 not in (None, came):
                        wrong = f"gave {part.size} bytes with sha256 {came}, expected {sha256}"
                        part.restart()
                        raise NotFetched(wrong)
                    os.fsync(file.fileno())
                os.replace(path, target)
                return came
            except NotFetched as reason:
                reasons.append(f"{address} {reason}")
            finally:
                if path.is_file() and not path.stat().st_size:
                    path.unlink()
    raise NotFetched(
        f"{target} could not be fetched. {'. '.join(reasons)}. What has come is kept: run this again to go on, or put "
        "the file there by hand"
    )


def _range_of(response: requests.Response, part: _Part) -> tuple[int, int | None]:
    """Position of a response's first byte in the file, and the bytes of the complete file where it says so."""
    status, headers = response.status_code, response.headers
    if headers.get("Content-Encoding", "identity") != "identity":
        raise NotFetched(f"answers packed ({headers['Content-Encoding']}), so that no length holds")
    span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", ""))
    total = int(span[2]) if span and span[2] != "*" else None
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        if total == part.size:
            part.whole = total  # nothing is missing
        else:
            part.restart()
        raise _Again(f"has no byte {part.size}")
    if status in BUSY:
        raise _Again(f"answered {status} {response.reason}", Retry().get_retry_after(response.raw))
    if not response.ok:
        raise NotFetched(_refusal(response))
    if status == HTTPStatus.PARTIAL_CONTENT and span and span[1]:
        return int(span[1]), total
    length = headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _refusal(response: requests.Response) -> str:
    code, status = response.headers.get("X-Error-Code", ""), f"{response.status_code} {response.reason}"
    if code == "GatedRepo":
        repository = re.sub(r"/(resolve|revision)/.*|^/api/models", "", urlsplit(response.url).path)
        page = f"https://huggingface.co{repository}, then `hf auth login`"
        return f"asks its readers to agree to terms: do so at {page}, and run this again ({status})"
    absent = {"EntryNotFound": "file", "RevisionNotFound": "revision"}.get(code)
    return f"has no such {absent} ({status})" if absent else f"answered {status}"


def text_of(response: requests.Response) -> str:
    """A page that was asked for as a stream; never unpacked, since few bytes may hold many. Raises NotFetched."""
    with response:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise NotFetched(f"answers packed ({response.headers['Content-Encoding']}), unasked")
        data = response.raw.read(LARGEST_PAGE + 1)
    if len(data) > LARGEST_PAGE:
        raise NotFetched(f"answers with a page of more than {LARGEST_PAGE:,} bytes")
    return str(data, errors="replace")


def _file_behind(response: requests.Response) -> str:
    """Address of the file that a page of Google Drive leads to. Raises NotFetched for every other page."""
    page = text_of(response)
    form = re.search(r'id="download-form"\s+action="([^"]+)"', page)
    if form:  # too large for Google to look for viruses in
        fields = re.findall(r'type="hidden"\s+name="([^"]+)"\s+value="([^"]*)"', page)
        return f"{html.unescape(form[1])}?{urlencode({key: html.unescape(value) for key, value in fields})}"
    title = html.unescape("".join(re.findall(r"<title>([^<]*)", page)[:1])) or "a web page"
    if "quota exceeded" in title.lower() or "too many users" in page.lower():
        raise NotFetched(
            "is over Google's limit for today: try again tomorrow, or open it in a browser that is signed in to "
            "Google, make a copy in your own Drive, and download that"
        )
    raise NotFetched(
        f"answered with a web page ({title.strip()!r}) and not with a file: if it is a network's page for signing in, "
        "sign in with a browser first"
    )


def _in_words(fault: Exception, timeout: float) -> str:
    text = str(fault)
    if isinstance(fault, requests.exceptions.SSLError):
        return f"has no certificate that this machine trusts ({text})"
    if isinstance(fault, requests.Timeout) or "timed out" in text.lower():
        return f"sent nothing for {timeout:g} seconds"
    if "resolve" in text.lower():
        return "can't be reached: its name isn't known here, as on a machine without network"
    return text if isinstance(fault, _Again) else f"broke the connection off ({type(fault).__name__})"
