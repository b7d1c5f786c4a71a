"""Features: the hidden states of each response alone, whatever it is computed with, and never computed twice."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_engine_rewards import EDGE_CASES, make

from popmargin.data.tokenize import TokenizedPreferences
from popmargin.engine import response_cache
from popmargin.engine.features import FeatureCache, PreferenceFeatures, pooled_states
from popmargin.engine.reference import model_fingerprint
from popmargin.engine.rewards import reward_plan
from popmargin.engine.sequences import make_sequences
from popmargin.errors import ConfigError, RunError

Layers = tuple[int, ...] | None
POOLS: tuple[tuple[str, Layers], ...] = (("last", None), ("last", (1,)), ("mean", (0, 2)), ("mean", None))


def no_model() -> Any:
    raise AssertionError("the model was asked for")


def alone(model: Any, prompt: np.ndarray, completion: np.ndarray, pool: str, layers: Layers) -> torch.Tensor:
    """The features of one response, from transformers' own hidden states of its tokens alone."""
    row = np.concatenate([prompt, completion])
    states = model(input_ids=torch.from_numpy(row)[None], output_hidden_states=True, use_cache=False).hidden_states
    last = int(np.flatnonzero(row != 0)[-1]) if (row != 0).any() else 0
    tokens = [last] if pool == "last" else list(range(len(prompt), len(row)))
    return torch.cat([states[layer][0, tokens].mean(0) for layer in (layers or (len(states) - 1,))]).float()


@pytest.fixture(scope="module")
def llama() -> Any:
    return make("llama").float()


def cache(folder: Path, model: Any, pool: str = "last", layers: Sequence[int] | None = None) -> FeatureCache:
    return FeatureCache(folder, model_fingerprint(model), "fp32", torch.float32, pool=pool, layers=layers)


def fill(made: FeatureCache, tokenized: TokenizedPreferences, model: Any, size: int = 64) -> PreferenceFeatures:
    return made.preferences(tokenized, model, tokens_per_batch=size, pad_id=0, plan=reward_plan, progress=False)


@pytest.mark.parametrize(("pool", "layers"), POOLS)
@pytest.mark.parametrize("case", EDGE_CASES)
@torch.no_grad()
def test_features_are_the_models_own_hidden_states(llama: Any, case: str, pool: str, layers: Layers) -> None:
    data = EDGE_CASES[case]
    expected = torch.stack([alone(llama, *pair, pool, layers) for pair in zip(*data, strict=True)])
    plan = reward_plan(llama)
    for layout in ("packed", "padded", "alone"):
        sequences = make_sequences(*data, 0, layout, whole=True)
        found = pooled_states(llama, sequences, plan=replace(plan, layout=layout), pool=pool, layers=layers)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_the_head_reads_gives_the_reward(llama: Any) -> None:
    sequences = make_sequences(*EDGE_CASES["padding tokens at the end"], 0, "packed", whole=True)
    rows = [torch.from_numpy(np.concatenate(pair))[None] for pair in zip(*EDGE_CASES["padding tokens at the end"],
                                                                         strict=True)]  # fmt: skip
    with torch.no_grad():
        own = torch.cat([llama(input_ids=row).logits[:, 0] for row in rows])
        torch.testing.assert_close(llama.score(pooled_states(llama, sequences))[:, 0], own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("pool", "layers"), [POOLS[0], POOLS[2]])
