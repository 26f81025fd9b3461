"""Folders of encoders as others hand them out, with random weights."""

import tokenizers
import torch
import transformers

CONTEXT = 8
WORDS = "a red roof green field blue sea".split()


def word_tokenizer():
    names = {word: row for row, word in enumerate(["<pad>", "<unk>", "<bos>", "<eos>", *WORDS])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(names, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    ends = [("<bos>", 2), ("<eos>", 3)]
    made.post_processor = tokenizers.processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=ends)
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=CONTEXT, **special)


def hugging_face_folder(folder, kind, **of_texts):
    """A folder as `save_pretrained` leaves it, with random weights. of_texts: keys of its text tower's config."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = sizes | ends | {"vocab_size": len(WORDS) + 4, "max_position_embeddings": CONTEXT, "projection_size": 16}
    text |= of_texts
    vision = sizes | {"image_size": 32, "patch_size": 8}
    if kind == "clip":
        model = transformers.CLIPModel(
            transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
        )
        processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    else:
        model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))
        processor = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    for part in (model, processor, word_tokenizer()):
        part.save_pretrained(folder)
    return model.eval()
