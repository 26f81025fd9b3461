"""The encoders that are known by name, and loading one by name, folder or file. Weights come from disk only."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from rscir_lib.encoders import hub, stored, transformers
from rscir_lib.encoders.base import PRECISIONS, Encoder, checked_encoder, one_of
from rscir_lib.encoders.checkpoints import CONFIG
from rscir_lib.storage.device import torch_device
from rscir_lib.storage.project import DATA

DEMO_FOLDER = DATA / "demo_encoder"
# (name, architecture, device, precision, models_root); architecture None is the loader's default
Loader = Callable[[str, str | None, torch.device, str, Path], Encoder]


def _load_openclip(name: str, architecture: str | None, device: torch.device, precision: str, folder: Path) -> Encoder:
    """A folder in open_clip's own form. Importing open_clip takes seconds, so only loading a model of it does."""
    from rscir_lib.encoders import openclip

    return openclip.load_folder(name, architecture, device, precision, folder)


def _published(name: str, architecture: str | None, device: torch.device, precision: str, models_root: Path) -> Encoder:
    """What `hub.published_as` knows by this name, as far as it is on this machine."""
    published, family = hub.published_as(name, architecture), hub.PUBLISHED.get(name, {})
    architecture = architecture or next(iter(family), published.model)
    place = hub.find(published, models_root)
    if place is None:
        file = published.by_hand or published.file
        chosen = f" --architecture {architecture}" if name in hub.PUBLISHED else ""
        fetch = f"run `rscir fetch --only {name}{chosen}`" if published.addresses() else "ask its authors for it"
        hand = f", or put it there by hand ({published.source})" if file else ""
        raise FileNotFoundError(f"{models_root / file if file else name} is missing: {fetch}{hand}")
    if not published.model:
        return load_folder(name, None, device, precision, place)
    if place.is_relative_to(models_root):  # such a file may come from another training: any digest will do
        published = replace(published, sha256=None)
    weights = place if place.is_file() else hub.weights_in(place)
    from rscir_lib.encoders import openclip

    return openclip.load_checkpoint(name, architecture, device, precision, weights, published, family)


ENCODERS: dict[str, Loader] = {
    "demo": lambda *given: _load_openclip(*given[:4], DEMO_FOLDER),  # bundled; it has seen synthetic scenes only
    **dict.fromkeys(hub.PUBLISHED, _published),
}
# A folder is known by its config: open_clip's and transformers' own formats, as the hub hands them out; or by a table
FOLDERS: dict[str, Loader] = {
    CONFIG: _load_openclip,
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
    """Load an encoder by its name, folder or file. No request is made, whatever a config names.

    Args:
        name: a key of `ENCODERS`; a folder with open_clip_config.json or, for transformers, config.json; a file of
            weights; a tag of open_clip's such as "ViT-B-32/laion2b_s34b_b79k"; "hf-hub:owner/name".
        architecture: one of the entry's; None or "" for its default. Of a file, open_clip's name of its model.
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
    place, root, path = torch_device(device), Path(models_root or "models").expanduser(), Path(name).expanduser()
    if name in ENCODERS:
        return checked_encoder(ENCODERS[name](name, architecture or None, place, precision, root))
    if path.is_file():
        import open_clip

        from rscir_lib.encoders import openclip

        models = open_clip.list_models()
        model = one_of(models, architecture or "", f"architecture of {path}, the name of its model in open_clip")
        encoder = openclip.load_checkpoint(path.stem, model, place, precision, path, hub.Published("", model=model))
        warnings.warn(f"{path}: pixels are normalised by OpenAI's mean and std, its file says none", stacklevel=2)
        return encoder
    if not any((path / config).is_file() for config in FOLDERS) and hub.published_as(str(name)):
        return _published(str(name), None, place, precision, root)
    return load_folder(path.resolve().name, architecture or None, place, precision, path)


def load_folder(name: str, architecture: str | None, device: torch.device, precision: str, folder: Path) -> Encoder:
    """A folder in one of the forms of `FOLDERS`, known by its config; ValueError for none of them."""
    for config, load in FOLDERS.items():
        if (folder / config).is_file():
            return load(name, architecture, device, precision, folder)
    known, configs = ", ".join(ENCODERS), " or ".join(FOLDERS)
    raise ValueError(f"unknown encoder {str(folder)!r}: one of {known}, or a folder with {configs}")


def provide(name: str, architecture: str = "", models_root: Path | None = None) -> None:
    """Fetch the weights of a published encoder, saying so, unless they are on this machine.

    Commands call it for what a person named; loading makes no request. Folders, files and the demo need nothing.
    """
    if not Path(name).expanduser().exists() and (published := hub.published_as(name, architecture or None)):
        hub.find_or_fetch(published, models_root)
