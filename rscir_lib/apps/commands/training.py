"""The recipe: a small CLIP trained from any (image, captions) pairs, with open_clip's own pieces (`rscir train`).

The folder it writes loads by path wherever an encoder name is taken. Interrupted, it goes on, to the same bits.
"""

import io
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save
from tqdm.auto import tqdm, trange
from tqdm.contrib.concurrent import thread_map

from rscir_lib.archive import Archive, read_archive, write_listing
from rscir_lib.benchmarks.base import ValidationReport
from rscir_lib.benchmarks.captions import read_captions
from rscir_lib.encoders import CONFIG, WEIGHTS, load_encoder
from rscir_lib.encoders.checkpoints import misfit, read_tensors
from rscir_lib.features import extract_features, read_features
from rscir_lib.methods import Inversion
from rscir_lib.methods.vocabulary import VOCABULARY, read_vocabulary
from rscir_lib.storage.atomic import remove_unfinished, write_file, write_json, write_text
from rscir_lib.storage.digests import sha256_of, sha256_of_file
from rscir_lib.storage.folders import check_ours
from rscir_lib.storage.locks import folder_lock

LINCIR = "lincir.safetensors"
FUNCTION_WORDS = frozenset(read_vocabulary(VOCABULARY / "function_words.txt"))
CHECKPOINT = "training.pt"  # stands in a folder whose training is unfinished
SIZE = 64  # pixels the encoder sees
POOL_SIZE = 80  # pixels kept per training image: room to zoom
# open_clip's ResNet form and text transformer; 11 MB in float16, 4.7 of them the token embedding
MODEL: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 24, "patch_size": None},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 48, "heads": 2, "layers": 2},
}
PREPROCESS = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}


@dataclass(frozen=True)
class Recipe:
    """A plain contrastive stage of `steps`, of `batch_size` pairs each, and where there is one a `second` stage: a
    dataclass with `steps`, `learning_rate`, and `begin(model, images, tokens)`, which changes the model before it."""

    steps: int
    batch_size: int = 256
    learning_rate: float = 2e-3
    seed: int = 0
    second: Any = None


def train(images: np.ndarray, captions: Sequence[list[str]], folder: Path, recipe: Recipe, card: str = "") -> pd.Series:
    """Train on pairs, write weights, config, loss curve and model card to `folder`, and return the loss of each step.

    Args:
        images: (N, S, S, 3) uint8.
        captions: N lists of texts; a step draws one for each image.
        folder: Where the encoder goes, written ten times on the way; the next call with the same arguments goes on.
        recipe: The stages of training.
        card: What the data are and what the encoder can't do, for the model card.

    Raises:
        ValueError: Where images and captions don't pair up, the loss diverges, or the folder holds something else.
        BlockingIOError: While another process trains there.
    """
    if not 0 < len(images) == len(captions) or not all(captions):
        raise ValueError(f"{len(images)} images for {len(captions)} caption lists; each image needs a caption")
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    check_ours(folder, CONFIG)
    with folder_lock(folder, seconds=0):
        remove_unfinished(folder)
        torch.manual_seed(recipe.seed)
        pairs = _Pairs(images, captions, "cuda" if torch.cuda.is_available() else "cpu")
        task = sha256_of(json.dumps([config, captions, pairs.device, asdict(recipe)]), images)
        write_json(folder / CONFIG, config, indent=2)
        losses = _train(pairs, task, folder, recipe)
        facts = {
            "pairs": f"{len(images)} images, {len(pairs.rows)} captions ({len(pairs.tokens)} distinct)",
            "training": f"{recipe}; AdamW, cosine",
            "device": f"{pairs.device}, {torch.get_num_threads()} threads",
            "versions": ", ".join(f"{package} {version(package)}" for package in ("torch", "open_clip_torch")),
            "sha256": sha256_of_file(folder / WEIGHTS),
        }
        _write_card(folder, card, facts, losses)
        (folder / CHECKPOINT).unlink()
    return losses


