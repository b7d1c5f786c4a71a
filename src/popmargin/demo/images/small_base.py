"""What the base models of the image demo share: a small pipeline without a VAE, its training, and drawing with it.

Latents are the pixels, from -1 to 1. Prompts have one token a word.
"""

import math
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm.auto import tqdm

from popmargin.errors import import_extra
from popmargin.files import whole_folder
from popmargin.models.quiet import quiet_loading

TIMES = 1000
EMPTY_PROMPTS, AVERAGING = 0.1, 0.98
_HIDDEN = 64
_START, _END, _UNKNOWN = "<s>", "</s>", "<unk>"


def demo_cache() -> Path:
    """Where what the demo makes is kept."""
    return Path(os.environ.get("POPMARGIN_CACHE", Path.home() / ".cache" / "popmargin")) / "models"


@contextmanager
def only_one(path: Path) -> Generator[None]:
    """Let one process make something that several may want; the others wait for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        yield


@contextmanager
def quiet_diffusers() -> Generator[None]:
    """Without the progress bars of diffusers and transformers, and without the warning that there is no VAE."""
    from diffusers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with quiet_loading():
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def made_once(name: str, make: Callable[[], Any]) -> Path:
    """The folder of a base model in POPMARGIN_CACHE; trained at the first call.

    Args:
        name: of the folder.
        make: gives the trained pipeline.

    Raises:
        MissingExtraError: diffusers is not installed.
    """
    import_extra("diffusers", "images")
    folder = demo_cache() / name
    with only_one(folder):
        if not (folder / "model_index.json").is_file():
            pipeline = make()
            with whole_folder(folder, replace=True) as partial, quiet_diffusers():
                pipeline.save_pretrained(partial)
    return folder


def untrained(unet: Mapping[str, Any], words: Sequence[str], length: int, seed: int) -> Any:
    """A `StableDiffusionPipeline` without a VAE, with random weights and a text encoder of one layer.

    Args:
        unet: options of the U-Net besides those that are common.
        words: that prompts consist of; others are unknown.
        length: of prompts in tokens, with start and end.
        seed: of the weights.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    diffusers: Any = import_extra("diffusers", "images")
    with torch.random.fork_rng(devices=[]), quiet_diffusers():
        torch.manual_seed(seed)
        tokenizer = _tokenizer(words, length)
        model = diffusers.UNet2DConditionModel(
            in_channels=3, out_channels=3, layers_per_block=1, cross_attention_dim=_HIDDEN, attention_head_dim=4,
            norm_num_groups=8, **unet,
        )  # fmt: skip
        text: Any = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer), hidden_size=_HIDDEN, intermediate_size=2 * _HIDDEN, num_hidden_layers=1,
                num_attention_heads=4, max_position_embeddings=length, projection_dim=_HIDDEN,
                bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )  # fmt: skip
        with torch.no_grad():  # words far apart from the start: with the usual 0.02 they are told apart late
            text.get_input_embeddings().weight.normal_(0.0, 1.0)
        scheduler = diffusers.DDIMScheduler(
            num_train_timesteps=TIMES, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction",
            clip_sample=False, timestep_spacing="trailing", steps_offset=1,
        )  # fmt: skip
        parts: dict[str, Any] = {"unet": model, "text_encoder": text, "tokenizer": tokenizer, "scheduler": scheduler}
        return diffusers.StableDiffusionPipeline(
            **parts, vae=None, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )


