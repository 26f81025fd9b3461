"""Where the project lies: its notebooks, its bundled data, the results of its runs."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"


def check_checkout(folder: Path) -> None:
    """Raises RuntimeError where `folder` lies in another copy of this project than the library that is imported."""
    own = (place for place in (folder.resolve(), *folder.resolve().parents) if (place / "rscir_lib" / "runs").is_dir())
    if (place := next(own, ROOT)) != ROOT:
        raise RuntimeError(
            f"{folder} belongs to {place}, but this Python imports rscir_lib from {ROOT}: results would go there. Use "
            f"the environment of {place} (`make` there makes one), or set PYTHONPATH={place}"
        )
