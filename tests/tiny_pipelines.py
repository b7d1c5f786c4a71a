"""Tiny random pipelines in diffusers' format, and preferences between random images, built in code."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from popmargin.data.images import encode_png

WORDS = ["<s>", "<pad>", "</s>", "<unk>", "red", "blue", "green", "square", "circle", "0", "1", "2", "3"]
PROMPTS = ["red square", "blue circle", "green square 3", "red circle"]


def tokenizer(length: int = 8) -> Any:
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=length, **special)


def clip(kind: Any = CLIPTextModel, hidden: int = 16) -> Any:
    sizes = {"hidden_size": hidden, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"vocab_size": len(WORDS), "pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0}
    return kind(CLIPTextConfig(**sizes, **ids, max_position_embeddings=8, projection_dim=hidden)).eval()


def t5(hidden: int = 16) -> Any:
    sizes = {"d_model": hidden, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    return T5EncoderModel(T5Config(vocab_size=len(WORDS), **sizes, dropout_rate=0.0)).eval()


def vae(channels: int = 4, **more: Any) -> Any:
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    return AutoencoderKL(
        block_out_channels=[8, 8], latent_channels=channels, norm_num_groups=4, **blocks, scaling_factor=0.7, **more
    ).eval()


def unet(channels: int = 4, text: int = 16, **more: Any) -> Any:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=text,
        norm_num_groups=4,
        attention_head_dim=8,
        **more,
    )


def pixel_pipeline(prediction: str = "v_prediction") -> Any:
    """A U-Net on 8 × 8 pixels, without a VAE."""
    scheduler = DDPMScheduler(prediction_type=prediction, beta_schedule="squaredcos_cap_v2", clip_sample=False,
                              steps_offset=1)  # fmt: skip
    return StableDiffusionPipeline(None, clip(), tokenizer(), unet(3), scheduler, None, None, None, False)


def sd_pipeline() -> Any:
    """Like Stable Diffusion 1: 16 × 16 pixels, 8 × 8 latents."""
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", steps_offset=1, clip_sample=False)
    return StableDiffusionPipeline(vae(), clip(), tokenizer(), unet(), scheduler, None, None, None, False)


def sdxl_pipeline() -> Any:
    """Like Stable Diffusion XL: two text encoders."""
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    added |= {"projection_class_embeddings_input_dim": 6 * 8 + 16}
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", steps_offset=1, clip_sample=False)
    second = clip(CLIPTextModelWithProjection)
    return StableDiffusionXLPipeline(vae(), clip(), second, tokenizer(), tokenizer(), unet(text=32, **added), scheduler)


def sd3_pipeline() -> Any:
    """Like Stable Diffusion 3: a transformer, a flow, three text encoders, a VAE with a shift."""
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=8,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(shift_factor=0.1),
        text_encoder=clip(CLIPTextModelWithProjection),
        tokenizer=tokenizer(),
        text_encoder_2=clip(CLIPTextModelWithProjection),
        tokenizer_2=tokenizer(),
        text_encoder_3=t5(32),
        tokenizer_3=tokenizer(),
    )


def pixart_pipeline() -> Any:
    """Like PixArt: a transformer that also predicts variances, and T5."""
    transformer = PixArtTransformer2DModel(
        sample_size=8, in_channels=4, out_channels=8, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        cross_attention_dim=16, caption_channels=16, use_additional_conditions=False,
    )  # fmt: skip
    scheduler = DDPMScheduler(beta_schedule="linear", clip_sample=False)
    return PixArtAlphaPipeline(tokenizer(), t5(), vae(), transformer, scheduler)


KINDS = {
    "pixels": pixel_pipeline,
    "sd": sd_pipeline,
    "sdxl": sdxl_pipeline,
    "sd3": sd3_pipeline,
    "pixart": pixart_pipeline,
}


def saved(folder: Path, kind: str = "pixels", seed: int = 0, **options: Any) -> Path:
    """The folder of a tiny pipeline; weights of zero, as in output layers, become random."""
    torch.manual_seed(seed)
    pipeline = KINDS[kind](**options)
    model = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    pipeline.save_pretrained(folder)
    return folder


def write_preferences(folder: Path, count: int = 12, size: int = 8, seed: int = 0) -> str:
    """Preferences for the brighter of two random images, with ratings, as JSONL beside the images."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        pair = [random.integers(0, 256, (size, size, 3)).astype(np.uint8) for _ in range(2)]
        pair.sort(key=lambda pixels: -pixels.mean())
        names = [f"{number}-{side}.png" for side in ("chosen", "rejected")]
        for name, pixels in zip(names, pair, strict=True):
            (folder / name).write_bytes(encode_png(pixels))
        row: dict[str, Any] = {"id": f"p{number}", "prompt": f"{PROMPTS[number % len(PROMPTS)]} {number}"}
        row |= {"chosen": names[0], "rejected": names[1]}
        row |= {"chosen_rating": pair[0].mean() / 255, "rejected_rating": pair[1].mean() / 255}
        rows.append(row)
    file = folder / "preferences.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)
