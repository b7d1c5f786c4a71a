"""One training step of popmargin's `task: images` against that of diffusers' Diffusion-DPO example, interleaved.

    python benchmarks/images.py --threads 1 --json

Both train a LoRA adapter of rank 8 on the attention of one random Stable-Diffusion-like pipeline, on the same images,
times and noise, in fp32. The peer's step is written here from the example's published algorithm: it encodes images and
prompts in every step, forwards policy and reference (the adapter switched off), and takes log σ of the mean over pairs.
popmargin encodes once, before the first step; with `--draws` fixed draws of every pair it also knows the reference's
errors. The losses that both report are compared pair by pair, before the mean.

Prints CPU seconds of a step (the machine may have other work), the ratio with its spread, the parts of a step apart,
and the largest difference of losses and gradients. `bound` is the ratio if a step were only what both must compute: the
policy forward and backward, the optimizer, and without known errors the reference forward.
"""

import argparse
import copy
import importlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from popmargin.engine.diffusion.draws import Draws
from popmargin.models.pipelines import Pipeline, load_pipeline
from popmargin.objectives.base import Rows
from popmargin.objectives.dpo import DPOOptions, dpo
from popmargin.tasks.image_inputs import ImageInputs, ImagePreferences, ImageReport
from popmargin.tasks.image_options import ImagesOptions
from popmargin.tasks.image_scores import ImageScorer

diffusers: Any = importlib.import_module("diffusers")
BETA = 2000.0
WORDS = ["<pad>", "</s>", *(f"word{number}" for number in range(62))]


def save_pipeline(folder: Path, channels: int, size: int) -> None:
    """A random pipeline in the proportions of Stable Diffusion 1.5.

    U-Net and VAE are 320 and 128 channels wide there, and attention heads 40: narrower ones, more of them, would spend
    most of a step on softmaxes.
    """
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=size // 8,
        block_out_channels=(channels, 2 * channels, 4 * channels),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
        norm_num_groups=8,
        attention_head_dim=max(1, channels // 40),  # heads, in spite of its name
    )
    width = max(4, round(0.1 * channels) * 4)
    vae = diffusers.AutoencoderKL(
        block_out_channels=[width, 2 * width, 4 * width, 4 * width],
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        norm_num_groups=4,
    )
    text = CLIPTextModel(
        CLIPTextConfig(vocab_size=len(WORDS), hidden_size=64, intermediate_size=256, num_hidden_layers=4,
                       num_attention_heads=4, pad_token_id=0, eos_token_id=1, bos_token_id=1)
    )  # fmt: skip
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", model_max_length=77)
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    scheduler = diffusers.DDPMScheduler(**betas, steps_offset=1, clip_sample=False)
    parts = {"unet": unet, "vae": vae, "text_encoder": text, "tokenizer": tokenizer, "scheduler": scheduler}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline"}
    index |= {name: ["transformers" if name in ("text_encoder", "tokenizer") else "diffusers", type(part).__name__]
              for name, part in parts.items()}  # fmt: skip
    index["tokenizer"][1] = "PreTrainedTokenizerFast"
    (folder / "model_index.json").write_text(json.dumps(index))


