"""popmargin's trainer and TRL's, each in a process of its own that trains step by step when it is told to.

A step is one optimizer step as a user's run has it: fetching and collating the batch, forward, backward, gradient
clipping, AdamW, and logging the metrics of the step.
"""

import dataclasses
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from popmargin.engine.memory_pages import use_huge_pages

_GRADIENT_VALUES = 200_000_000  # most that are compared


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What both sides have to do.

    Attributes:
        model: a key of `models.SHAPES`.
        dtype: fp32, or bf16 (autocast; the frozen weights under LoRA are kept in bf16).
        lora: train an adapter instead of all weights.
        batch: preferences in an optimizer step.
        tokens_per_batch: popmargin's token budget of a forward pass; None for one pass a step.
        statistics: popmargin also logs entropy and top-1 agreement, as TRL always does.
        compile: popmargin runs with `compile` on.
        reference: cached, or scored by the model itself in every step (TRL only).
        threads: CPU threads.
    """

    model: str = "smollm2"
    dtype: str = "fp32"
    lora: bool = False
    batch: int = 4
    tokens_per_batch: int | None = None
    statistics: bool = True
    compile: bool = False
    reference: str = "cached"
    objective: str = "dpo"
    target: str = "ema"
    threads: int = 2


class Side:
    """A trainer in another process.

    Args:
        name: popmargin or trl.
        setting: what to train.
        pairs: the preferences, in the order in which they are trained on.
        reference: token log-probs of the reference: chosen ones, rejected ones.
    """

    def __init__(self, name: str, setting: Setting, pairs: Any, reference: tuple[list[Any], list[Any]]) -> None:
        self.name = name
        self._pipe, other = multiprocessing.Pipe()
        context = multiprocessing.get_context("forkserver" if torch.cuda.is_available() else "spawn")
        self._process = context.Process(target=_run, args=(name, setting, pairs, reference, other), daemon=True)
        self._process.start()
        other.close()

    def step(self) -> dict[str, Any]:
        """Train one step: seconds, loss, peak memory so far (MB)."""
        self._pipe.send("step")
        return self._pipe.recv()

    def gradient(self) -> np.ndarray:
        """The gradient of the first step, after clipping was left out."""
        self._pipe.send("gradient")
        return np.load(self._pipe.recv())

    def close(self) -> None:
        self._process.kill()
        self._process.join()


def _run(name: str, setting: Setting, pairs: Any, reference: Any, pipe: Connection) -> None:
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TRL_EXPERIMENTAL_SILENCE": "1"}
    if name == "popmargin":
        use_huge_pages()  # as the command line does
    import warnings

    warnings.simplefilter("ignore")
    torch.set_num_threads(setting.threads)
    with tempfile.TemporaryDirectory() as folder:
        make = {"popmargin": make_popmargin, "trl": make_trl}[name]
        trainer = make(setting, pairs, reference, Path(folder))
        trainer.add_callback(_obedient(trainer, pipe, Path(folder)))
        pipe.recv()
        trainer.train()


def arguments(setting: Setting, folder: Path) -> dict[str, Any]:
    """What both trainers are told."""
    import torch

    return {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": setting.batch,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 1,
        "learning_rate": 1e-6,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1e9,  # measured, not clipped, so that gradients can be compared
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
    }


def tokenized_pairs(pairs: Any) -> Any:
    """The preferences as our engine takes them."""
    from popmargin.data.ragged import Ragged
    from popmargin.data.tokenize import TokenizedPreferences, TruncationReport

    count = len(pairs)
    return TokenizedPreferences(
        ids=[str(i) for i in range(count)],
        prompt=Ragged.of([ids.tolist() for ids in pairs.prompt]),
        chosen=Ragged.of([ids.tolist() for ids in pairs.chosen]),
        rejected=Ragged.of([ids.tolist() for ids in pairs.rejected]),
        index=np.arange(count),
        report=TruncationReport(rows_in=count, rows_kept=count),
    )


def make_popmargin(setting: Setting, pairs: Any, reference: Any, folder: Path) -> Any:
    """Our trainer, as `popmargin train` makes it."""
    import torch
    from transformers import TrainingArguments

    from popmargin.config import RunConfig
    from popmargin.engine.batch import TokenInputs
    from popmargin.engine.compiled import compile_layers
    from popmargin.engine.logps import forward_plan
    from popmargin.engine.reference import ReferenceLogps
    from popmargin.engine.target import EMATarget, MarginBank, PolicyTarget
    from popmargin.models.saved import write_model
    from popmargin.tasks.log_probs import LanguageScorer
    from popmargin.training.batches import Collator, TrainingRows
    from popmargin.training.build import make_loss
    from popmargin.training.trainer import PreferenceTrainer

    count = len(pairs)
    tokenized = tokenized_pairs(pairs)
    model = _policy(setting)
    loss = make_loss(RunConfig(objective={"name": setting.objective}))
    rows = TrainingRows.of_preferences(count)
    if loss.objective.needs.edges:
        weaker = np.random.default_rng(0).permutation(count)
        rows = TrainingRows.of_edges(np.arange(count), np.where(weaker == np.arange(count), -1, weaker), count,
                                     everyone=False)  # fmt: skip
        targets = {
            "ema": lambda: EMATarget(model, 0.99),
            "policy": PolicyTarget,
            "bank": lambda: MarginBank(torch.zeros(count), 0.99),
        }
        if loss.objective.needs.weaker == "target":
            loss = dataclasses.replace(loss, target=targets[setting.target]())
    plan = forward_plan(model)
    collator = Collator(
        rows=rows,
        inputs=TokenInputs(tokenized, 2, plan.layout, cached={"reference": ReferenceLogps(*reference)}),
        columns={},
        weaker=loss.objective.needs.weaker,
        target_forward=loss.target.forward if loss.target is not None else "none",
        tokens_per_batch=setting.tokens_per_batch,
    )
    if setting.compile:
        compile_layers(model)
    trainer = PreferenceTrainer(
        model=model,
        args=TrainingArguments(
            **arguments(setting, folder),
            logging_nan_inf_filter=False,  # as `popmargin train` has these two
            accelerator_config={"non_blocking": torch.cuda.is_available()},
        ),
        loss=loss,
        collator=collator,
        scorer=LanguageScorer(plan, loss.kind, setting.dtype, statistics=setting.statistics),
        write=partial(write_model, own_names=True),
    )
    return _in_order(trainer, count)


def make_trl(setting: Setting, pairs: Any, reference: Any, folder: Path) -> Any:
    """TRL's DPOTrainer on the same token ids; its own tokenization is left out."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from models import make_model, make_tokenizer

    cached = setting.reference == "cached"
    data = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    base = None if cached or setting.lora else make_model(setting.model, _base_dtype(setting))
    trainer = DPOTrainer(
        model=_policy(setting),
        ref_model=base,
        args=DPOConfig(
            **arguments(setting, folder),
            beta=0.1,
            bf16=setting.dtype == "bf16",
            gradient_checkpointing=False,
            max_length=None,
            precompute_ref_log_probs=cached,
        ),
        processing_class=make_tokenizer(),
        train_dataset=data,
    )
    rows = [
        {"prompt_ids": p.tolist(), "chosen_ids": c.tolist(), "rejected_ids": r.tolist()}
        for p, c, r in zip(pairs.prompt, pairs.chosen, pairs.rejected, strict=True)
    ]
    if cached:
        for row, chosen, rejected in zip(rows, *reference, strict=True):
            row |= {"ref_chosen_logps": float(chosen.sum()), "ref_rejected_logps": float(rejected.sum())}
    trainer.train_dataset = Dataset.from_list(rows)
    return _in_order(trainer, len(rows))


