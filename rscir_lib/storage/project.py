"""Where the project lies: its notebooks, its bundled data, the results of its runs."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
