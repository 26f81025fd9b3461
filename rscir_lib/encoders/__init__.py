"""The encoders: what one is, which are known, and loading one by name or folder.

One's own is an object with the attributes of `Encoder` and a line `ENCODERS["mine"] = loader`.
"""

from rscir_lib.encoders.base import Encoder, unknown_words
from rscir_lib.encoders.checkpoints import CONFIG, WEIGHTS
from rscir_lib.encoders.prompts import prompted
from rscir_lib.encoders.registry import DEMO_FOLDER, ENCODERS, FOLDERS, load_encoder, provide

__all__ = [
    "CONFIG", "DEMO_FOLDER", "ENCODERS", "FOLDERS", "WEIGHTS", "Encoder", "load_encoder", "prompted", "provide",
    "unknown_words",
]  # fmt: skip