class _Pairs:
    """Images with their captions, of which each distinct text is tokenised once."""

    def __init__(self, images: np.ndarray, captions: Sequence[list[str]], device: str) -> None:
        self.images, self.device = images, device
        row_of = {text: row for row, text in enumerate(dict.fromkeys(text for group in captions for text in group))}
        self.tokens = open_clip.SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])(list(row_of))
        self.counts = torch.tensor([len(group) for group in captions])
        self.rows = torch.tensor([row_of[text] for group in captions for text in group])
        self.starts = self.counts.cumsum(0) - self.counts

    def draw(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The images at these positions, changed at random, and the tokens of one caption of each."""
        picked = self.rows[self.starts[batch] + (torch.rand(len(batch)) * self.counts[batch]).long()]
        pixels = torch.from_numpy(self.images[batch.numpy()]).to(self.device)
        return augment(pixels), self.tokens[picked].to(self.device)


def _train(pairs: _Pairs, task: str, folder: Path, recipe: Recipe) -> pd.Series:
    """The loss of each step; the weights lie in the folder."""
    steps, batch_size, second = recipe.steps, recipe.batch_size, recipe.second
    model = open_clip.CLIP(**MODEL).to(pairs.device, memory_format=torch.channels_last)
    parts = {"model": model, **_optimizer(model, steps, recipe.learning_rate)}
    order, losses = torch.empty(0, dtype=torch.long), []
    if past := _read_checkpoint(folder / CHECKPOINT, task, parts, pairs.device):
        order, losses = past["order"], past["losses"]
    total = steps + (second.steps if second else 0)
    progress = trange(len(losses), total, initial=len(losses), total=total, desc="training", unit="step")
    for step in progress:
        if step == steps:
            second.begin(model, *pairs.draw(torch.randperm(len(pairs.images))[:batch_size]))
            parts |= _optimizer(model, second.steps, second.learning_rate)
            order = order[:0]
        model.logit_scale.requires_grad_(step < steps)
        while len(order) < min(batch_size, len(pairs.images)):
            order = torch.cat([order, torch.randperm(len(pairs.images))])
        batch, order = order[:batch_size], order[batch_size:]
        loss = open_clip.ClipLoss()(*model(*pairs.draw(batch)))
        parts["optimizer"].zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # or one odd batch throws the weights far off
        parts["optimizer"].step()
        parts["schedule"].step()
        model.logit_scale.data.clamp_(0, math.log(100))  # as CLIP's; beyond it training is unstable
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise ValueError(f"the loss is {losses[-1]} at step {step}: lower the learning rate")
        progress.set_postfix(loss=f"{losses[-1]:.2f}", refresh=False)
        if (step + 1) % max(1, total // 10) == 0 or step + 1 == total:
            _save(model, pairs.tokens, folder / WEIGHTS)
            _write_checkpoint(folder / CHECKPOINT, task, parts, {"order": order, "losses": losses})
    return pd.Series(losses, name="loss")


def _optimizer(model: torch.nn.Module, steps: int, learning_rate: float) -> dict[str, Any]:
    matrices, vectors = ([p for p in model.parameters() if (p.ndim >= 2) == wanted] for wanted in (True, False))
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}])
    cycle = {"total_steps": steps, "pct_start": 0.051, "cycle_momentum": False}  # 0.05 of 20 would divide by zero
    return {"optimizer": optimizer, "schedule": torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, **cycle)}


def _write_checkpoint(path: Path, task: str, parts: Mapping[str, Any], past: dict) -> None:
    """All that the next step depends on."""
    state = {name: part.state_dict() for name, part in parts.items()}
    random = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
    content = io.BytesIO()  # into a file, torch makes a RuntimeError of Ctrl-C and of a full disk
    torch.save({"task": task, "random": random, **state, **past}, content)
    write_file(path, lambda file: file.write(content.getbuffer()))


def _read_checkpoint(path: Path, task: str, parts: Mapping[str, Any], device: str) -> dict | None:
    """Put the parts and the random numbers back to where they were; returns what else was saved, None if nothing."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if state["task"] != task:
            raise ValueError("it belongs to other images, captions or settings")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["random"]["cpu"].cpu())
        torch.cuda.set_rng_state_all([each.cpu() for each in state["random"]["cuda"]])
    except Exception as error:  # whatever a damaged file makes torch raise
        raise ValueError(f"{path}: can't go on from here ({error}); delete it, or choose another folder") from error
    return {"order": state["order"].cpu(), "losses": state["losses"]}


