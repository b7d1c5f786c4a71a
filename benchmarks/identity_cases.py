"""What `identity.py` trains: tiny models and data, built in code, and the settings of every case."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = "the sky is blue and warm light falls on quiet green hills where old birds sing about rain"
WORDS = TEXT.split()
TARGETED = ("pop", "simpo_pop")
"""Objectives whose weaker sides a target scores; each is run with every kind of target."""
TARGETS = ("ema", "policy", "bank")
SAVED_AT, KILLED_AT, STEPS = 2, 3, 4

Values = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One training run.

    Attributes:
        name: `objective/weights/task`, with the target where there is one, or `group: what is special`.
        settings: what differs from `BASE`.
        evaluate: also run `popmargin eval`.
        flags: of that.
        resume: also train it from what a kill would have left.
        quick: also in the short selection.
        verb: `train`, or `compare`, for which `settings` are the study.
    """

    name: str
    settings: Values
    evaluate: bool = False
    flags: tuple[str, ...] = ()
    resume: bool = True
    quick: bool = False
    verb: str = "train"


BASE: Values = {
    "name": "run",
    "output": "run",
    "model": {"path": "llama"},
    "data": {"train": "rows.jsonl", "test_size": 6, "max_length": 96},
    "train": {
        "batch_size": 4,
        "learning_rate": 1e-3,
        "max_steps": STEPS,
        "save_steps": SAVED_AT,
        "save_total_limit": 5,
        "scheduler": "cosine",
        "warmup_ratio": 0.0,
    },
    "target": {"tau": 0.5},
    "evaluation": {"max_new_tokens": 6, "prompts": 3, "tokens_per_batch": 64},
}
LORA: Values = {"model": {"lora_rank": 2}}
WEIGHTS = {"full": Values(), "lora": LORA}


def merged(base: Mapping[str, Any], *changes: Mapping[str, Any]) -> Values:
    """Nested values with others put over them."""
    result = dict(base)
    for change in changes:
        for key, value in change.items():
            old = result.get(key)
            result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def table_cases(objectives: list[str]) -> Iterator[Case]:
    """Every objective x weights x target x task."""
    for number, name in enumerate(objectives):
        for target in TARGETS if name in TARGETED else ("",):
            for weights, change in WEIGHTS.items():
                for task in ("policy", "reward"):
                    settings = merged(change, {"objective": {"name": name}, "task": task})
                    if target:
                        settings = merged(settings, {"target": {"kind": target}})
                    label = f"{name} ({target})" if target else name
                    # In the short selection every objective once, half of them with an adapter; targets as rewards too.
                    short = weights == ("full", "lora")[number % 2] and (task == "policy" or bool(target))
                    yield Case(f"{label}/{weights}/{task}", settings, evaluate=True, quick=short)


@dataclass
class _Special:
    group: str
    objective: str | Values
    what: str
    settings: Values = field(default_factory=Values)
    evaluate: bool = False
    flags: tuple[str, ...] = ()
    resume: bool = True
    quick: bool = False

    def case(self) -> Case:
        objective = {"name": self.objective} if isinstance(self.objective, str) else self.objective
        name = f"{self.group}: {objective['name']}, {self.what}"
        return Case(
            name, merged({"objective": objective}, self.settings), self.evaluate, self.flags, self.resume, self.quick
        )


def special_cases() -> Iterator[Case]:
    """Margins, token selectors, regularizers, edges, batches, data, models, evaluation and a study."""
    for special in (
        *_margins(),
        *_tokens_and_regularizers(),
        *_edges(),
        *_batches(),
        *_options(),
        *_data(),
        *_models(),
    ):
        yield special.case()
    for special in _evaluations():
        yield special.case()
    arms = {"dpo": {"objective": {"name": "dpo"}}, "pop": {"objective": {"name": "pop"}}}
    base = merged(BASE, {"train": {"save_steps": 0}, "evaluation": {"curve_points": 2, "reward": "reward.py:vowels"}})
    base = {key: value for key, value in base.items() if key not in ("name", "output")}
    study = {"output": "run", "seeds": [0], "baseline": "dpo", "arms": arms, "base": base}
    yield Case("study: dpo and pop, curves and generations", study, resume=False, verb="compare")


