"""Files of weights, read without running anything that they hold."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open

MOST_PICKLE = 64 * 2**20  # bytes of the names and shapes in a torch file; those of the largest model are 1 MB


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a state dict or safetensors file by name, on the meta device: shapes, no values.

    Raises ValueError, naming the file, for anything else that it holds and for a packed or damaged one.
    """
    try:
        if path.stat().st_size == 0:
            raise ValueError("it is empty")
        return _of_safetensors(path) if path.suffix == ".safetensors" else _of_torch(path)
    except Exception as error:  # whatever a damaged file makes the readers raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{path} is refused: it must hold tensors only, as a saved state dict or safetensors "
            f"(no pickled objects, no TorchScript): {reason}. Fetch it again, or save it as safetensors"
        ) from error


def _of_safetensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        return {key: _shape(part.get_shape(), part.get_dtype().startswith(("F", "BF"))) for key, part in slices.items()}


def _of_torch(path: Path) -> dict[str, torch.Tensor]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no file of torch's, or one cut short")
    with zipfile.ZipFile(path) as file:  # torch stores; what is packed would unpack to any size
        for member in file.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise ValueError(f"{member.filename} in it is packed ({member.file_size} bytes)")
            if member.filename.endswith(".pkl") and member.file_size > MOST_PICKLE:
                raise ValueError(f"{member.filename} in it has {member.file_size} bytes, more than {MOST_PICKLE}")
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if isinstance(state, Mapping):
        state = state.get("state_dict", state)  # open_clip unwraps these two forms itself when it loads
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"it holds {_kind(state)}, not tensors by name")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
            raise ValueError(f"{key!r} in it is {_kind(value)}, not a named tensor")
    return {key.removeprefix("module."): _shape(value.shape, value.is_floating_point()) for key, value in state.items()}


def _shape(shape: list[int] | torch.Size, real: bool) -> torch.Tensor:
    return torch.empty(tuple(shape), dtype=torch.float32 if real else torch.int64, device="meta")


def _kind(value: object) -> str:
    sparse = "sparse " if isinstance(value, torch.Tensor) and value.layout is not torch.strided else ""
    empty = " with nothing in it" if isinstance(value, Mapping) and not value else ""
    article = "an" if type(value).__name__[0] in "aeiou" and not sparse else "a"
    return f"{article} {sparse}{type(value).__name__}{empty}"


def misfit(stored: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> str | None:
    """The first difference in name, shape or kind of number between a file's tensors and a model's; None if none."""
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
    return None


def check_size(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse a file with fewer bytes than its tensors have numbers: few bytes repeated would fill the memory."""
    numbers, size = sum(tensor.numel() for tensor in tensors.values()), path.stat().st_size
    if numbers > size:
        raise ValueError(f"{path} is refused: it has {size} bytes for a model of {numbers} weights; fetch it again")