def _base_dtype(setting: Setting) -> Any:
    import torch

    return torch.bfloat16 if setting.lora and setting.dtype == "bf16" else torch.float32


def _policy(setting: Setting) -> Any:
    from models import make_model, perturb, with_adapter
    from popmargin.models.policies import device

    model = make_model(setting.model, _base_dtype(setting)).to(device())
    if setting.lora:
        return with_adapter(model.requires_grad_(False))
    perturb(model)
    return model


def _in_order(trainer: Any, count: int) -> Any:
    from torch.utils.data import SequentialSampler

    trainer._get_train_sampler = lambda *_: SequentialSampler(range(count))
    step = trainer.training_step

    def training_step(*args: Any, **kwargs: Any) -> Any:
        trainer.last_loss = step(*args, **kwargs)  # what is logged is rounded
        return trainer.last_loss

    trainer.training_step = training_step
    return trainer


def _obedient(trainer: Any, pipe: Connection, folder: Path) -> Any:
    """Waits for the word before every step and tells about it afterwards; keeps the first step's gradient."""
    import torch
    from transformers import TrainerCallback

    from popmargin.training.memory import peak_megabytes, reset_peak

    class Obedient(TrainerCallback):
        started = time.perf_counter()

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 0:
                parameters = [p for p in kwargs["model"].parameters() if p.grad is not None]
                every = 1 + sum(p.numel() for p in parameters) // _GRADIENT_VALUES  # of a large model, a part
                grads = [p.grad.flatten()[::every].float().cpu() for p in parameters]
                np.save(folder / "gradient.npy", torch.cat(grads).numpy())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - self.started
                pipe.send({"seconds": seconds, "loss": float(trainer.last_loss), "peak_mb": peak_megabytes()})
                word = pipe.recv()
                if word == "gradient":
                    pipe.send(str(folder / "gradient.npy"))
                    word = pipe.recv()
                reset_peak()
                self.started = time.perf_counter()

    return Obedient()
