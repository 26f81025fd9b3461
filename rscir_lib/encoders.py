"""The encoders: a registry of CLIP-style models, and one loader for all of them.

Adding a backbone is adding one `Entry` to `ENCODERS`. Weights come from disk, never from the network.
"""

import hashlib
import pickle
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.constants import INCEPTION_MEAN, INCEPTION_STD, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors import SafetensorError, safe_open

DEMO_FOLDER = Path(__file__).parents[1] / "data" / "demo_encoder"
WEIGHTS = "open_clip_model.safetensors"  # the names open_clip's "local-dir:" scheme looks for
CONFIG = "open_clip_config.json"
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Entry:
    """An encoder whose weights are one file under the models root.

    The activation (GELU or QuickGELU) and mean/std belong to the checkpoint, not to the architecture's name.
    """

    models: dict[str, str]  # architecture -> open_clip's model name
    file: str  # under the models root, {architecture} filled in
    source: str
    licence: str
    default: str = "ViT-L-14"
    stats: dict[str, tuple] = field(default_factory=dict)  # architecture -> (mean, std) where not OpenAI's
    sha256: dict[str, str] = field(default_factory=dict)  # architecture -> digest of the file, where known


_PLAIN = {name: name for name in ("RN50", "ViT-B-32", "ViT-L-14")}
_QUICK = {name: f"{name}-quickgelu" for name in _PLAIN}

ENCODERS = {
    # as WeiCom's authors loaded them: plain GELU, OpenAI's mean and std
    "clip": Entry(_PLAIN, "CLIP-{architecture}.bin", "the WeiCom authors' drive folder", "MIT"),
    "remoteclip": Entry(_PLAIN, "RemoteCLIP-{architecture}.pt", "hub: chendelong/RemoteCLIP", "Apache-2.0"),
    # OpenAI's weights with the activation they were trained with
    "clip-openai": Entry(
        _QUICK, "OpenAI-{architecture}.safetensors", "hub: timm/*_clip_224.openai, timm/resnet50_clip.openai", "MIT"
    ),
    "clip-laion2b": Entry(
        {name: name for name in ("ViT-B-32", "ViT-L-14")},
        "LAION2B-{architecture}.safetensors",
        "hub: laion/CLIP-ViT-L-14-laion2B-s32B-b82K, laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        "MIT",
        stats={"ViT-L-14": (INCEPTION_MEAN, INCEPTION_STD)},  # the ViT-B-32 was trained with OpenAI's
    ),
}


@dataclass(frozen=True)
class Encoder:
    """A loaded image and text encoder. Features are float32, L2-normalised in float32, shape (n, `dim`)."""

    name: str
    architecture: str
    dim: int
    device: torch.device
    precision: str
    preprocess: Callable  # PIL image -> float32 tensor (3, H, W)
    provenance: dict[str, str]
    model: torch.nn.Module = field(repr=False)
    tokenizer: Callable = field(repr=False)

    @property
    def dtype(self) -> torch.dtype:
        """Of the towers' products; some small weights stay float32 whatever it is."""
        return getattr(torch, self.precision)

    @torch.inference_mode()
    def encode_images(self, batch: torch.Tensor) -> np.ndarray:
        """Features of preprocessed images (B, 3, H, W) -> (B, dim)."""
        batch = batch.to(self.device, non_blocking=True).to(self.dtype)  # so pinned memory is copied as it is
        return _normalised(self.model.encode_image(batch))

    @torch.inference_mode()
    def encode_texts(self, texts: list[str], batch_size: int = 256) -> np.ndarray:
        """Features of texts -> (len(texts), dim).

        Raises ValueError for no text, a blank text, or one longer than the context, which would be cut.
        """
        if isinstance(texts, str) or len(texts) == 0:
            raise ValueError(f"encode_texts takes a list with at least one text, not {texts!r}")
        for text in texts:
            tokens = len(self.tokenizer.encode(text)) + 2  # with start and end
            if tokens == 2:
                raise ValueError(f"a text is blank: {text!r}")
            if tokens > self.tokenizer.context_length:
                limit = self.tokenizer.context_length
                raise ValueError(f"a text has {tokens} tokens, {self.name!r} reads {limit}; shorten {text!r}")
        batches = [self.tokenizer(list(texts[i : i + batch_size])) for i in range(0, len(texts), batch_size)]
        return np.concatenate([_normalised(self.model.encode_text(b.to(self.device))) for b in batches])


