"""The reference cache: found again by what determines a value, by nothing else, and never silently wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from popmargin.data.tokenize import TokenizedPreferences
from popmargin.engine import reference
from popmargin.engine.batch import preference_sequences
from popmargin.engine.logps import response_sums, token_logps
from popmargin.engine.reference import ReferenceCache, ReferenceLogps, weights_fingerprint
from popmargin.errors import RunError


def no_model() -> Any:
    raise AssertionError("the reference model was asked for")


def cache(folder: Path, model: Any, precision: str = "fp32") -> ReferenceCache:
    return ReferenceCache(folder, weights_fingerprint(model), precision, next(model.parameters()).dtype)


def fill(
    made: ReferenceCache, tokenized: TokenizedPreferences, model: Callable[[], Any], size: int = 5
) -> ReferenceLogps:
    return made.preferences(tokenized, model, batch_size=size, pad_id=0)


def test_values_are_those_of_the_model(tmp_path: Path, tiny_model: Any, tokenized: TokenizedPreferences) -> None:
    found = fill(cache(tmp_path, tiny_model), tokenized, lambda: tiny_model)
    sequences = preference_sequences(tokenized, range(len(tokenized)), 0)
    values = token_logps(tiny_model, sequences).detach()
    torch.testing.assert_close(found.tokens(np.arange(len(tokenized))), values, rtol=0, atol=1e-5)
    chosen, rejected = found.sums()
    sums = response_sums(values.double(), sequences["lengths"]).numpy()
    np.testing.assert_allclose(np.concatenate([chosen, rejected]), sums, atol=1e-5)
    assert (
        found.tokens([3, 1]).tolist()
        == np.concatenate([found.chosen[3], found.chosen[1], found.rejected[3], found.rejected[1]]).tolist()
    )


def test_the_second_time_needs_no_model(tmp_path: Path, tiny_model: Any, tokenized: TokenizedPreferences) -> None:
    first = fill(cache(tmp_path, tiny_model), tokenized, lambda: tiny_model)
    again = fill(cache(tmp_path, tiny_model), tokenized, no_model, size=64)
    for mine, other in zip(first.chosen + first.rejected, again.chosen + again.rejected, strict=True):
        assert np.array_equal(mine, other)


def test_only_what_is_missing_is_computed(tmp_path: Path, tiny_model: Any, tokenized: TokenizedPreferences) -> None:
    made = cache(tmp_path, tiny_model)
    prompts, completions = [tokenized.prompt[i] for i in range(4)], [tokenized.chosen[i] for i in range(4)]
    options: dict[str, Any] = {"batch_size": 2, "pad_id": 0, "progress": False}
    made.responses(prompts[:2], completions[:2], lambda: tiny_model, **options)
    calls: list[int] = []
    handle = tiny_model.register_forward_pre_hook(lambda *_: calls.append(1))
    made.responses(prompts, completions, lambda: tiny_model, **options)
    handle.remove()
    assert len(calls) == 1


def test_a_prompt_token_is_no_completion_token(tmp_path: Path, tiny_model: Any) -> None:
    made = cache(tmp_path, tiny_model)
    options: dict[str, Any] = {"batch_size": 2, "pad_id": 0, "progress": False}
    split = [(np.array([5, 6]), np.array([7, 8])), (np.array([5, 6, 7]), np.array([8]))]
    found = made.responses([p for p, _ in split], [c for _, c in split], lambda: tiny_model, **options)
    assert [len(values) for values in found] == [2, 1]


@pytest.mark.parametrize("change", ["weights", "precision", "dtype"])
def test_another_reference_or_way_of_scoring_is_another_cache(
    tmp_path: Path, tiny_model: Any, make_model: Callable[..., Any], tokenized: TokenizedPreferences, change: str
) -> None:
    fill(cache(tmp_path, tiny_model), tokenized, lambda: tiny_model)
    other = {
        "weights": lambda: cache(tmp_path, make_model(seed=1)),
        "precision": lambda: cache(tmp_path, tiny_model, "bf16"),
        "dtype": lambda: cache(tmp_path, tiny_model.to(torch.bfloat16)),
    }[change]()
    with pytest.raises(AssertionError, match="the reference model was asked for"):
        fill(other, tokenized, no_model)


def test_one_changed_weight_changes_the_fingerprint(tiny_model: Any, make_model: Callable[..., Any]) -> None:
    before = weights_fingerprint(tiny_model)
    assert weights_fingerprint(make_model()) == before
    with torch.no_grad():
        next(tiny_model.parameters())[0, 0] += 1e-6
    assert weights_fingerprint(tiny_model) != before


def test_a_build_killed_half_way_goes_on(
    tmp_path: Path, tiny_model: Any, tokenized: TokenizedPreferences, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards that were finished count; the file that was being written is ignored."""
    monkeypatch.setattr(reference, "_SHARD_TOKENS", 20)
    calls: list[int] = []

    def die_later(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt

    handle = tiny_model.register_forward_pre_hook(die_later)
    with pytest.raises(KeyboardInterrupt):
        fill(cache(tmp_path, tiny_model), tokenized, lambda: tiny_model, size=4)
    handle.remove()
    made = cache(tmp_path, tiny_model)
    assert list(made.folder.glob("shard-*.safetensors"))
    (made.folder / "shard-0000.partial").write_bytes(b"half a file")
    calls.clear()
    handle = tiny_model.register_forward_pre_hook(lambda *_: calls.append(1))
    resumed = fill(cache(tmp_path, tiny_model), tokenized, lambda: tiny_model, size=4)
    handle.remove()
    assert 0 < len(calls) < 6  # 24 responses are 6 batches
    fresh = fill(cache(tmp_path / "fresh", tiny_model), tokenized, lambda: tiny_model, size=4)
    for mine, other in zip(resumed.chosen, fresh.chosen, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_shard_is_named(
    tmp_path: Path, tiny_model: Any, tokenized: TokenizedPreferences, damage: str
) -> None:
    made = cache(tmp_path, tiny_model)
    fill(made, tokenized, lambda: tiny_model)
    (shard,) = made.folder.glob("shard-*.safetensors")
    content = bytearray(shard.read_bytes())
    if damage == "truncated":
        shard.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[-3] ^= 1
        shard.write_bytes(content)
    else:
        tensors = load_file(shard)
        del tensors["lengths"]
        save_file(tensors, shard)
    with pytest.raises(RunError, match=rf"{shard.name}.*Delete this file"):
        cache(tmp_path, tiny_model)


def test_a_broken_reference_is_refused(tmp_path: Path, tiny_model: Any, tokenized: TokenizedPreferences) -> None:
    with torch.no_grad():
        tiny_model.lm_head.weight[0, 0] = torch.nan
    with pytest.raises(RunError, match="not finite"):
        fill(cache(tmp_path, tiny_model), tokenized, lambda: tiny_model)
    assert not list(tmp_path.glob("*/shard-*"))
