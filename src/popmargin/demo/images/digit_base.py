"""The base model of the image demo: a small U-Net that draws coloured digits, trained in about a minute.

It is a pipeline folder of diffusers without a VAE, so that its latents are the pixels, from -1 to 1:
`DiffusionPipeline.from_pretrained(folder, vae=None)("red 3", guidance_scale=1, output_type="latent")` draws one.
"""

import math
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm.auto import tqdm

from popmargin.demo.images.digits import COLOURS, SIZE, coloured, load_digits
from popmargin.errors import import_extra
from popmargin.files import whole_folder
from popmargin.models.quiet import quiet_loading

RECIPE = 1
"""Raise it when anything here changes what is trained: models are cached by it."""
STEPS, BATCH, LEARNING_RATE, SEED = 1200, 64, 4e-3, 0
EMPTY_PROMPTS, AVERAGING = 0.1, 0.98
TIMES = 1000
_HIDDEN, _WORDS = 64, 4
_START, _END, _UNKNOWN = "<s>", "</s>", "<unk>"


def digits_base_path() -> Path:
    """The folder of the base model; trained at the first call, with a progress bar, and kept in POPMARGIN_CACHE.

    Raises:
        MissingExtraError: diffusers is not installed.
    """
    import_extra("diffusers", "images")
    folder = demo_cache() / f"demo-digits-{RECIPE}"
    with only_one(folder):
        if not (folder / "model_index.json").is_file():
            pipeline = untrained_pipeline()
            train_base(pipeline, progress=True)
            with whole_folder(folder, replace=True) as partial, quiet_diffusers():
                pipeline.save_pretrained(partial)
    return folder


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


def untrained_pipeline(seed: int = SEED) -> Any:
    """The pipeline with random weights: `StableDiffusionPipeline` without a VAE; U-Net of 0.5 M parameters."""
    from transformers import CLIPTextConfig, CLIPTextModel

    diffusers: Any = import_extra("diffusers", "images")
    with torch.random.fork_rng(devices=[]), quiet_diffusers():
        torch.manual_seed(seed)
        tokenizer = _tokenizer()
        unet = diffusers.UNet2DConditionModel(
            sample_size=SIZE, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(16, 48),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=_HIDDEN, attention_head_dim=4, norm_num_groups=8,
        )  # fmt: skip
        text: Any = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer), hidden_size=_HIDDEN, intermediate_size=2 * _HIDDEN, num_hidden_layers=1,
                num_attention_heads=4, max_position_embeddings=_WORDS, projection_dim=_HIDDEN,
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
        parts: dict[str, Any] = {"unet": unet, "text_encoder": text, "tokenizer": tokenizer, "scheduler": scheduler}
        return diffusers.StableDiffusionPipeline(
            **parts, vae=None, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )


def _tokenizer() -> Any:
    """One token a word: the colours and the digits; prompts have the length 4 with start and end."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = [_START, _END, _UNKNOWN, *COLOURS, *map(str, range(10))]
    vocabulary = {word: number for number, word in enumerate(words)}
    core = Tokenizer(WordLevel(vocabulary, unk_token=_UNKNOWN))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}", special_tokens=[(word, vocabulary[word]) for word in (_START, _END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=_START, eos_token=_END, unk_token=_UNKNOWN, pad_token=_END,
        model_max_length=_WORDS, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def train_base(pipeline: Any, *, steps: int = STEPS, seed: int = SEED, progress: bool = False) -> list[float]:
    """Train U-Net and text encoder on the shipped digits in random colours; the averaged weights are kept.

    v-prediction, times uniform (spread evenly over a batch), one prompt in ten empty; AdamW, warm-up, cosine decay.
    Equal seeds give equal weights on one machine with one number of threads.

    Args:
        pipeline: of `untrained_pipeline`, changed in place.
        steps: of 64 pictures each.
        seed: of pictures, colours, times and noise.
        progress: show a progress bar.

    Returns:
        The loss of each step, the mean squared error of v.
    """
    unet, text = pipeline.unet, pipeline.text_encoder
    params = [*unet.parameters(), *text.parameters()]
    unet.train()
    text.train()
    optimizer = torch.optim.AdamW(params, lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01)
    averaged = [param.detach().clone() for param in params]
    losses: list[float] = []
    batches = _batches(pipeline, np.random.default_rng(seed), torch.Generator().manual_seed(seed))
    for step in tqdm(
        range(steps), desc="demo-digits: training the base model, once", unit="step", disable=not progress
    ):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * _rate(step, steps)
        noisy, times, target, ids = next(batches)
        predicted = unet(noisy, times, encoder_hidden_states=text(ids).last_hidden_state).sample
        loss = torch.nn.functional.mse_loss(predicted, target)
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


def _batches(
    pipeline: Any, numbers: np.random.Generator, draws: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Noisy pictures (B, 3, 8, 8), times (B,), v (B, 3, 8, 8) and token ids (B, 4), without end."""
    digits, names = load_digits(), list(COLOURS)
    levels: Tensor = pipeline.scheduler.alphas_cumprod
    while True:
        rows, colours = numbers.integers(len(digits), size=BATCH), numbers.integers(len(names), size=BATCH)
        chosen = [names[place] for place in colours]
        empty = numbers.random(BATCH) < EMPTY_PROMPTS
        prompts = [
            "" if drop else f"{name} {digit}"
            for drop, name, digit in zip(empty, chosen, digits.labels[rows], strict=True)
        ]
        clean = torch.from_numpy(coloured(digits.light[rows], chosen)).float().movedim(-1, 1) * 2 - 1
        spaced = torch.arange(BATCH) + torch.rand(BATCH, generator=draws)  # evenly over all times: less noise
        times = (spaced * (TIMES / BATCH)).long().clamp(max=TIMES - 1)
        noise = torch.randn(clean.shape, generator=draws)
        signal, spread = (level.sqrt()[:, None, None, None] for level in (levels[times], 1 - levels[times]))
        yield signal * clean + spread * noise, times, signal * noise - spread * clean, token_ids(pipeline, prompts)


def token_ids(pipeline: Any, prompts: Sequence[str]) -> Tensor:
    """Token ids (B, 4) of prompts."""
    encoded = pipeline.tokenizer(
        list(prompts), padding="max_length", max_length=_WORDS, truncation=True, return_tensors="pt"
    )
    return encoded["input_ids"]


@torch.no_grad()
def draw_digits(pipeline: Any, prompts: Sequence[str], *, seed: int, steps: int = 20, batch: int = 280) -> np.ndarray:
    """Pictures (n, 8, 8, 3) from 0 to 1, one for each prompt: DDIM without guidance.

    Args:
        pipeline: as loaded by diffusers, or of `untrained_pipeline`.
        prompts: such as "red 3".
        seed: of the noise.
        steps: of the sampler.
        batch: pictures at once.
    """
    noise = torch.randn((len(prompts), 3, SIZE, SIZE), generator=torch.Generator().manual_seed(seed))
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(steps)
    drawn: list[np.ndarray] = []
    for start in range(0, len(prompts), batch):
        pictures = noise[start : start + batch]
        text = pipeline.text_encoder(token_ids(pipeline, prompts[start : start + batch])).last_hidden_state
        for time in scheduler.timesteps:
            predicted = pipeline.unet(pictures, time, encoder_hidden_states=text).sample
            pictures = scheduler.step(predicted, time, pictures).prev_sample
        drawn.append(((pictures + 1) / 2).clamp(0, 1).movedim(1, -1).double().numpy())
    return np.concatenate(drawn)
