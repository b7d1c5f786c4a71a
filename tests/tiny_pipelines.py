"""Tiny random text-to-image models as diffusers folders."""

import json
from pathlib import Path

import torch

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def clip_tokenizer(folder: Path, length: int = 12) -> int:
    """Save a CLIP tokenizer of letters; the size of its vocabulary."""
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=length).save_pretrained(
        folder
    )
    return len(words)


def pixel_pipeline(folder: Path, *, seed: int = 0, prediction: str = "v_prediction") -> Path:
    """A U-Net on 8 × 8 RGB pixels, without a VAE, that sees prompts through a CLIP text encoder."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    words = clip_tokenizer(folder / "tokenizer")
    torch.manual_seed(seed)
    diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=4,
    ).save_pretrained(folder / "unet")  # fmt: skip
    CLIPTextModel(CLIPTextConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=words,
        max_position_embeddings=12, eos_token_id=words - 1, bos_token_id=words - 2, pad_token_id=words - 1,
    )).save_pretrained(folder / "text_encoder")  # fmt: skip
    diffusers.DDIMScheduler(
        prediction_type=prediction, beta_schedule="squaredcos_cap_v2", clip_sample=False, steps_offset=1,
        timestep_spacing="trailing",
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