def adapted(unet: Any) -> Any:
    """A copy with the example's adapter, whose second matrices are no longer zero."""
    torch.manual_seed(1)
    lora = LoraConfig(r=8, lora_alpha=8, target_modules=["to_k", "to_q", "to_v", "to_out.0"])
    model = get_peft_model(copy.deepcopy(unet), lora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
    return model.train()


@dataclass
class Data:
    """Pixels of both images from −1 to 1 (N, 2, 3, H, W), and prompts."""

    pixels: Tensor
    prompts: list[str]

    @staticmethod
    def random(count: int, size: int) -> "Data":
        random = torch.Generator().manual_seed(2)
        pixels = torch.rand(count, 2, 3, size, size, generator=random) * 2 - 1
        return Data(pixels, [f"word{number % 62} word{number % 7} word{number % 11}" for number in range(count)])


class Peer:
    """The step of diffusers' examples/research_projects/diffusion_dpo/train_diffusion_dpo.py."""

    def __init__(self, pipeline: Pipeline, data: Data) -> None:
        self.pipeline, self.data, self.model = pipeline, data, adapted(pipeline.model)
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-5)
        scheduler: Any = pipeline.parts["scheduler"]
        self.scheduler = scheduler

    def step(self, rows: np.ndarray, draws: Draws) -> Tensor:
        vae, scheduler, tokenizer = self.pipeline.vae, self.scheduler, self.pipeline.parts["tokenizer"]
        feature = self.data.pixels[rows].transpose(0, 1).flatten(0, 1)  # all chosen ones, then all rejected ones
        with torch.no_grad():
            latents = [vae.encode(part).latent_dist.mode() for part in feature.split(8)]  # it samples; this is cheaper
            latents = torch.cat(latents) * vae.config.scaling_factor
        noise, times = draws.chosen.repeat(2, 1, 1, 1), draws.times.repeat(2)
        noisy = scheduler.add_noise(latents, noise, times)
        ids = tokenizer([self.data.prompts[row] for row in rows], padding="max_length", max_length=77,
                        truncation=True, return_tensors="pt").input_ids  # fmt: skip
        with torch.no_grad():
            hidden = self.pipeline.parts["text_encoder"](ids).last_hidden_state.repeat(2, 1, 1)
        predicted = self.model(noisy, times, hidden).sample
        losses = (predicted - noise).square().mean((1, 2, 3))
        model_w, model_l = losses.chunk(2)
        with torch.no_grad(), self.model.disable_adapter():
            reference = self.model(noisy, times, hidden).sample
            reference_w, reference_l = (reference - noise).square().mean((1, 2, 3)).chunk(2)
        inside = -0.5 * BETA * ((model_w - model_l) - (reference_w - reference_l))
        loss = -logsigmoid(inside.mean())
        loss.backward()
        self.finish()
        return -logsigmoid(inside.detach())

    def finish(self) -> None:
        self.gradient = torch.cat([parameter.grad.flatten() for parameter in self.trained])  # pyright: ignore
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class Ours(Peer):
    """popmargin's step: encoded inputs, one forward of the policy, the reference live or known."""

    def __init__(self, pipeline: Pipeline, data: Data, draws: int) -> None:
        super().__init__(pipeline, data)
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-5, fused=True)  # transformers' default
        count = len(data.prompts)
        images = torch.cat([pipeline.encode_images(part) for part in data.pixels.flatten(0, 1).split(8)]).numpy()
        text = pipeline.encode_prompts([*data.prompts, ""])
        encoded = ImagePreferences(
            ids=[str(row) for row in range(count)],
            index=list(range(count)),
            report=ImageReport(count, count),
            keys=np.arange(count),
            latents=images,
            chosen=np.arange(count) * 2,
            rejected=np.arange(count) * 2 + 1,
            text={name: values.numpy() for name, values in text.items()},
            prompts=np.arange(count),
            fingerprint="",
        )
        options = ImagesOptions(draws=draws)
        self.scorer = ImageScorer(pipeline, "log_ratio", "fp32", options, pipeline.model)
        errors = None
        if draws:
            with torch.no_grad():
                batches = (ImageInputs(encoded).collate(rows) for rows in np.array_split(np.arange(count), count))
                errors = torch.cat([self.scorer.fixed_errors(pipeline.model, batch) for batch in batches]).numpy()
        self.inputs = ImageInputs(encoded, errors, live=not draws)

    def draws(self, rows: np.ndarray, seed: int) -> Draws:
        """What this side draws in a step, which the other side is given."""
        return self.scorer._draws({"keys": self.inputs.encoded.keys[rows]}, seed)[0]  # pyright: ignore[reportPrivateUsage]

    def train(self, rows: np.ndarray, seed: int) -> Tensor:
        batch = self.inputs.collate(rows)
        scores = self.scorer.score(self.model, batch, torch.Generator().manual_seed(seed), log=True)
        losses = dpo(Rows(chosen=scores.chosen, rejected=scores.rejected), DPOOptions(beta=BETA))
        losses.mean().backward()
        self.finish()
        return losses.detach()


