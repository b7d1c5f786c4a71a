"""Rounds begin at whatever training leaves behind: a LoRA run, a run of all weights, or a merged adapter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from popmargin.data.responses import Responses
from popmargin.recipes.base import plan_of
from popmargin.rewards.implicit import ImplicitReward
from popmargin.rewards.rate_responses import rate_responses
from popmargin.rounds.rounds_config import RoundsConfig
from popmargin.rounds.run_rounds import run_rounds
from popmargin.rounds.stages.trained_models import policy_of
from popmargin.training.run import train

MakeRounds = Callable[..., RoundsConfig]


def plain_model(folder: Path) -> Any:
    """The model as its users load it, with transformers and peft alone."""
    if (folder / "adapter_config.json").is_file():
        from peft import AutoPeftModelForCausalLM

        return AutoPeftModelForCausalLM.from_pretrained(folder).eval()
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@torch.no_grad()
def summed(model: Any, prompt: list[int], answer: list[int]) -> float:
    logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].double()
    return float(logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)].sum())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "full", "merged"])
def test_a_round_starts_from_every_kind_of_run(
    tmp_path: Path, make_rounds: MakeRounds, configure: Callable[..., Any], kind: str
) -> None:
    rank = 0 if kind == "full" else 2
    first, _ = train(configure({"model": {"lora_rank": rank}, "output": str(tmp_path / "first")}))
    start = first.model
    if kind == "merged":
        start = tmp_path / "merged"
        plain_model(first.model).merge_and_unload().save_pretrained(start)
        AutoTokenizer.from_pretrained(first.model).save_pretrained(start)
    base = {"model": {"path": str(start), "lora_rank": 2}}
    config = make_rounds({"name": "iterate", "rounds": 2, "labels": "random", "objective": {"name": "dpo"}}, base)
    run_rounds(config, plan_of(config))
    folder = tmp_path / "rounds"
    responses = Responses.load(folder / "round-2/sample/responses.parquet")[:4]
    sampler = folder / "round-1/train/run/model"
    policy = policy_of(sampler)
    ours = rate_responses(responses, ImplicitReward(policy.name, reference="none"), name="ours")
    model, tokenizer = plain_model(sampler), AutoTokenizer.from_pretrained(sampler)
    theirs = [
        summed(model, tokenizer(str(prompt)).input_ids, list(ids))
        for prompt, ids in zip(np.repeat(np.array(responses.prompts, object), responses.counts),
                               responses.field("token_ids"), strict=True)
    ]  # fmt: skip
    assert ours.responses.score("ours") == pytest.approx(theirs, abs=2e-5)
    reloaded = rate_responses(responses, ImplicitReward(policy_of(sampler).name, reference="none"), name="again")
    assert (reloaded.responses.score("again") == ours.responses.score("ours")).all()