def augment(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (B, S, S, 3) -> normalised float32 (B, 3, SIZE, SIZE): flips, quarter turns, zoom, shift, light."""
    n, device = len(pixels), pixels.device
    angle = torch.randint(4, (n,), device=device) * (math.pi / 2)
    zoom = 0.85 + 0.15 * torch.rand(n, device=device)
    flip = torch.randint(2, (n,), device=device) * 2 - 1
    shift = (1 - zoom)[:, None] * (torch.rand(n, 2, device=device) * 2 - 1)
    turn = torch.stack([angle.cos() * flip, -angle.sin(), angle.sin() * flip, angle.cos()], 1).view(n, 2, 2)
    theta = torch.cat([turn * zoom[:, None, None], shift[..., None]], 2)
    grid = F.affine_grid(theta, [n, 3, SIZE, SIZE], align_corners=False)
    image = F.grid_sample(pixels.permute(0, 3, 1, 2) / 255, grid, padding_mode="reflection", align_corners=False)
    contrast, light = (torch.rand(2, n, 1, 1, 1, device=device) - 0.5) * 0.3
    image = ((image - 0.5) * (1 + contrast) + 0.5 + light / 2).clamp(0, 1)
    mean, std = (torch.tensor(PREPROCESS[key], device=device).view(3, 1, 1) for key in ("mean", "std"))
    return ((image - mean) / std).contiguous(memory_format=torch.channels_last)


def _save(model: torch.nn.Module, tokens: torch.Tensor, path: Path) -> None:
    """Write the weights in float16; a token that no caption holds carries nothing, not the noise it began with."""
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    seen = torch.zeros(MODEL["text_cfg"]["vocab_size"], 1).index_fill_(0, tokens.unique(), 1.0)
    state["token_embedding.weight"] = state["token_embedding.weight"] * seen
    state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    write_file(path, lambda file: file.write(save(state)))


def _write_card(folder: Path, card: str, facts: dict[str, str], losses: pd.Series) -> None:
    smooth = losses.rolling(max(1, len(losses) // 50), min_periods=1).mean()
    figure = Figure(figsize=(6, 3))
    smooth.plot(ax=figure.subplots(), xlabel="step", ylabel="contrastive loss", title="Training loss, smoothed")
    write_file(folder / "loss.png", partial(figure.savefig, format="png", dpi=100, bbox_inches="tight"))
    table = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    write_text(folder / "README.md", f"{card}\n\n| | |\n| --- | --- |\n{table}\n\n![loss](loss.png)\n")


def thumbnail(picture: Image.Image) -> np.ndarray:
    """(POOL_SIZE, POOL_SIZE, 3) uint8: all that training keeps of an RGB image."""
    return np.asarray(picture.resize((POOL_SIZE, POOL_SIZE), Image.Resampling.BICUBIC))


def split(archive: Archive, share: float = 0.8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Positions for training and held out, each sorted: `share` of every class trains."""
    rng, classes, chosen = np.random.default_rng(seed), np.array(archive.classes), []
    for name in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == name))
        chosen.extend(members[: round(share * len(members))])
    return np.sort(chosen), np.setdiff1d(np.arange(len(archive)), chosen)