def _normalised(features: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()


def load_encoder(
    name: str | Path,
    architecture: str | None = None,
    device: str = "auto",
    precision: str = "float32",
    models_root: str | Path | None = None,
) -> Encoder:
    """Load an encoder by its registry name or, trained by `rscir_lib.training`, by its folder.

    Args:
        name: "demo", a key of `ENCODERS`, or a folder with open_clip_config.json and its weights.
        architecture: one of the entry's; None or "" for its default.
        device: "auto" (CUDA, else MPS, else CPU) or a torch device.
        precision: of the towers: float32, bfloat16 or float16. Features come out in float32 whatever it is.
        models_root: folder of the checkpoint files, for the keys of `ENCODERS`.

    Raises:
        FileNotFoundError: a file is missing; says which, where it belongs and how to get it.
        ValueError: unknown name, architecture or precision; a file that holds anything but tensors, does not
            fit the architecture, or has another sha256 than expected.
    """
    _one_of(PRECISIONS, precision, "precision")
    if name in ENCODERS:
        entry = ENCODERS[name]
        architecture = _one_of(entry.models, architecture or entry.default, f"architecture of {name}")
        model_name = entry.models[architecture]
        weights = Path(models_root or "models").expanduser() / entry.file.format(architecture=architecture)
        mean, std = entry.stats.get(architecture, (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
        options = {"pretrained": str(weights), "force_preprocess_cfg": {"mean": mean, "std": std}}
        advice = f"run `make fetch`, or put it there by hand ({entry.source})"
        expected_sha256 = entry.sha256.get(architecture)
    else:
        folder = DEMO_FOLDER if name == "demo" else Path(name).expanduser()
        if not (folder / CONFIG).is_file():
            known = ", ".join(("demo", *ENCODERS))
            raise ValueError(f"unknown encoder {str(name)!r}: one of {known}, or a folder with {CONFIG}")
        name = name if name == "demo" else folder.resolve().name
        architecture = _one_of(("small",), architecture or "small", f"architecture of {name}")
        model_name, weights, options, expected_sha256 = f"local-dir:{folder}", folder / WEIGHTS, {}, None
        advice = "train it with `make demo-encoder` or `make adapt`"
    if not weights.is_file():
        raise FileNotFoundError(f"{weights} is missing: {advice}")

    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if expected_sha256 not in (None, sha256):
        raise ValueError(f"{weights} has sha256 {sha256}, expected {expected_sha256}: fetch it again")
    _check_weights(weights, model_name)

    if device == "auto":
        accelerators = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        device = next((kind for kind, present in accelerators.items() if present), "cpu")
    torch.backends.cudnn.allow_tf32 = False  # or a GPU rounds a convolution's float32 to 10 bits
    model = open_clip.create_model(model_name, precision=PRECISIONS[precision], device=device, **options).eval()
    config = PreprocessCfg(**model.visual.preprocess_cfg)
    quick_gelu = open_clip.get_model_config(model_name).get("quick_gelu", False)
    packages = ("torch", "torchvision", "open_clip_torch", "pillow", "numpy")
    provenance = {
        "encoder": name,
        "architecture": architecture,
        "open_clip_model": model_name if name in ENCODERS else CONFIG,
        "activation": "QuickGELU" if quick_gelu else "GELU",
        "weights": weights.name,
        "weights_sha256": sha256,
        "image_size": str(config.size),
        "mean": str(tuple(config.mean)),
        "std": str(tuple(config.std)),
        "interpolation": config.interpolation,
        "precision": precision,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }
    return Encoder(
        name=name,
        architecture=architecture,
        dim=model.text_projection.shape[1],
        device=torch.device(device),
        precision=precision,
        preprocess=image_transform_v2(config, is_train=False),
        provenance=provenance,
        model=model,
        tokenizer=open_clip.get_tokenizer(model_name),
    )


def _one_of(allowed: Iterable[str], value: str, what: str) -> str:
    if value not in allowed:
        raise ValueError(f"unknown {what}: {value!r}; one of {', '.join(allowed)}")
    return value


def _check_weights(path: Path, model_name: str) -> None:
    """Refuse a file that holds code, or whose tensors differ from the model's in name or shape."""
    found, expected = _file_shapes(path), _model_shapes(model_name)
    wrong = next((key for key in (*expected, *found) if found.get(key) != expected.get(key)), None)
    if wrong is None:
        return
    if wrong not in found:
        problem = "is missing from the file"
    elif wrong not in expected:
        problem = "is not part of the model"
    else:
        problem = f"has shape {found[wrong]}, the model wants {expected[wrong]}"
    likely = [known for known in _PLAIN if _model_shapes(known) == found]
    advice = f"it looks like {likely[0]}: pass architecture={likely[0]!r}" if likely else "it fits none that we know"
    raise ValueError(f"{path} does not fit {model_name}: {wrong} {problem}; {advice}")


def _file_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} is refused: it must hold tensors only, as a saved state dict or safetensors "
            f"(no pickled objects, no TorchScript). {reason}"
        ) from error
    state = state.get("state_dict", state)  # open_clip unwraps these two forms itself when it loads
    return {key.removeprefix("module."): tuple(value.shape) for key, value in state.items()}


def _model_shapes(model_name: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):  # shapes without memory
        model = open_clip.CLIP(**open_clip.get_model_config(model_name))
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}
