"""Methods, encoders and benchmarks in a file of one's own, which a run names: PLUGINS=my_methods.py."""

import runpy
import traceback
from collections.abc import Callable, Collection
from pathlib import Path

from rscir_lib.storage.digests import sha256_of_file

_ran: dict[Path, str] = {}  # files by their digest when they ran, so that a changed one runs again
_own: set[object] = set()  # names that came from such files, which may be given again; the library's may not


def run_plugins(path: Path) -> None:
    """Run a file that adds to `METHODS`, `ENCODERS` or `READERS`. Nothing runs but the file that a person names.

    Its encoders' provenance says the file's sha256, so that features of earlier code are not taken for theirs. Raises
    ValueError naming file and line where it fails; for a name of the library's, and an entry that is no method. What it
    had added until then is taken back.
    """
    from rscir_lib.benchmarks import READERS
    from rscir_lib.encoders import ENCODERS
    from rscir_lib.methods import METHODS, get_method

    digest = sha256_of_file(path)
    if _ran.get(path) == digest:
        return
    registries = METHODS, ENCODERS, READERS
    before = [dict(registry) for registry in registries]
    try:
        runpy.run_path(str(path), run_name=path.stem)
        own = [name for old, r in zip(before, registries, strict=True) for name in r if r[name] is not old.get(name)]
        if not own and path not in _ran:
            raise ValueError("it adds nothing to METHODS, ENCODERS or READERS (rscir_lib)")
        for old in before:
            if taken := [name for name in own if name in old and name not in _own]:
                raise ValueError(f"{taken[0]!r} is a name of the library's: choose another")
        for name in own:
            if name in METHODS and get_method(METHODS[name]).name != name:
                raise ValueError(f"METHODS[{name!r}] is named {METHODS[name].name!r}: give both one name")
            if name in ENCODERS:
                ENCODERS[name] = _stamped(ENCODERS[name], digest)
    except Exception as error:  # whatever a person's code raises
        for registry, old in zip(registries, before, strict=True):
            registry.clear()
            registry.update(old)
        line = getattr(error, "lineno", None)  # of code that isn't Python
        place = f"{path}, line {line}" if line else place_of(error, [path]) or path
        raise ValueError(f"PLUGINS: {place}: {type(error).__name__}: {error}") from error
    _ran[path] = digest
    _own.update(own)


def place_of(error: BaseException, files: Collection[Path] = ()) -> str:
    """File and line of the code of one's own that an error went through last; "" for none. files: `PLUGINS` by default."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) in (files or _ran)]
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else ""


def _stamped(load: Callable, digest: str) -> Callable:
    def loaded(*arguments: object) -> object:
        encoder = load(*arguments)
        encoder.provenance = encoder.provenance | {"code_sha256": digest}
        return encoder

    return loaded