def phrases(captions: list[str], rng: np.random.Generator, count: int = 5) -> Iterator[str]:
    """`count` pieces of one to four words from an image's captions: queries are bare words, not sentences."""
    for caption in rng.choice(captions, count):
        words = caption.split()
        start = rng.integers(len(words))
        yield " ".join(words[start : start + rng.integers(1, 5)])


class LinCIR(Inversion):
    """As `inversion`, but the word is phi(image): a network that `train_lincir` has trained on captions alone, so that
    a caption whose keywords are phi(enc(caption) + noise) is encoded as the caption is.

    Gu et al., Language-only training of zero-shot composed image retrieval (LinCIR), CVPR 2024. Other than there:
    keywords are all words but a list of function words (there, nouns and adjectives by a tagger); features have length
    1, and the noise at most about that (there, neither); `an aerial image of *, text` (there, `a photo of $ that`);
    no validation; fewer captions. ValueError for a file that doesn't belong to the encoder.
    """

    name = "lincir"

    def __init__(self, encoder: Any, path: str | Path) -> None:
        super().__init__(encoder)
        self.network, tensors = phi(encoder.dim, encoder.word_size), read_tensors(path := Path(path))
        ours, theirs = encoder.provenance["weights_sha256"], "unknown"
        with suppress(Exception), safe_open(path, "pt") as file:  # whatever a file of something else makes it raise
            theirs = json.loads(file.metadata()["provenance"])["weights_sha256"]
        misfits = misfit(path, tensors, self.network.state_dict())
        problem = misfits if theirs == ours else f"it was trained on an encoder of sha256 {theirs}, not {ours}"
        if problem or not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise ValueError(f"{path} is of no use: {problem or 'it holds NaN or infinity'}: train it again")
        self.network.load_state_dict(tensors)
        self.network.to(encoder.device).eval()

    @torch.inference_mode()
    def invert(self, images: np.ndarray) -> torch.Tensor:
        return self.network(torch.from_numpy(images).float().to(self.encoder.device))


def phi(dim: int, word_size: int) -> torch.nn.Sequential:
    """LinCIR's network, from features (n, dim) to words (n, word_size)."""
    nn, wide = torch.nn, 4 * dim
    first, second = ((nn.Linear(size, wide), nn.GELU(), nn.Dropout(0.5)) for size in (dim, wide))
    return nn.Sequential(*first, *second, nn.Linear(wide, word_size))


def starred(caption: str) -> str:
    """A caption with a star for each run of words that aren't `FUNCTION_WORDS`: `a * of *`."""
    words = (word if word.lower().strip(".,") in FUNCTION_WORDS else "*" for word in caption.split())
    return " ".join(word for word, _ in itertools.groupby(words))


def train_lincir(encoder: Any, captions: Sequence[str], path: Path, steps: int = 2000, seed: int = 0) -> pd.Series:
    """Train the network of `LinCIR` on captions, write it with its provenance, return the loss of each step.

    The loss is the squared distance of a caption's feature to that of the caption with its keywords replaced, mean over
    128 captions. Captions without keywords, and those that hold a star, are left out; ValueError where none is left.
    """
    texts = [text for text in dict.fromkeys(captions) if "*" in starred(text) and "*" not in text]
    if not texts:
        raise ValueError(f"{len(captions)} captions, none with a keyword: nothing to train on")
    torch.manual_seed(seed)
    network = phi(encoder.dim, encoder.word_size).to(encoder.device)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.01)
    features, losses = torch.from_numpy(encoder.encode_texts(texts)).to(encoder.device), []
    for _ in trange(steps, desc="LinCIR", unit="step"):
        batch = torch.randint(len(texts), (128,))
        wanted = features[batch]
        noise = torch.rand(len(batch), 1).to(wanted) * torch.randn_like(wanted) / math.sqrt(encoder.dim)
        got = encoder.encode_pseudo_words([starred(texts[row]) for row in batch.tolist()], network(wanted + noise))
        optimizer.zero_grad()
        (loss := (got - wanted).square().sum(dim=1).mean()).backward()
        optimizer.step()
        losses.append(loss.item())
    facts = {"recipe": "LinCIR", "captions": f"{len(texts)}, sha256 {sha256_of(json.dumps(texts))}"}
    facts |= {"steps": f"{steps}, seed {seed}", **encoder.provenance}  # one text: several have no order
    write_file(path, lambda file: file.write(save(network.cpu().state_dict(), {"provenance": json.dumps(facts)})))
    return pd.Series(losses, name="loss")


