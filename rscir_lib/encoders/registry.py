"""The encoders that are known by name, and loading one by name or folder. Weights come from disk only."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import open_clip
import torch
from open_clip.constants import INCEPTION_MEAN, INCEPTION_STD, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from rscir_lib.encoders import hub, openclip, stored, transformers
from rscir_lib.encoders.base import PRECISIONS, Encoder, one_of
from rscir_lib.storage.device import torch_device
from rscir_lib.storage.project import DATA

DEMO_FOLDER = DATA / "demo_encoder"
# (name, architecture, device, precision, models_root); architecture None is the loader's default
Loader = Callable[[str, str | None, torch.device, str, Path], Encoder]


@dataclass(frozen=True)
class Entry:
    """An encoder of open_clip's whose weights are one file, under the models root or where `hub.find` finds it.

    The activation (GELU or QuickGELU) and mean/std belong to the checkpoint, not to the architecture's name.
    """

    models: dict[str, str]  # architecture -> open_clip's model name
    file: str  # under the models root, {architecture} filled in
    source: str
    licence: str
    default: str = "ViT-L-14"
    stats: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)  # where not OpenAI's
    sha256: dict[str, str] = field(default_factory=dict)  # architecture -> digest of the file, where known

    def __call__(
        self, name: str, architecture: str | None, device: torch.device, precision: str, models_root: Path
    ) -> Encoder:
        """Load it; see `load_encoder`."""
        architecture = one_of(self.models, architecture or self.default, f"architecture of {name}")
        weights, expected = models_root / self.file.format(architecture=architecture), self.sha256.get(architecture)
        if not weights.is_file():
            published = hub.published_as(name, architecture)
            place = hub.find(published) if published else None
            if place is None:
                how = f"run `rscir fetch --only {name} --architecture {architecture}`" if published else "fetch it"
                raise FileNotFoundError(f"{weights} is missing: {how}, or put it there by hand ({self.source})")
            expected = published.sha256
            weights = place if published.file else hub.weights_in(place)
        stats = self.stats.get(architecture, (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
        return openclip.load_checkpoint(name, architecture, device, precision, self.models, weights, stats, expected)


def _demo(name: str, architecture: str | None, device: torch.device, precision: str, models_root: Path) -> Encoder:
    """The bundled encoder, which has seen synthetic scenes only."""
    return openclip.load_folder(name, architecture, device, precision, DEMO_FOLDER)


def _from_hub(name: str, architecture: str | None, device: torch.device, precision: str, models_root: Path) -> Encoder:
    """A folder of the hub, or the file that a tag of open_clip's names, as far as it is on this machine."""
    published = hub.published_as(name, architecture)
    if published is None:
        raise ValueError(f"unknown architecture of {name}: {architecture!r}; one of {', '.join(hub.PUBLISHED[name])}")
    place = hub.find(published)
    if place is None:
        chosen = f" --architecture {architecture}" if architecture else ""
        raise FileNotFoundError(f"{name} is not on this machine: run `rscir fetch --only {name}{chosen}`")
    if published.file:
        model, _, tag = name.rpartition("/")
        listed = open_clip.pretrained.get_pretrained_cfg(model, tag)
        stats = tuple(listed["mean"]), tuple(listed["std"])
        return openclip.load_checkpoint(name, model, device, precision, {model: model}, place, stats)
    return load_folder(name, None, device, precision, place)