def test_cached_features(
    tmp_path: Path, llama: Any, small: TokenizedPreferences, pool: str, layers: Layers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of every preference, in memory-mapped files, and found again without the model."""
    tokens = small
    monkeypatch.setattr(response_cache, "_PIECE_TOKENS", 60)
    found = fill(cache(tmp_path, llama, pool, layers), tokens, lambda: llama)
    assert len(found) == 12 and found.array().dtype == np.float32
    with torch.no_grad():
        for side, numbers in ((tokens.chosen, found.chosen), (tokens.rejected, found.rejected)):
            for row, number in enumerate(numbers):
                expected = alone(llama, tokens.prompt[row], side[row], pool, layers)
                torch.testing.assert_close(torch.from_numpy(found.array()[number]), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.batch(np.array([3, 1])),
                       torch.from_numpy(found.array()[[*found.chosen[[3, 1]], *found.rejected[[3, 1]]]]))  # fmt: skip
    again = fill(cache(tmp_path, llama, pool, layers), tokens, no_model, size=7)
    np.testing.assert_array_equal(again.array(), found.array())
    address = again.responses[0].__array_interface__["data"][0]
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines]
    assert any(first <= address < last for first, last in ranges)


def _modulo(side: Any) -> Any:
    """Tokens of the small vocabulary."""
    return replace(side, values=side.values % 87 + 3)


@pytest.fixture
def small(tokenized: TokenizedPreferences) -> TokenizedPreferences:
    sides = {name: _modulo(getattr(tokenized, name)) for name in ("prompt", "chosen", "rejected")}
    return replace(tokenized, **sides)


def test_equal_responses_are_one(tmp_path: Path, llama: Any, small: TokenizedPreferences) -> None:
    same = replace(small, rejected=small.chosen)
    found = fill(cache(tmp_path, llama), same, lambda: llama)
    assert len(found.array()) == 12 and found.chosen.tolist() == found.rejected.tolist() == list(range(12))


def test_a_changed_row_alone_is_computed_again(tmp_path: Path, llama: Any, small: TokenizedPreferences) -> None:
    fill(cache(tmp_path, llama), small, lambda: llama)
    values = small.chosen.values.copy()
    values[small.chosen.offsets[5]] = values[small.chosen.offsets[5]] % 87 + 3
    changed = replace(small, chosen=replace(small.chosen, values=values))
    rows: list[int] = []
    handle = llama.model.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].numel()))
    plan = reward_plan(llama)
    rows.clear()
    made = cache(tmp_path, llama)
    made.preferences(changed, lambda: llama, tokens_per_batch=64, pad_id=0, plan=lambda _: plan, progress=False)
    handle.remove()
    assert rows == [len(small.prompt[5]) + len(changed.chosen[5])]


def test_another_model_pool_or_layer_is_another_cache(tmp_path: Path, llama: Any, small: TokenizedPreferences) -> None:
    fill(cache(tmp_path, llama), small, lambda: llama)
    other = make("llama").float()
    with torch.no_grad():
        other.model.norm.weight[0] += 1e-3
    for made in (cache(tmp_path, other), cache(tmp_path, llama, "mean"), cache(tmp_path, llama, "last", (2,))):
        with pytest.raises(AssertionError, match="the model was asked for"):
            fill(made, small, no_model)


def test_a_damaged_file_is_said_and_computed_again(
    tmp_path: Path, llama: Any, small: TokenizedPreferences, caplog: pytest.LogCaptureFixture
) -> None:
    first = fill(cache(tmp_path, llama), small, lambda: llama).array()
    (shard,) = tmp_path.rglob("shard-*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.unlink()  # what is mapped stays as it is
    shard.write_bytes(content)
    again = fill(cache(tmp_path, llama), small, lambda: llama)
    np.testing.assert_array_equal(again.array(), first)
    assert "The feature cache" in caplog.text and "its values are computed again" in caplog.text


def test_what_cannot_be_given(tmp_path: Path, llama: Any, small: TokenizedPreferences) -> None:
    with pytest.raises(ConfigError, match=r"layer 3: the model has 2 layers; name some from 0 .* to 2"):
        fill(cache(tmp_path, llama, "mean", (3,)), small, lambda: llama)
    with pytest.raises(ConfigError, match="pool of features is 'first'"):
        cache(tmp_path, llama, "first")
    with pytest.raises(ConfigError, match="Features of no layers: name some"):
        cache(tmp_path, llama, layers=())
    broken = make("llama").float()
    with torch.no_grad():
        broken.model.norm.weight[0] = torch.nan
    plan = replace(reward_plan(llama), head=broken.score, layout="padded")
    with pytest.raises(RunError, match="non-finite hidden states"):
        cache(tmp_path, broken).preferences(
            small, lambda: broken, tokens_per_batch=64, pad_id=0, plan=lambda _: plan, progress=False
        )