def adapt(
    root: str | Path, captions_file: str | Path, folder: Path, epochs: int = 90, lincir: bool = False
) -> pd.Series:
    """Train on 80 % of every class of an archive; return the zero-shot class accuracy on the rest.

    No class is trained on. It is asked for by the captions of its training images, by its name where they have none;
    images without a class are left out of the accuracy. Interrupted, it goes on from the last checkpoint. Writes to
    `folder` the encoder, `train.csv` and `heldout.csv` in the format of patternnet.csv, and with `lincir` the network
    of `LinCIR`, trained on those of the same captions that have a keyword and are no longer than it reads.
    """
    archive, folder, report = read_archive(root), Path(folder), ValidationReport()
    captions = read_captions(captions_file, archive, report=report)
    for _, _, subject, problem in report.rows:
        tqdm.write(f"{captions_file}: {subject}: {problem}")
    train_on, held_out = split(archive)
    used = [i for i in train_on if captions[i]]
    if lincir:  # checked before the encoder's training, which takes long
        tokens, most = open_clip.SimpleTokenizer().encode, MODEL["text_cfg"]["context_length"] - 2  # but start and end
        said = [caption for i in used for caption in captions[i]]
        short = [text for text in said if "*" in starred(text) and "*" not in text and 0 < len(tokens(text)) <= most]
        if not short:
            raise ValueError(f"{captions_file}: add a caption with a keyword, no *, at most {most} tokens for LinCIR")
        tqdm.write(f"LinCIR learns from {len(short)} captions of {len(said)}: with a keyword, at most {most} tokens")
    tqdm.write(f"training on {len(used)} images of {len(archive)}; {len(train_on) - len(used)} more have no caption")
    with folder_lock(folder, seconds=0):
        images = thread_map(lambda position: thumbnail(archive.read(position)), used, desc="reading", unit="image")
        rng = np.random.default_rng(0)
        texts = [[*captions[i], *phrases(captions[i], rng)] for i in used]
        what = f"A small CLIP trained from scratch on {len(used)} images and their captions. It knows the words of"
        card = f"# Encoder adapted to {archive.name}\n\n{what} these captions and nothing else."
        train(np.stack(images), texts, folder, Recipe(max(epochs, epochs * len(used) // 256)), card)
        for file, part in (("train.csv", train_on), ("heldout.csv", held_out)):
            write_listing(archive.subset(part), folder / file)
        encoder = load_encoder(folder)
        if lincir:
            train_lincir(encoder, short, folder / LINCIR)
        rest = archive.subset(i for i in held_out if archive.classes[i])
        classes = sorted(set(archive.classes) - {""})
        if len(classes) < 2 or not len(rest):
            tqdm.write(f"{archive.name} has {len(classes)} classes, {len(rest)} held-out images of them: no accuracy")
            return pd.Series(dtype=float, name="held-out accuracy")
        features = read_features(extract_features(rest, encoder, folder / "features", overwrite=True)).feats
    prompts = (sorted({c for i in used if archive.classes[i] == k for c in captions[i]}) or [k] for k in classes)
    means = np.stack([encoder.encode_texts(prompt).mean(axis=0) for prompt in prompts])  # each stands for its class
    nearest = (features @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(axis=1)
    accuracy = np.mean(np.array(classes)[nearest] == np.array(rest.classes))
    return pd.Series({"class by its training captions": accuracy, "chance": 1 / len(classes)}, name="held-out accuracy")