_PLAIN = {name: name for name in ("RN50", "ViT-B-32", "ViT-L-14")}
_QUICK = {name: f"{name}-quickgelu" for name in _PLAIN}
ENCODERS: dict[str, Loader] = {
    "demo": _demo,
    # as WeiCom's authors loaded them: plain GELU, OpenAI's mean and std
    "clip": Entry(_PLAIN, "CLIP-{architecture}.bin", "the WeiCom authors' drive folder", "MIT"),
    "remoteclip": Entry(_PLAIN, "RemoteCLIP-{architecture}.pt", "hub: chendelong/RemoteCLIP", "Apache-2.0"),
    # OpenAI's weights with the activation they were trained with
    "clip-openai": Entry(
        _QUICK,
        "OpenAI-{architecture}.safetensors",
        "hub: timm/*_clip_224.openai, timm/resnet50_clip.openai",
        "MIT",
        "ViT-B-32",
    ),
    "clip-laion2b": Entry(
        {name: name for name in ("ViT-B-32", "ViT-L-14")},
        "LAION2B-{architecture}.safetensors",
        "hub: laion/CLIP-ViT-L-14-laion2B-s32B-b82K, laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        "MIT",
        "ViT-B-32",
        stats={"ViT-L-14": (INCEPTION_MEAN, INCEPTION_STD)},  # the ViT-B-32 was trained with OpenAI's
    ),
    # started from OpenAI's weights, the ViT-H-14 from LAION's (their README; of the ViT-L-14 it says nothing)
    "georsclip": Entry(
        {
            **{name: f"{name}-quickgelu" for name in ("ViT-B-32", "ViT-L-14", "ViT-L-14-336")},
            "ViT-H-14": "ViT-H-14",
        },
        "ckpt/RS5M_{architecture}.pt",
        "hub: Zilun/GeoRSCLIP",
        "cc-by-4.0",
    ),
    # their cross_modal_retrieval.ipynb: the ViT-L-14 with QuickGELU, the ViT-B-32 (from LAION's) without
    "skyclip": Entry(
        {"ViT-B-32": "ViT-B-32", "ViT-L-14": "ViT-L-14-quickgelu"},
        "SkyCLIP-{architecture}.pt",
        "epoch_20.pt in SkyCLIP_ViT_L14_top30pct.zip or SkyCLIP_ViT_B32_top50pct.zip, "
        "https://github.com/wangzhecheng/SkyScript",
        "MIT (the repository's)",
    ),
    # their README: --force-quick-gelu; the ViT-B-16 reads longer texts than open_clip's model
    "farslip": Entry(
        {"ViT-B-32": "ViT-B-32-quickgelu"}, "FarSLIP1_{architecture}.pt", "hub: ZhenShiL/FarSLIP", "MIT", "ViT-B-32"
    ),
    **dict.fromkeys(("siglip2", "pe-core", "git-rsclip"), _from_hub),
}

# A folder is known by its config: open_clip's and transformers' own formats, as the hub hands them out; or by a table
FOLDERS: dict[str, Loader] = {
    openclip.CONFIG: openclip.load_folder,
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
    place = torch_device(device)
    if name in ENCODERS:
        root = Path(models_root or "models").expanduser()
        return ENCODERS[name](name, architecture or None, place, precision, root)
    path = Path(name).expanduser()
    if path.is_file():
        models = open_clip.list_models()
        model = one_of(models, architecture or "", f"architecture of {path}, the name of its model in open_clip")
        encoder = openclip.load_checkpoint(path.stem, model, place, precision, {model: model}, path)
        warnings.warn(f"{path}: pixels are normalised by OpenAI's mean and std, its file says none", stacklevel=2)
        return encoder
    if not any((path / config).is_file() for config in FOLDERS) and hub.published_as(str(name)):
        return _from_hub(str(name), None, place, precision, path)
    return load_folder(path.resolve().name, architecture or None, place, precision, path)


def load_folder(name: str, architecture: str | None, device: torch.device, precision: str, folder: Path) -> Encoder:
    """A folder in one of the forms of `FOLDERS`, known by its config; ValueError for none of them."""
    for config, load in FOLDERS.items():
        if (folder / config).is_file():
            return load(name, architecture, device, precision, folder)
    known, configs = ", ".join(ENCODERS), " or ".join(FOLDERS)
    raise ValueError(f"unknown encoder {str(folder)!r}: one of {known}, or a folder with {configs}")


def provide(name: str, architecture: str = "", models_root: Path | None = None) -> None:
    """Fetch the weights of an encoder that a person named, and say so, unless they are on this machine.

    Of commands; loading asks nobody. Nothing is done for folders, files and the bundled encoder.
    """
    entry = ENCODERS.get(name)
    if isinstance(entry, Entry):
        architecture = architecture or entry.default
        if models_root and (models_root / entry.file.format(architecture=architecture)).is_file():
            return
    published = None if Path(name).expanduser().exists() else hub.published_as(name, architecture or None)
    if published and hub.find(published) is None:
        hub.fetch(published)
