"""One process at a time in a folder."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def folder_lock(folder: Path, seconds: float | None = None) -> Iterator[None]:
    """Inside, this process alone works in the folder, which is made if need be. A process that dies loses its lock.

    A process may lock a folder that it has locked already. seconds: how long to wait for another process; None waits
    until that has ended, and says so. Raises BlockingIOError, naming the process that still works there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / ".lock"
    lock = FileLock(note, is_singleton=True)
    try:
        lock.acquire(timeout=seconds or 0)
    except Timeout:
        holder = "a process"
        with suppress(OSError):  # Windows lets nobody read it
            holder = note.read_text(errors="replace") or holder
        if seconds is not None:
            raise BlockingIOError(
                errno.EAGAIN,
                f"{folder}: another command is at work here ({holder}). Wait until it has ended and call again, or "
                "choose another folder",
            ) from None
        print(f"      another command works in {folder} ({holder}); waiting until it is done", flush=True)
        lock.acquire()
    try:
        with suppress(OSError):  # a full disk: the lock holds without its note
            since = time.strftime("%d %B, %H:%M:%S")
            note.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {since}")
        yield
    finally:
        with suppress(OSError):
            note.write_text("")  # whoever gets the folder learns nothing of the machine
        lock.release()