def _margins() -> Iterator[_Special]:
    group, pop = "margin", {"margin": {"source": "pop"}}
    yield _Special(group, "dpo", "fixed", {"margin": {"source": "fixed", "value": 0.5}}, evaluate=True)
    yield _Special(group, "hinge", "ratings", {"margin": {"source": "ratings", "scale": 0.5}}, quick=True)
    yield _Special(group, "dpo", "ratings, reward", {"margin": {"source": "ratings"}, "task": "reward"})
    for kind in TARGETS:
        target = {"target": {"kind": kind}}
        yield _Special(group, "dpo", f"pop, {kind}", merged(pop, target), quick=kind == "ema")
        yield _Special(group, "ipo", f"pop, {kind}, LoRA", merged(pop, target, LORA))
        yield _Special(group, "aps", f"pop, {kind}, reward", merged(pop, target, {"task": "reward"}))
    yield _Special(group, "simpo", "pop, bank", merged(pop, {"target": {"kind": "bank"}}))
    yield _Special(group, "pop", "pop (refused)", pop)
    yield _Special(group, "cdpo", "fixed (refused)", {"margin": {"source": "fixed"}})


def _tokens_and_regularizers() -> Iterator[_Special]:
    group, selective = "tokens", {"tokens": {"name": "selective"}}
    rescaled = {"tokens": {"name": "selective", "share": 0.6, "rescale": True, "reference": "other"}}
    yield _Special(group, "dpo", "selective", selective, evaluate=True, quick=True)
    yield _Special(group, "pop", "selective, another model's, LoRA", merged(rescaled, LORA))
    yield _Special(group, "simpo", "selective", selective)
    yield _Special(group, "orpo", "selective (refused)", selective)
    group = "regularizer"
    sft, budget = {"name": "sft", "weight": 0.2}, {"name": "budget", "weight": 0.5, "budget": 0.01}
    center = {"name": "center", "weight": 0.1}
    yield _Special(group, "dpo", "sft", {"regularizers": [sft]}, quick=True)
    yield _Special(group, "simpo", "budget", {"regularizers": [budget]})
    yield _Special(group, "pop", "sft and budget, LoRA", merged({"regularizers": [sft, budget]}, LORA))
    yield _Special(group, "pop", "center, reward", {"regularizers": [center], "task": "reward"}, quick=True)
    yield _Special(group, "dpo", "center (refused)", {"regularizers": [center]})
    yield _Special(group, "cpo", "sft (refused)", {"regularizers": [sft]})


def _edges() -> Iterator[_Special]:
    group, clustered = "edges", {"train": {"edge_batching": "clustered"}}
    yield _Special(group, "pop", "clustered", clustered, quick=True)
    yield _Special(group, "pop_rank", "clustered, LoRA", merged(clustered, LORA))
    yield _Special(group, "pop", "clustered, reward", merged(clustered, {"task": "reward"}))
    yield _Special(group, "pop", "random, k 2", {"pop": {"sampling": "random", "k": 2}})
    yield _Special(group, "pop_rank", "active", {"pop": {"sampling": "active", "k": 2}})
    yield _Special(group, "dpo_stronger", "flipped, noisy", {"pop": {"flip": 0.2, "temperature": 0.5, "seed": 3}})
    yield _Special(group, "pop", "unmatched dropped, budget", {"pop": {"unmatched": "drop", "budget": 2}})
    yield _Special(group, "pop_lagrangian", "random", {"pop": {"sampling": "random"}})
    yield _Special(group, "pop_scale", "random", {"pop": {"sampling": "random", "k": 3, "ridge": 0.3}})


def _batches() -> Iterator[_Special]:
    group = "batches"
    micro, packed = {"train": {"micro_batch_size": 2}}, {"train": {"tokens_per_batch": 90}}
    yield _Special(group, "pop", "micro-batches", micro, quick=True)
    yield _Special(group, "amapo", "micro-batches", micro)
    yield _Special(group, "dpo", "tokens_per_batch", packed, quick=True)
    yield _Special(group, "pop", "tokens_per_batch, bank", merged(packed, {"target": {"kind": "bank"}}))
    yield _Special(group, "pop", "tokens_per_batch, ema, LoRA", merged(packed, LORA))
    yield _Special(
        group, "pop_rank", "tokens_per_batch, clustered", merged(packed, {"train": {"edge_batching": "clustered"}})
    )
    yield _Special(group, "pop", "tokens_per_batch, reward", merged(packed, {"task": "reward"}))
    yield _Special(group, "amapo", "tokens_per_batch (refused)", packed)
    yield _Special(group, "pop", "gradient checkpointing", {"train": {"gradient_checkpointing": True}})
    yield _Special(group, "dpo", "weight decay, clipping", {"train": {"weight_decay": 0.5, "max_grad_norm": 0.01}})