def _tokenizer(words: Sequence[str], length: int) -> Any:
    """One token a word; prompts have the same length, with start and end."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([_START, _END, _UNKNOWN, *words])}
    core = Tokenizer(WordLevel(vocabulary, unk_token=_UNKNOWN))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}", special_tokens=[(word, vocabulary[word]) for word in (_START, _END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=_START, eos_token=_END, unk_token=_UNKNOWN, pad_token=_END,
        model_max_length=length, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def train(
    pipeline: Any, pictures: Iterator[tuple[Tensor, list[str]]], *, steps: int, rate: float, seed: int, title: str = ""
) -> list[float]:
    """Train U-Net and text encoder; the averaged weights are kept.

    v-prediction, times uniform (spread evenly over a batch); AdamW, warm-up, cosine decay. Equal seeds give equal
    weights on one machine with one number of threads.

    Args:
        pipeline: of `untrained`, changed in place.
        pictures: batches of pictures (B, 3, H, W) from -1 to 1 and their prompts, without end.
        steps: a batch each.
        rate: the learning rate.
        seed: of times and noise.
        title: of the progress bar; none is shown without it.

    Returns:
        The loss of each step, the mean squared error of v.
    """
    unet, text = pipeline.unet, pipeline.text_encoder
    params = [*unet.parameters(), *text.parameters()]
    unet.train()
    text.train()
    optimizer = torch.optim.AdamW(params, lr=rate, betas=(0.9, 0.99), weight_decay=0.01)
    averaged = [param.detach().clone() for param in params]
    losses: list[float] = []
    draws = torch.Generator().manual_seed(seed)
    for step in tqdm(range(steps), desc=title, unit="step", disable=not title):
        for group in optimizer.param_groups:
            group["lr"] = rate * _rate(step, steps)
        clean, prompts = next(pictures)
        noisy, times, target = _noised(clean, pipeline.scheduler.alphas_cumprod, draws)
        hidden = text(token_ids(pipeline, prompts)).last_hidden_state
        loss = torch.nn.functional.mse_loss(unet(noisy, times, encoder_hidden_states=hidden).sample, target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        with torch.no_grad():
            kept = min(AVERAGING, (step + 1) / (step + 10))
            for mean, param in zip(averaged, params, strict=True):
                mean.lerp_(param, 1 - kept)
        losses.append(float(loss.detach()))
    with torch.no_grad():
        for param, mean in zip(params, averaged, strict=True):
            param.copy_(mean)
    unet.eval()
    text.eval()
    return losses


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: 20 steps of warm-up, cosine decay to a twentieth."""
    return min(1.0, (step + 1) / 20) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps)))


def _noised(clean: Tensor, levels: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy pictures (B, 3, H, W), times (B,) and v (B, 3, H, W)."""
    count = len(clean)
    spaced = torch.arange(count) + torch.rand(count, generator=draws)  # evenly over all times: less noise
    times = (spaced * (TIMES / count)).long().clamp(max=TIMES - 1)
    noise = torch.randn(clean.shape, generator=draws)
    signal, spread = (level.sqrt()[:, None, None, None] for level in (levels[times], 1 - levels[times]))
    return signal * clean + spread * noise, times, signal * noise - spread * clean


def token_ids(pipeline: Any, prompts: Sequence[str]) -> Tensor:
    """Token ids (B, length) of prompts."""
    encoded = pipeline.tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt")
    return encoded["input_ids"]


@torch.no_grad()
def draw(
    pipeline: Any, prompts: Sequence[str], *, seed: int, steps: int = 20, batch: int = 280, title: str = ""
) -> np.ndarray:
    """Pictures (n, H, W, 3) from 0 to 1, one for each prompt: DDIM without guidance.

    Args:
        pipeline: as loaded by diffusers, or of `untrained`.
        prompts: one a picture.
        seed: of the noise.
        steps: of the sampler.
        batch: pictures at once.
        title: of the progress bar; none is shown without it.
    """
    side = pipeline.unet.config.sample_size
    noise = torch.randn((len(prompts), 3, side, side), generator=torch.Generator().manual_seed(seed))
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(steps)
    drawn: list[np.ndarray] = []
    for start in tqdm(range(0, len(prompts), batch), desc=title, disable=not title):
        pictures = noise[start : start + batch]
        text = pipeline.text_encoder(token_ids(pipeline, prompts[start : start + batch])).last_hidden_state
        for time in scheduler.timesteps:
            predicted = pipeline.unet(pictures, time, encoder_hidden_states=text).sample
            pictures = scheduler.step(predicted, time, pictures).prev_sample
        drawn.append(((pictures + 1) / 2).clamp(0, 1).movedim(1, -1).double().numpy())
    return np.concatenate(drawn)
