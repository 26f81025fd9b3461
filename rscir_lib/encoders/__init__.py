"""The encoders: what one is, which are known, and loading one by name or folder. Weights come from disk only.

One's own is an object with the attributes of `Encoder` and a line `ENCODERS["mine"] = loader`.
"""

from collections.abc import Callable
from pathlib import Path

from rscir_lib.encoders import openclip, stored, transformers
from rscir_lib.encoders.base import PRECISIONS, Encoder, one_of, pick_device, unknown_words
from rscir_lib.encoders.openclip import CONFIG, DEMO_FOLDER, WEIGHTS, Entry, compile_tower

__all__ = [
    "CONFIG",
    "DEMO_FOLDER",
    "ENCODERS",
    "FOLDERS",
    "WEIGHTS",
    "Encoder",
    "Entry",
    "compile_tower",
    "load_encoder",
    "pick_device",
    "unknown_words",
]

# name -> loader(name, architecture, device, precision, models_root); architecture None is the loader's default
Loader = Callable[[str, str | None, object, str, Path], Encoder]
ENCODERS: dict[str, Loader] = dict(openclip.ENTRIES)

# a folder is known by its config: open_clip's and transformers' own formats, as the hub hands them out; or by a table
FOLDERS = {
    CONFIG: openclip.load_folder,
    transformers.CONFIG: transformers.load_folder,
    stored.TABLE: stored.load_stored,
}


def load_encoder(
    name: str | Path,
    architecture: str | None = None,
    device: str = "auto",
    precision: str = "float32",
    models_root: str | Path | None = None,
) -> Encoder:
    """Load an encoder by its registry name or by its folder. No request is made, whatever a config names.

    Args:
        name: a key of `ENCODERS`, or a folder with open_clip_config.json or, for transformers, config.json.
        architecture: one of the entry's; None or "" for its default.
        device: "auto" (CUDA, else MPS, else CPU) or a torch device.
        precision: of the towers: float32, bfloat16 or float16. Features come out in float32 whatever it is.
        models_root: folder of the checkpoint files, for the keys of `ENCODERS`; "models" if not given.

    Raises:
        FileNotFoundError: a file is missing; says which, where it belongs and how to get it.
        ValueError: unknown name, architecture, device or precision; a config with keys or values out of bounds; a
            file that holds anything but tensors, does not fit the architecture, or has another sha256 than expected.
    """
    one_of(PRECISIONS, precision, "precision")
    if not isinstance(name, str | Path) or not str(name):
        raise ValueError(f"an encoder is given by name or folder, not by {name!r}; one of {', '.join(ENCODERS)}")
    device = pick_device(device)
    if name in ENCODERS:
        root = Path(models_root or "models").expanduser()
        return ENCODERS[name](name, architecture or None, device, precision, root)
    folder = Path(name).expanduser()
    for config, load in FOLDERS.items():
        if (folder / config).is_file():
            return load(folder.resolve().name, architecture or None, device, precision, folder)
    known, configs = ", ".join(ENCODERS), " or ".join(FOLDERS)
    raise ValueError(f"unknown encoder {str(name)!r}: one of {known}, or a folder with {configs}")