def _options() -> Iterator[_Special]:
    group = "options"
    yield _Special(group, {"name": "amapo", "running": 0.5, "label_smoothing": 0.1}, "running statistics")
    yield _Special(group, {"name": "amapo", "convention": "paper"}, "paper's convention")
    yield _Special(group, {"name": "aps", "regularizer": "quadratic", "tau_max": 2.0}, "quadratic")
    yield _Special(group, {"name": "ipo", "length_normalized": True}, "length-normalized")
    yield _Special(group, {"name": "pop", "margin_min": -1.0, "margin_max": 0.05, "beta": 0.5}, "clipped")
    authors = {"name": "pop_lagrangian", "lambda_lr": 0.5, "ascent": "authors", "window": 3}
    yield _Special(group, authors, "authors' ascent, LoRA", LORA)
    yield _Special(group, {"name": "pop_lagrangian", "lambda_lr": 0.5}, "steep, reward", {"task": "reward"})
    yield _Special(group, {"name": "pop_scale", "use": "margin", "unit": 0.5}, "margin")
    yield _Special(group, {"name": "pop_scale", "use": "squared"}, "squared, reward", {"task": "reward"})
    spa = {"name": "spa", "window": 8, "quantile": 0.3, "alpha": 0.5, "warm_share": 0.0}
    yield _Special(group, spa, "short window", {"train": {"micro_batch_size": 2}})
    yield _Special(group, {**spa, "decoupling": 0.0}, "not de-coupled, reward", {"task": "reward"})
    yield _Special(group, {"name": "dpo", "beta": 0.0}, "no beta (refused)")


def _data() -> Iterator[_Special]:
    group = "data"
    ratings = {"data": {"soft_label_temperature": 1.0}}
    yield _Special(group, "geometric_dpo", "soft labels of ratings", ratings)
    yield _Special(group, "dpo", "flips, limit", {"data": {"flip": 0.3, "limit": 9, "split_seed": 2}}, evaluate=True)
    yield _Special(group, "dpo", "cut rows", {"data": {"max_length": 30}}, evaluate=True)
    yield _Special(group, "pop", "validation rows", {"data": {"validation_size": 4}}, evaluate=True)
    yield _Special(group, "pop", "rated responses, all pairs", {"data": {"train": "rated.jsonl", "pairs": "all"}})
    yield _Special(group, "dpo", "no strengths", {"data": {"train": "plain.jsonl"}}, evaluate=True)
    yield _Special(group, "pop", "no strengths (refused)", {"data": {"train": "plain.jsonl"}})
    yield _Special(group, "dpo_rating_margin", "no ratings (refused)", {"data": {"train": "plain.jsonl"}})
    yield _Special(group, "cdpo", "no soft labels (refused)", {"data": {"train": "plain.jsonl"}})


def _models() -> Iterator[_Special]:
    group = "model"
    top = {"model": {"lora_rank": 2, "lora_last_layers": 1}}
    yield _Special(
        group, "pop", "LoRA dropout, alpha", {"model": {"lora_rank": 2, "lora_dropout": 0.2, "lora_alpha": 8}}
    )
    yield _Special(group, "pop", "last layer, frozen cache", merged(top, {"train": {"frozen_cache_gb": 0.1}}))
    yield _Special(group, "dpo", "last layer", top)
    yield _Special(group, "dpo", "token statistics", {"train": {"token_statistics": True}}, quick=True)
    yield _Special(group, "pop", "another reference", {"reference": {"model": "other"}}, evaluate=True)
    yield _Special(group, "dpo", "another seed", {"seed": 5})
    yield _Special(group, "pop", "GPT-2 with dropout", {"model": {"path": "gpt2", "dropout": True}})
    yield _Special(group, "pop", "GPT-2, reward, LoRA", merged({"model": {"path": "gpt2"}, "task": "reward"}, LORA))
    yield _Special(group, "pop", "sliding window", {"model": {"path": "mistral"}}, evaluate=True)
    yield _Special(group, "dpo", "sliding window, reward", {"model": {"path": "mistral"}, "task": "reward"})
    yield _Special(group, "pop", "no mask for packing", {"model": {"path": "bloom"}}, evaluate=True)
    yield _Special(group, "dpo", "no mask for packing, reward", {"model": {"path": "bloom"}, "task": "reward"})
    yield _Special(group, "dpo", "recurrent", {"model": {"path": "mamba"}})
    yield _Special(group, "pop", "bf16, LoRA", merged({"model": {"precision": "bf16"}}, LORA))