def compare(*, channels: int, size: int, batch: int, steps: int, draws: int, threads: int) -> dict[str, Any]:
    """Steps of both sides in turn; the first one warms up."""
    torch.set_num_threads(threads)
    data = Data.random(batch * (steps + 1), size)
    with tempfile.TemporaryDirectory() as folder:
        save_pipeline(Path(folder), channels, size)
        pipeline = load_pipeline(folder, torch.float32)
    started = time.perf_counter()
    ours, theirs = Ours(pipeline, data, draws), Peer(pipeline, data)
    once = time.perf_counter() - started
    ratios, seconds = list[float](), list[tuple[float, float]]()
    difference = gradient = 0.0
    for number in range(steps + 1):
        rows = np.arange(number * batch, (number + 1) * batch)
        given, taken, values = ours.draws(rows, number), dict[str, float](), dict[str, Tensor]()
        order = ("ours", "theirs") if number % 2 else ("theirs", "ours")
        for side in order:
            begun = time.process_time()
            values[side] = ours.train(rows, number) if side == "ours" else theirs.step(rows, given)
            taken[side] = time.process_time() - begun
        if not number:
            difference = float((values["ours"] - values["theirs"]).abs().max())
            if batch == 1:  # with more pairs the example's mean stands inside log σ, and is another gradient
                gradient = float((ours.gradient - theirs.gradient).norm() / theirs.gradient.norm())
            continue
        ratios.append(taken["theirs"] / taken["ours"])
        seconds.append((taken["ours"], taken["theirs"]))
    parts = parts_of_a_step(ours, np.arange(batch), steps)
    needed = parts["policy"] + parts["optimizer"] + (0.0 if draws else parts["reference"])
    return {
        "setting": {"channels": channels, "size": size, "batch": batch, "draws": draws, "threads": threads},
        "parameters": sum(parameter.numel() for parameter in pipeline.model.parameters()),
        "encoding_seconds": once,
        "cpu_seconds": statistics.median(mine for mine, _ in seconds),
        "peer_cpu_seconds": statistics.median(other for _, other in seconds),
        "speedup": statistics.median(ratios),
        "speedup_spread": [min(ratios), max(ratios)],
        "parts": parts,
        "bound": sum(parts.values()) / needed,
        "loss_abs_diff": difference,
        "grad_rel_diff": gradient,
    }


def parts_of_a_step(side: Ours, rows: np.ndarray, repeats: int) -> dict[str, float]:
    """CPU seconds of the parts of the example's step, each measured alone."""
    pipeline, scorer = side.pipeline, side.scorer
    pixels = side.data.pixels[rows].transpose(0, 1).flatten(0, 1)
    batch = side.inputs.collate(rows)
    asked = scorer._noised(batch, side.draws(rows, 0))  # pyright: ignore[reportPrivateUsage]

    def reference() -> None:
        with torch.no_grad():
            scorer.errors(pipeline.model, asked)

    def optimizer() -> None:
        for parameter in side.trained:
            parameter.grad = torch.zeros_like(parameter)
        side.finish()

    def policy() -> None:
        scorer.errors(side.model, asked).sum().backward()
        side.optimizer.zero_grad()

    def encode_images() -> None:
        for part in pixels.split(8):
            pipeline.encode_images(part)

    def encode_prompts() -> None:
        pipeline.encode_prompts([side.data.prompts[row] for row in rows])

    return {
        run.__name__: _cpu_seconds(run, repeats)
        for run in (encode_images, encode_prompts, policy, reference, optimizer)
    }


def _cpu_seconds(run: Callable[[], None], repeats: int) -> float:
    """The median; the first one warms up."""
    taken: list[float] = []
    for _ in range(repeats + 1):
        begun = time.process_time()
        run()
        taken.append(time.process_time() - begun)
    return statistics.median(taken[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=32, help="of the first level of the U-Net")
    parser.add_argument("--size", type=int, default=128, help="pixels")
    parser.add_argument("--batch", type=int, default=4, help="pairs in a step")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--draws", type=int, default=0, help="popmargin's fixed draws of every pair; 0 draws anew")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    options = {name: value for name, value in vars(args).items() if name != "json"}
    result = compare(**options)
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
