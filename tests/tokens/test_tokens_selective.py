"""Which tokens the selector keeps."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from popmargin.config import RunConfig
from popmargin.errors import ConfigError
from popmargin.files import read_jsonl
from popmargin.tokens.base import TOKEN_SELECTORS, TokenRows
from popmargin.tokens.selective import SelectiveOptions, selective
from popmargin.training.build import make_loss
from popmargin.training.run import train


def rows_of(scores: list[list[float]], chosen: list[bool], order: list[int] | None = None) -> TokenRows:
    """Responses whose tokens have these scores: the reference is at 0."""
    flat = torch.tensor([s if c else -s for row, c in zip(scores, chosen, strict=True) for s in row])
    response = torch.tensor([i for i, row in enumerate(scores) for _ in row])
    place = torch.arange(len(flat)) if order is None else torch.tensor(order)
    return TokenRows(
        logps=-flat[place],
        reference_logps=torch.full((len(flat),), math.nan),  # not looked at
        scoring_logps=torch.zeros(len(flat)),
        response=response[place],
        is_chosen=torch.tensor(chosen),
    )


def test_chosen_tokens_where_the_policy_lags_and_rejected_where_it_leads() -> None:
    """Five tokens a response, share 0.4: the quantile 0.6 lies at place 2.4, so that the two largest are kept."""
    tokens = TokenRows(
        logps=torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0] * 2),
        reference_logps=torch.tensor([-3.0] * 10),
        scoring_logps=torch.tensor([-3.0] * 10),
        response=torch.tensor([0] * 5 + [1] * 5),
        is_chosen=torch.tensor([True, False]),
    )
    assert selective(tokens, SelectiveOptions()).tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 0, 0]


def test_every_response_has_its_own_quantile() -> None:
    scores = [[float(i) for i in range(10)], [100.0], [7.0, -7.0], [-3.0, -2.0, -1.0, -4.0]]
    kept = selective(rows_of(scores, [True, False, True, False]), SelectiveOptions())
    assert kept.tolist() == [0] * 6 + [1] * 4 + [1] + [1, 0] + [0, 1, 1, 0]


@pytest.mark.parametrize("share", [0.05, 0.25, 0.4, 0.6, 0.999, 1.0])
def test_agrees_with_numpys_quantile(share: float) -> None:
    random = np.random.default_rng(0)
    scores = [random.normal(size=size).astype(np.float32).tolist() for size in [*range(1, 40), 500]]
    chosen = [bool(i % 3) for i in range(len(scores))]
    kept = selective(rows_of(scores, chosen), SelectiveOptions(share=share, tolerance=1e-6))
    expected = [
        float(s >= np.quantile(np.array(row, dtype=np.float64), 1 - share) - 1e-6) for row in scores for s in row
    ]
    assert kept.tolist() == expected and 0 < np.mean(expected) <= 1
    assert (np.mean(expected) == 1) == (share == 1)


def test_tokens_in_any_order() -> None:
    random = np.random.default_rng(1)
    scores = [random.normal(size=size).tolist() for size in (4, 9, 6)]
    order = random.permutation(19).tolist()
    kept = selective(rows_of(scores, [True, False, True]), SelectiveOptions())
    shuffled = selective(rows_of(scores, [True, False, True], order), SelectiveOptions())
    assert shuffled.tolist() == kept[torch.tensor(order)].tolist() and 0 < kept.sum() < 19


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_ties_are_kept(noise: float) -> None:
    """Before the first step policy and reference are equal, up to rounding."""
    random = np.random.default_rng(2)
    scores = [(noise * random.normal(size=size)).tolist() for size in (5, 8)]
    assert selective(rows_of(scores, [True, False]), SelectiveOptions()).tolist() == [1] * 13
    if noise:
        assert selective(rows_of(scores, [True, False]), SelectiveOptions(tolerance=0.0)).sum() < 13


def test_rescaled_weights_keep_the_size_of_sums() -> None:
    """2 of 5 and 1 of 3 tokens are kept: 5/2 and 3 each."""
    tokens = rows_of([[1.0, 2.0, 3.0, 4.0, 5.0], [3.0, 1.0, 2.0]], [True, True])
    assert selective(tokens, SelectiveOptions(rescale=True)).tolist() == [0, 0, 0, 2.5, 2.5, 3, 0, 0]


def test_responses_without_tokens() -> None:
    """A last one too, whose first place would be behind the end."""
    scores: list[list[float]] = [[], [1.0, 2.0], [], []]
    weights = selective(rows_of(scores, [True] * 4), SelectiveOptions(rescale=True))
    assert weights.tolist() == [0, 2]


def test_weights_carry_no_gradient() -> None:
    logps = torch.tensor([-1.0, -2.0], requires_grad=True)
    tokens = TokenRows(
        logps=logps, reference_logps=torch.zeros(2), scoring_logps=torch.zeros(2),
        response=torch.zeros(2, dtype=torch.long), is_chosen=torch.tensor([True]),
    )  # fmt: skip
    assert not selective(tokens, SelectiveOptions(rescale=True)).requires_grad


def test_options() -> None:
    with pytest.raises(ValueError, match="share must be above 0 and at most 1, not 0"):
        SelectiveOptions(share=0.0)
    with pytest.raises(ValueError, match="tolerance must be"):
        SelectiveOptions(tolerance=-1.0)
    assert TOKEN_SELECTORS.get("selective").summary.startswith("Selective tokens")


@pytest.mark.parametrize("objective", ["dpo", "ipo", "pop", "aps"])
def test_it_composes_in_training(configure: Callable[..., RunConfig], objective: str) -> None:
    """All tokens are kept before the first step, fewer as soon as policy and reference differ."""
    changes = {"objective": {"name": objective}, "tokens": {"name": "selective"}, "target": {"kind": "policy"}}
    run, _ = train(configure(changes, {"train": {"max_steps": 3}}))
    kept = [line["tokens_kept"] for line in read_jsonl(run.path / "metrics.jsonl")]
    assert kept[0] == 1 and all(0.3 < share < 0.75 for share in kept[1:])


def test_dpop_charges_whole_responses(configure: Callable[..., RunConfig]) -> None:
    """Kept chosen tokens have lost by construction: a response that gained as a whole would be charged for them."""
    config = configure({"objective": {"name": "dpop"}, "tokens": {"name": "selective"}})
    with pytest.raises(ConfigError, match="'dpop' compares probabilities of whole responses, but the token selector"):
        make_loss(config)


def test_the_kept_share_is_no_mean_weight(configure: Callable[..., RunConfig]) -> None:
    """With `rescale` the weights average to 1, however few tokens are kept."""
    run, _ = train(configure({"tokens": {"name": "selective", "rescale": True}, "train": {"max_steps": 2}}))
    kept = [line["tokens_kept"] for line in read_jsonl(run.path / "metrics.jsonl")]
    assert kept[0] == 1 and 0.3 < kept[1] < 0.75


def test_the_margin_over_all_tokens_is_logged_beside(configure: Callable[..., RunConfig]) -> None:
    run, _ = train(configure({"tokens": {"name": "selective"}, "train": {"max_steps": 3}}))
    first, *later = read_jsonl(run.path / "metrics.jsonl")
    assert first["reward_margin"] == pytest.approx(first["reward_margin_all_tokens"], abs=1e-6)
    for line in later:
        everything = 0.1 * (line["chosen_logratio"] - line["rejected_logratio"])
        assert line["reward_margin_all_tokens"] == pytest.approx(everything, rel=1e-5)
        # The kept tokens are those that go the wrong way.
        assert line["reward_margin"] < line["reward_margin_all_tokens"]


@pytest.fixture
def other_model(tmp_path: Path, make_model: Callable[..., Any], tiny_tokenizer: Any) -> str:
    """Other weights than the start model's, with the same tokenizer."""
    make_model(seed=5).save_pretrained(tmp_path / "other")
    tiny_tokenizer.save_pretrained(tmp_path / "other")
    return str(tmp_path / "other")


