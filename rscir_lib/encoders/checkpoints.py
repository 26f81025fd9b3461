"""Files of weights and configs, which may be anybody's: read without running anything that they hold."""

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from rscir_lib.encoders.base import reason
from rscir_lib.encoders.hub import recorded
from rscir_lib.storage.atomic import read_json
from rscir_lib.storage.digests import sha256_of, sha256_of_file

WEIGHTS = "open_clip_model.safetensors"  # the names that open_clip's "local-dir:" scheme looks for
CONFIG = "open_clip_config.json"
MOST_BYTES = 2**20  # of a config file; the largest known has some kilobytes
# The largest numbers that a config may hold, where a greater one costs hours or gigabytes before the weights, which
# must fit, show that it is wrong. open_clip's own stay below half of them.
LIMITS = {
    **dict.fromkeys(("layers", "heads", "num_hidden_layers", "num_attention_heads", "attn_pooler_heads"), 128),
    **dict.fromkeys(("image_size", "size", "height", "shortest_edge", "longest_edge"), 2048),
    **dict.fromkeys(("context_length", "max_position_embeddings", "n_queries", "attn_pooler_queries"), 4096),
    **dict.fromkeys(("embed_dim", "width", "hidden_size", "projection_dim", "projection_size"), 8192),
    **dict.fromkeys(("patch_size", "head_width", "dim_head"), 1024),
    "mlp_ratio": 32, "intermediate_size": 65_536, "vocab_size": 2_000_000, "num_channels": 3,
}  # fmt: skip
NEVER = {
    **dict.fromkeys(("auto_map", "custom_code"), "names code of its own, which is never run"),
    # the weights file holds both towers
    **dict.fromkeys(("timm_model_pretrained", "hf_model_name"), "would be fetched from a hub, and nothing is"),
}
# NumPy's numbers beside the weights, as training leaves them: they hold no code
NUMBERS: list[Any] = [np.dtype, *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd")]
SCALARS: list[Any] = [(np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
WRAPPINGS = ("_orig_mod.", "module.")  # what torch.compile and training on several GPUs put before every name
MOST_PICKLE = 64 * 2**20  # bytes of the names and shapes in a torch file; those of the largest model are 1 MB


def files_of(path: Path) -> list[Path]:
    """The files that hold the weights: the one, or those that an index lists, which lie beside it."""
    if not path.name.endswith(".index.json"):
        return [path]
    names = sorted(set(read_json(path, expected="a weight_map from names to files")["weight_map"].values()))
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise ValueError(f"{path} lists {str(names)[:50]}, not files beside it; fetch it again")
    if absent := [name for name in names if not (path.parent / name).is_file()]:
        raise FileNotFoundError(f"{path.parent / absent[0]} is missing, one of {len(names)} files of weights; fetch it")
    return [path.parent / name for name in names]


def digest_of(path: Path, expected: str | None = None) -> str:
    """sha256 of the weights. Raises ValueError for another than expected, or than first came to the home."""
    digests = {file: sha256_of_file(file) for file in files_of(path)}
    for file, digest in digests.items():
        for known in (expected, recorded(file)):
            if known not in (None, digest):
                raise ValueError(f"{file} has sha256 {digest}, expected {known}: delete it and fetch it again")
    return digest if len(digests) == 1 else sha256_of(*digests.values())


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a state dict, a safetensors file, or several with an index, by name; they stay on the disk.

    Raises ValueError, naming the file, for anything else that it holds and for a packed or damaged one.
    """
    files, tensors = files_of(path), dict[str, torch.Tensor]()
    try:
        for file in files:
            if file.stat().st_size == 0:
                raise ValueError("it is empty")
            tensors |= load_file(file) if file.suffix == ".safetensors" else _of_torch(file)
    except Exception as error:  # whatever a damaged file makes the readers raise
        raise ValueError(
            f"{path} is refused: it must hold tensors only, as a saved state dict or safetensors "
            f"(no pickled objects, no TorchScript): {reason(error)}. Fetch it again, or save it as safetensors"
        ) from error
    for wrapping in WRAPPINGS * 2:
        if all(name.startswith(wrapping) for name in tensors):
            tensors = {name.removeprefix(wrapping): tensor for name, tensor in tensors.items()}
    return tensors


def _of_torch(path: Path) -> dict[str, torch.Tensor]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no file of torch's, or one cut short")
    with zipfile.ZipFile(path) as file:  # torch stores; what is packed would unpack to any size
        for member in file.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise ValueError(f"{member.filename} in it is packed ({member.file_size} bytes)")
            if member.filename.endswith(".pkl") and member.file_size > MOST_PICKLE:
                raise ValueError(f"{member.filename} in it has {member.file_size} bytes, more than {MOST_PICKLE}")
    with torch.serialization.safe_globals([*NUMBERS, *SCALARS]):
        state: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if isinstance(state, Mapping):
        state = state.get("state_dict", state)
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"it holds a value of type {type(state).__name__} and no tensors by name")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
            layout = f" ({value.layout})" if isinstance(value, torch.Tensor) else ""
            raise ValueError(f"{key!r} in it is of type {type(value).__name__}{layout}, not a named, dense tensor")
    return dict(state)


def misfit(path: Path, stored: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> str | None:
    """The first difference in name, shape or kind of number between a file's tensors and a model's; None if none.

    A file that has fewer bytes than numbers fits nothing: few bytes, repeated, would fill the memory.
    """
    for key in (*expected, *stored):
        if key not in stored:
            return f"{key} is missing from the file"
        if key not in expected:
            return f"{key} is not part of the model"
        have, want = stored[key], expected[key]
        if have.shape != want.shape:
            return f"{key} has shape {tuple(have.shape)}, the model wants {tuple(want.shape)}"
        if have.is_floating_point() != want.is_floating_point():
            kinds = ["whole numbers", "floating point"]
            return f"{key} holds {kinds[have.is_floating_point()]}, the model wants {kinds[want.is_floating_point()]}"
    numbers, size = sum(tensor.numel() for tensor in stored.values()), sum(f.stat().st_size for f in files_of(path))
    return f"it has {size} bytes for a model of {numbers} weights" if numbers > size else None


def read_config(path: Path, parts: Mapping[str, Collection[str]] | None = None) -> dict[str, Any]:
    """The keys and values of a config file.

    Args:
        path: The file.
        parts: The keys that it may hold ("") and that each part of it may hold; any without it.

    Raises:
        ValueError: Naming file, key and value, for what is no such config or a huge one, an unknown key, a number
            beyond `LIMITS`, and what would be run or fetched.
    """
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path} has {size} bytes, no config has more than {MOST_BYTES}")
    config = read_json(path, expected="the keys and values of an encoder; save the model again")
    inside = [("", "", config)]
    for place, part, values in inside:  # which grows meanwhile
        for key, value in values.items():
            inner, short = f"{place}.{key}".lstrip("."), f"{str(value)[:50]!r}"
            if parts and key not in parts[part]:
                raise ValueError(f"{path}: {place} has the unknown key {key!r} ({short}); take it out")
            if key in NEVER and value:
                raise ValueError(f"{path}: {inner} is {short}, which {NEVER[key]}; take it out")
            if isinstance(value, dict) and (not parts or key in parts):
                inside.append((inner, key, value))
            elif parts and key in parts and (value is not None or key.endswith("_cfg")):
                raise ValueError(f"{path}: {inner} holds {short}, not keys and values; save the model again")
            elif key in LIMITS and value is not None:
                for number in value if isinstance(value, list) and len(value) <= 4 else [value]:
                    if type(number) not in (int, float) or not 0 < number <= LIMITS[key]:
                        wrong = f"is {str(number)[:50]!r}; it is a number above 0, at most {LIMITS[key]}"
                        raise ValueError(f"{path}: {inner} {wrong}")
    return config
