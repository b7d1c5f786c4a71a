"""Implicit rewards against plain forward passes: of full, LoRA and merged runs, as sampled or as text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from few_fast import few_fast
from popmargin.config import RunConfig, from_dict, merge
from popmargin.data.read_prompts import load_prompts
from popmargin.data.responses import Responses
from popmargin.errors import ConfigError, RunError
from popmargin.generate.from_policy import policy_responses
from popmargin.generate.sample import Sampling
from popmargin.models.named_policy import find_policy
from popmargin.rewards.implicit import ImplicitReward
from popmargin.rewards.load import load_reward
from popmargin.rewards.naming import Named, read_name
from popmargin.rewards.rate_responses import rate_responses
from popmargin.training.run import train

PROMPTS = load_prompts([{"prompt": "the sky is"}, {"prompt": "old birds"}])
KINDS = ("full", "lora", "merged")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, model_path: str, data_path: str) -> dict[str, Path]:
    """One step far from the start: all weights, an adapter, and an adapter on the adapter, which are merged."""
    folder = tmp_path_factory.mktemp("runs")
    base: dict[str, Any] = {
        "model": {"path": model_path},
        "data": {"train": data_path, "limit": 8, "test_size": 4, "max_length": 96},
        "objective": {"name": "dpo"},
        "reference": {"cache": str(folder / "cache")},
        "train": {"batch_size": 8, "learning_rate": 0.02, "max_steps": 2, "warmup_ratio": 0.0},
    }
    models: dict[str, dict[str, Any]] = {
        "full": {"path": model_path},
        "lora": {"path": model_path, "lora_rank": 2},
        "merged": {"path": str(folder / "lora" / "model"), "lora_rank": 2},
    }
    for kind, model in models.items():
        values = merge(base, {"model": model, "output": str(folder / kind), "name": kind})
        train(from_dict(RunConfig, values))
    return {kind: folder / kind for kind in models}


def plain(kind: str, runs: dict[str, Path], model_path: str) -> tuple[Any, Any]:
    """Policy and reference by the ways of transformers and peft alone."""

    def load(path: Any) -> Any:
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    def adapted(run: Path) -> Any:
        return PeftModel.from_pretrained(load(model_path), run / "model").eval()

    if kind == "full":
        return load(runs["full"] / "model"), load(model_path)
    if kind == "lora":
        return adapted(runs["lora"]), load(model_path)
    return load(runs["merged"] / "model"), adapted(runs["lora"])


@torch.no_grad()
def logp(model: Any, prompt: list[int], tokens: list[int]) -> float:
    logits = model(input_ids=torch.tensor([prompt + tokens])).logits[0].double()
    steps = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return float(steps[torch.arange(len(tokens)), torch.tensor(tokens)].sum())


def sampled(run: Path | str, **options: Any) -> Responses:
    sampling = Sampling(**{"samples": 6, "max_new_tokens": 12, **options})
    return policy_responses(PROMPTS, find_policy(str(run)), sampling).responses


@pytest.mark.parametrize("kind", few_fast(KINDS, (1,)))
def test_rewards_are_those_of_plain_forward_passes(
    kind: str, runs: dict[str, Path], model_path: str, tiny_tokenizer: Any
) -> None:
    """Exactly the sampled ids are scored, whatever the batch: most responses are cut here, and have no end token."""
    responses = sampled(runs[kind])
    assert False in responses.field("finished")
    policy, reference = plain(kind, runs, model_path)
    prompts = [tiny_tokenizer(prompt)["input_ids"] for prompt in PROMPTS.prompts for _ in range(6)]
    ids = responses.field("token_ids")
    expected = [logp(policy, p, t) - logp(reference, p, t) for p, t in zip(prompts, ids, strict=True)]
    assert np.abs(expected).max() > 0.5
    for tokens_per_batch in (1, 4096):
        reward = load_reward(f"implicit:{runs[kind]}", tokens_per_batch=tokens_per_batch)
        rated = rate_responses(responses, reward, name="rho")
        np.testing.assert_allclose(rated.responses.score("rho"), expected, atol=1e-4)
        assert (rated.missing, rated.notes) == (0, ())
    per_token = rate_responses(responses, ImplicitReward(str(runs[kind]), per_token=True), name="rho")
    np.testing.assert_allclose(per_token.responses.score("rho"), expected / np.array(list(map(len, ids))), atol=1e-4)


def test_a_cut_response_is_scored_without_the_end_token_that_a_finished_one_has(
    runs: dict[str, Path], model_path: str, tiny_tokenizer: Any
) -> None:
    end, tokens = tiny_tokenizer.eos_token_id, tiny_tokenizer(" is blue")["input_ids"]
    policy, reference = plain("full", runs, model_path)
    prompt = tiny_tokenizer("the sky")["input_ids"]

    def rho(ids: list[int]) -> float:
        return logp(policy, prompt, ids) - logp(reference, prompt, ids)

    reward = ImplicitReward(str(runs["full"]))
    given: dict[str, Any] = {"finished": [[True, False]]}
    expected = [rho([*tokens, end]), rho(tokens)]
    assert abs(expected[0] - expected[1]) > 1e-3
    exact = Responses(["the sky"], [[" is blue"] * 2], **given, fields={"token_ids": [[[*tokens, end], tokens]]})
    found = rate_responses(exact, reward, name="rho")
    np.testing.assert_allclose(found.responses.score("rho"), expected, atol=1e-4)
    assert found.notes == ()
    text = rate_responses(Responses(["the sky"], [[" is blue"] * 2], **given), reward, name="rho")
    np.testing.assert_allclose(text.responses.score("rho"), expected, atol=1e-4)
    assert [note.partition(":")[0] for note in text.notes] == [
        "responses that have no token ids",
        "responses that were cut and have no token ids",
    ]
    np.testing.assert_allclose(reward.score(["the sky"], [" is blue"]), expected[:1], atol=1e-4)


def test_ids_of_another_tokenizer_are_not_scored(runs: dict[str, Path]) -> None:
    """Ids that do not say what the text says, that no token has, or after another number of prompt tokens."""
    ids: list[Any] = [[[5, 6, 7], [99_999], None, []]]
    odd = Responses(["the sky"], [[" is blue"] * 3 + [""]], finished=False, fields={"token_ids": ids})
    rated = rate_responses(odd, ImplicitReward(str(runs["full"])), name="rho")
    values = rated.responses.score("rho")
    assert values[0] == values[1] == values[2] and np.isnan(values[3]) and rated.missing == 1
    assert "sampled with another tokenizer, and were tokenized again: 2 of 4" in rated.notes[0] + rated.notes[1]
    shifted = Responses(["the sky"], [[" is"]], fields={"token_ids": [[[5]]]}, columns={"prompt_tokens": [1]})
    assert rate_responses(shifted, ImplicitReward(str(runs["full"])), name="rho").missing == 0


def test_prompts_that_were_cut_are_cut_again(runs: dict[str, Path], model_path: str, tiny_tokenizer: Any) -> None:
    sampling = Sampling(samples=2, max_new_tokens=5)
    made = policy_responses(PROMPTS, find_policy(str(runs["full"])), sampling, max_prompt_tokens=2).responses
    policy, reference = plain("full", runs, model_path)
    prompts = [tiny_tokenizer(prompt)["input_ids"][-2:] for prompt in PROMPTS.prompts for _ in range(2)]
    expected = [
        logp(policy, p, t) - logp(reference, p, t) for p, t in zip(prompts, made.field("token_ids"), strict=True)
    ]
    rated = rate_responses(made, f"implicit:{runs['full']}", name="rho")
    np.testing.assert_allclose(rated.responses.score("rho"), expected, atol=1e-4)


def test_other_references(runs: dict[str, Path], model_path: str, tiny_tokenizer: Any) -> None:
    """SPA judges by the first model in every round; `none` leaves the reference out."""
    responses = sampled(runs["merged"], samples=2)

    def rho(spec: str, **options: Any) -> np.ndarray:
        return rate_responses(responses, load_reward(spec, **options), name="rho").responses.score("rho")

    own, first, none = (rho(f"implicit:{runs['merged']}{more}") for more in ("", f"@{model_path}", "@none"))
    policy, _ = plain("merged", runs, model_path)
    prompts = [tiny_tokenizer(prompt)["input_ids"] for prompt in PROMPTS.prompts for _ in range(2)]
    ids = responses.field("token_ids")
    np.testing.assert_allclose(none, [logp(policy, p, t) for p, t in zip(prompts, ids, strict=True)], atol=1e-4)
    np.testing.assert_allclose(rho(f"implicit:{runs['merged']}", reference=model_path), first, atol=1e-6)
    np.testing.assert_allclose(first - own, rho(f"implicit:{runs['lora']}"), atol=1e-4)  # the steps add up
    np.testing.assert_allclose(rho(f"implicit:{runs['merged']}/model@{model_path}"), first, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "options", "error", "words"),
    [
        ("implicit:{model}", {}, ConfigError, r"is a model and no run, so it has no reference.*@MODEL"),
        ("implicit:{run}@{model}", {"reference": "demo"}, ConfigError, "Give one of them"),
        ("implicit:{run}", {"reference": "demo"}, ConfigError, "has another tokenizer"),
        ("implicit:{run}x", {}, RunError, "Did you mean"),
        ("implicit:{run}", {"per_tokn": True}, ConfigError, "Did you mean 'per_token'"),
        ("implicit:{run}", {"precision": "fp8"}, ConfigError, "give fp32 or bf16"),
    ],
)
def test_mistakes_are_answered_in_words(
    runs: dict[str, Path], model_path: str, spec: str, options: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        load_reward(spec.format(model=model_path, run=runs["full"]), **options)


def test_a_start_model_that_has_changed_is_refused(
    runs: dict[str, Path], model_path: str, make_model: Callable[..., Any], tmp_path: Path
) -> None:
    """As the run's reference its log-probs would be others than in training."""
    for kind, words in (
        ("full", "start model .* has changed since the run was trained"),
        ("lora", "have since changed"),
    ):
        config = (runs[kind] / "config.yaml").read_text()
        run = tmp_path / kind
        run.mkdir()
        for name in ("model", "run.json", "fingerprints.json"):
            (run / name).symlink_to(runs[kind] / name)
        make_model(seed=9).save_pretrained(tmp_path / "start")
        (run / "config.yaml").write_text(config.replace(model_path, str(tmp_path / "start")))
        with pytest.raises(RunError, match=words):
            ImplicitReward(str(run)).score(["the sky"], [" is blue"])


def test_the_name_of_an_implicit_reward(tmp_path: Path) -> None:
    assert read_name("implicit:runs/dpo") == Named("implicit", "runs/dpo")
    assert read_name("implicit:runs/dpo@demo") == Named("implicit", "runs/dpo", reference="demo")
    odd = tmp_path / "a@b"
    odd.mkdir()
    assert read_name(f"implicit:{odd}") == Named("implicit", str(odd))
    assert read_name("reward:implicit:runs/dpo@demo").use == "reward"
