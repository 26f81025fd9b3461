"""Texts and pictures as each family's own library reads them, on the same weights: generated texts, with capitals, full
stops, double spaces and letters that no English caption has."""

import json
import random
import re
import string

import numpy as np
import open_clip
import pytest
import tokenizers
import torch
import transformers
from test_encoder_families import CLIP, COCA, SIGLIP, no_network, open_clip_folder, picture  # noqa: F401

from encoder_folders import hugging_face_folder
from rscir_lib.encoders import CONFIG, load_encoder

WORDS = (
    "a an the roof Roof RED red airport Airports runway many two three white_lines grass-land sea's U.S. N.Y. dense "
    "(oval) [round] storage-tanks, cars. trees; water: 42 1,000 no/none “quoted” naïve Ærø 東京 🛰 & + % ALL CAPS é"
).split()
LONG = 24  # tokens that the towers here read
TEXTS = 60  # of each family


def texts(seed):
    rng = random.Random(seed)
    ends = ["", ".", "!", " .", "...", "?"]
    drawn = [
        rng.choice(["", " "])
        + rng.choice([" ", "  ", "\t"]).join(rng.choices(WORDS, k=rng.randint(1, 6)))
        + ends[i % 6]
        for i in range(TEXTS)
    ]
    return ["Red Roof.", "red roof", "red roof.", "RED ROOF", *drawn]


def trained(normalizer=None):
    """A tokenizer whose tokens are single letters, capitals and stops among them: nothing that differs is lost."""
    letters = sorted({*"".join(WORDS), *string.printable, "\u2581"})
    vocabulary = {token: row for row, token in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", *letters])}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizer or tokenizers.normalizers.Replace(" ", "\u2581")
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split(" ", "merged_with_previous")
    made.post_processor = tokenizers.processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return made


SPECIAL = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
SIZE = 4 + len({*"".join(WORDS), *string.printable, "\u2581"})


def openclip(config, mean=(0.5, 0.5, 0.5)):
    """Folder, then what open_clip makes of it: features of texts, features of a picture."""

    def make(folder):
        named = json.loads(json.dumps(config))
        if "hf_tokenizer_name" in named["text_cfg"]:
            named["text_cfg"] |= {"context_length": 200, "vocab_size": SIZE}
        open_clip_folder(folder, named, mean)
        if "hf_tokenizer_name" in named["text_cfg"]:
            saved = transformers.PreTrainedTokenizerFast(tokenizer_object=trained(), model_max_length=200, **SPECIAL)
            saved.save_pretrained(folder)
        model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
        read = open_clip.get_tokenizer(f"local-dir:{folder}")
        return lambda some: model.encode_text(read(some)), lambda image: model.encode_image(preprocess(image)[None])

    return make


def wide(config, length=LONG):
    return config | {"text_cfg": config["text_cfg"] | {"context_length": length}}


def clip_tokenizer():
    """OpenAI's own, which open_clip brings along, as transformers has it."""
    own = open_clip.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): row for token, row in own.encoder.items()}
    return transformers.CLIPTokenizer(vocabulary, list(own.bpe_ranks), model_max_length=LONG)


def hugging(kind, of_class=None):
    """The same of transformers."""

    def make(folder):
        folder.mkdir()
        sizes = (
            {"vocab_size": 49408, "eos_token_id": 49407, "max_position_embeddings": LONG}
            if kind == "clip"
            else {"vocab_size": SIZE, "max_position_embeddings": 200}
        )
        hugging_face_folder(folder, kind, **sizes)
        for stale in folder.glob("*token*"):
            stale.unlink()
        if kind == "clip":
            clip_tokenizer().save_pretrained(folder)
        else:
            trained().save(str(folder / "tokenizer.json"))
            facts = {"tokenizer_class": of_class, "model_max_length": 200, "padding_side": "right", **SPECIAL}
            (folder / "tokenizer_config.json").write_text(json.dumps(facts))
        model = transformers.AutoModel.from_pretrained(folder).eval()
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
        kinds = transformers.CLIPTokenizer, transformers.PreTrainedTokenizerFast
        read = kinds[kind != "clip"].from_pretrained(folder)

        def own(text):  # what SiglipTokenizer.canonicalize_text and Siglip2Tokenizer's normaliser do, by other means
            if of_class == "SiglipTokenizer":
                return re.sub(r"\s+", " ", re.sub(f"[{re.escape(string.punctuation)}]", "", text.lower())).strip()
            return text.lower()

        def of_texts(some):
            if kind == "clip":
                tokens = read(some, padding=True, return_tensors="pt")
            else:
                tokens = {
                    "input_ids": read([own(t) for t in some], padding="max_length", return_tensors="pt").input_ids
                }
            return model.get_text_features(**tokens).pooler_output

        return of_texts, lambda image: model.get_image_features(**processor(image, return_tensors="pt")).pooler_output

    return make


PE = SIGLIP | {"text_cfg": {key: CLIP["text_cfg"][key] for key in ("vocab_size", "width", "heads", "layers")}}
FAMILIES = {
    "open_clip: CLIP, OpenAI's": openclip(wide(CLIP), (0.48, 0.46, 0.41)),
    "open_clip: CLIP, LAION's": openclip(wide({key: value for key, value in CLIP.items() if key != "quick_gelu"})),
    "open_clip: CoCa": openclip(wide(COCA)),
    "open_clip: PE-Core": openclip(wide(PE, 32)),
    "open_clip: SigLIP": openclip(SIGLIP),
    "open_clip: SigLIP 2": openclip(wide(SIGLIP) | {"vision_cfg": SIGLIP["vision_cfg"] | {"image_size": 96}}),
    "transformers: CLIP": hugging("clip"),
    "transformers: SigLIP": hugging("siglip", "SiglipTokenizer"),
    "transformers: SigLIP 2, as Google saved it": hugging("siglip", "GemmaTokenizer"),
    "transformers: SigLIP 2, as transformers saves it": hugging("siglip", "Siglip2Tokenizer"),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_of_the_familys_own_library(family, tmp_path, no_network, capsys):  # noqa: F811
    of_texts, of_image = FAMILIES[family](tmp_path / "made")
    encoder = load_encoder(tmp_path / "made", device="cpu")
    read, refused = [], 0
    for text in texts(family):
        try:
            encoder.encode_texts([text])
            read.append(text)
        except ValueError as error:  # longer than the tower reads, or nothing but what it leaves out
            refused += "tokens" in str(error) or "blank" in str(error)
    with torch.inference_mode():
        theirs = torch.nn.functional.normalize(of_texts(read), dim=-1).numpy()
        picture_theirs = torch.nn.functional.normalize(of_image(picture()), dim=-1).numpy()
    difference = np.abs(encoder.encode_texts(read) - theirs).max()
    of_picture = np.abs(encoder.encode_images(encoder.preprocess(picture())[None]) - picture_theirs).max()
    with capsys.disabled():
        print(f"\n{family}: {len(read)} texts ({refused} refused), largest difference {difference:.1e}; "
              f"picture {of_picture:.1e}")  # fmt: skip
    assert len(read) > 25
    assert len(read) + refused == len(texts(family))
    assert difference < 1e-5
    assert of_picture < 1e-5
    kinds = len(np.unique(encoder.encode_texts(["Red Roof.", "red roof", "red roof."]).round(4), axis=0))
    assert kinds == (1 if family.endswith("SigLIP") or family == "open_clip: SigLIP 2" else 2)
    assert (tmp_path / "made" / CONFIG).exists() == family.startswith("open_clip")