def _evaluations() -> Iterator[_Special]:
    group, reward = "eval", ("--evaluation.reward", "reward.py:vowels")
    other = ("--data.test", "held_out.jsonl", "--evaluation.pop_k", "1")
    yield _Special(
        group, "pop", "generations", evaluate=True, flags=(*reward, "--evaluation.samples", "2"), resume=False
    )
    yield _Special(group, "simpo", "generations, LoRA", LORA, evaluate=True, flags=reward, resume=False)
    yield _Special(group, "dpo", "other data", evaluate=True, flags=other, resume=False)
    yield _Special(group, "dpo", "other data, reward", {"task": "reward"}, evaluate=True, flags=other, resume=False)


def build_inputs(folder: Path) -> None:
    """Models, a tokenizer, data and a reward file; the same at every call."""
    tokenizer = _tokenizer()
    for name, model in _models_to_save(len(tokenizer)).items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    _write(folder / "rows.jsonl", rows(20, seed=7))
    _write(folder / "held_out.jsonl", rows(6, seed=8, mark="other"))
    plain = [{name: row[name] for name in ("id", "prompt", "chosen", "rejected")} for row in rows(20, seed=7)]
    _write(folder / "plain.jsonl", plain)
    _write(folder / "rated.jsonl", rated_responses(12))
    (folder / "reward.py").write_text(
        "def vowels(prompts, completions):\n"
        "    return [sum(c in 'aeiou' for c in text) / max(len(text), 1) for text in completions]\n",
        encoding="utf-8",
    )


def _write(path: Path, values: list[Values]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in values), encoding="utf-8")


def rows(count: int, *, seed: int, mark: str = "") -> list[Values]:
    """Preferences of different lengths with ratings and soft labels, a few of these below one half."""
    random = np.random.default_rng(seed)
    made: list[Values] = []
    for number in range(count):
        label = round(0.35 + 0.6 * number / count, 3)
        better, worse = round(3 + 2 * random.random(), 3), round(3 * random.random(), 3)
        ratings = (better, worse) if label >= 0.5 else (worse, better)
        made.append(
            {
                "id": f"{mark}p{number:03d}",
                "prompt": f"{_text(random, 1, 5)} {mark}{number}?",
                "chosen": f"{_text(random, 1, 8)} fine.",
                "rejected": f"{_text(random, 1, 8)} poor.",
                "chosen_rating": ratings[0],
                "rejected_rating": ratings[1],
                "soft_label": label,
            }
        )
    return made


def rated_responses(count: int) -> list[Values]:
    """Prompts with three rated responses each."""
    random = np.random.default_rng(9)
    return [
        {
            "prompt": f"{_text(random, 1, 5)} {number}?",
            "responses": [f"{_text(random, 1, 8)} {side}." for side in ("one", "two", "three")],
            "ratings": [round(5 * random.random(), 3) for _ in range(3)],
        }
        for number in range(count)
    ]


def _text(random: np.random.Generator, least: int, most: int) -> str:
    return " ".join(random.choice(WORDS, size=int(random.integers(least, most))))


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    core.decoder = decoders.ByteLevel()
    special = ["<pad>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<pad>", additional_special_tokens=["<|im_start|>"]
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _models_to_save(vocabulary: int) -> dict[str, Any]:
    import torch
    from transformers import (
        BloomConfig,
        BloomForCausalLM,
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        MambaConfig,
        MambaForCausalLM,
        MistralConfig,
        MistralForCausalLM,
    )

    ids = {"vocab_size": vocabulary, "eos_token_id": 2, "pad_token_id": 0, "bos_token_id": 1, "initializer_range": 0.1}
    layers = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    makers: dict[str, Any] = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**ids, **layers, **heads)),
        "other": lambda: LlamaForCausalLM(LlamaConfig(**ids, **layers, **heads)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**ids, **layers, **heads, sliding_window=8)),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**ids, n_embd=32, n_layer=2, n_head=4, n_positions=256)),
        "bloom": lambda: BloomForCausalLM(BloomConfig(**ids, hidden_size=32, n_layer=2, n_head=4)),
        "mamba": lambda: MambaForCausalLM(MambaConfig(**ids, hidden_size=32, num_hidden_layers=2, state_size=4)),
    }
    made: dict[str, Any] = {}
    for seed, (name, make) in enumerate(makers.items()):
        torch.manual_seed(seed)
        made[name] = make().eval()
    return made