@pytest.mark.parametrize("kind", ["policy", "ema"])
def test_a_scoring_reference_of_its_own(
    tmp_path: Path, configure: Callable[..., RunConfig], other_model: str, model_path: str, kind: str
) -> None:
    """It chooses tokens from the first step on, where the policy is still its own reference; ratios keep that one."""
    base: dict[str, Any] = {"objective": {"name": "pop"}, "target": {"kind": kind}, "train": {"max_steps": 2}}
    lines = {}
    for name, reference in (("own", {"reference": other_model}), ("same", {"reference": model_path}), ("none", {})):
        changes = base | {"tokens": {"name": "selective"} | reference, "output": str(tmp_path / name)}
        lines[name] = read_jsonl(train(configure(changes))[0].path / "metrics.jsonl")
    assert 0.3 < lines["own"][0]["tokens_kept"] < 0.6 and lines["none"][0]["tokens_kept"] == 1
    assert abs(lines["own"][0]["chosen_logratio"]) < 1e-4
    assert lines["same"] == lines["none"] != lines["own"]


def test_a_scoring_reference_with_another_tokenizer(
    configure: Callable[..., RunConfig], other_model: str, tiny_tokenizer: Any
) -> None:
    larger = copy.deepcopy(tiny_tokenizer)
    larger.add_tokens(["<more>"])
    larger.save_pretrained(other_model)
    with pytest.raises(
        ConfigError, match=r"tokens.reference .* has a different tokenizer \(of size \d+\) than model.path"
    ):
        train(configure({"tokens": {"name": "selective", "reference": other_model}}))


@pytest.mark.parametrize("name", ["dpo", "simpo"])
def test_a_share_of_1_trains_as_without_a_selector(
    tmp_path: Path, configure: Callable[..., RunConfig], name: str
) -> None:
    losses: list[list[float]] = []
    for tokens in (None, {"name": "selective", "share": 1.0}):
        changes = {"objective": {"name": name}, "tokens": tokens, "output": str(tmp_path / str(len(losses)))}
        run, _ = train(configure(changes, {"train": {"max_steps": 4, "learning_rate": 1e-2}}))
        losses.append([line["loss"] for line in read_jsonl(run.path / "metrics.jsonl")])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6) and losses[0][0] != losses[0][-1]
