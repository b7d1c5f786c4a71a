"""The reference cache: found again by what determines a value, by nothing else, and never silently wrong."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from popmargin.data.tokenize import TokenizedPreferences
from popmargin.engine import response_cache
from popmargin.engine.batch import preference_sequences
from popmargin.engine.logps import ForwardPlan, forward_plan, response_sums, token_logps
from popmargin.engine.reference import ReferenceCache, ReferenceLogps, model_fingerprint
from popmargin.errors import RunError

ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def no_model() -> Any:
    raise AssertionError("the reference model was asked for")


def cache(folder: Path, model: Any, precision: str = "fp32") -> ReferenceCache:
    return ReferenceCache(folder, model_fingerprint(model), precision, next(model.parameters()).dtype)


def fill(
    made: ReferenceCache,
    tokenized: TokenizedPreferences,
    model: Callable[[], Any],
    size: int = 64,
    plan: Callable[[Any], ForwardPlan] = forward_plan,
) -> ReferenceLogps:
    return made.preferences(tokenized, model, tokens_per_batch=size, pad_id=0, plan=plan)


def test_values_are_those_of_the_model(tmp_path: Path, tiny_model: Any, tokenized: TokenizedPreferences) -> None:
    found = fill(cache(tmp_path, tiny_model), tokenized, lambda: tiny_model)
    sequences = preference_sequences(tokenized, range(len(tokenized)), 0, "padded")
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
    again = fill(cache(tmp_path, tiny_model), tokenized, no_model, size=7)
    for mine, other in zip(first.chosen + first.rejected, again.chosen + again.rejected, strict=True):
        assert np.array_equal(mine, other)


def test_only_what_is_missing_is_computed(tmp_path: Path, tiny_model: Any, tokenized: TokenizedPreferences) -> None:
    made = cache(tmp_path, tiny_model)
    prompts, completions = [tokenized.prompt[i] for i in range(4)], [tokenized.chosen[i] for i in range(4)]
    plan = forward_plan(tiny_model)
    options: dict[str, Any] = {"tokens_per_batch": 1000, "pad_id": 0, "plan": lambda _: plan, "progress": False}
    made.responses(prompts[:2], completions[:2], lambda: tiny_model, **options)
    calls: list[int] = []
    handle = tiny_model.register_forward_pre_hook(lambda *_: calls.append(1))
    made.responses(prompts, completions, lambda: tiny_model, **options)
    handle.remove()
    assert len(calls) == 1


def test_a_prompt_token_is_no_completion_token(tmp_path: Path, tiny_model: Any) -> None:
    made = cache(tmp_path, tiny_model)
    options: dict[str, Any] = {"tokens_per_batch": 1000, "pad_id": 0, "progress": False}
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
    before = model_fingerprint(tiny_model)
    assert model_fingerprint(make_model()) == before
    with torch.no_grad():
        next(tiny_model.parameters())[0, 0] += 1e-6
    assert model_fingerprint(tiny_model) != before


def test_settings_of_the_model_count_when_they_can_change_a_value(tiny_model: Any) -> None:
    before = model_fingerprint(tiny_model)
    forward_plan(tiny_model)  # replaces the attention
    tiny_model.config.use_cache = False
    tiny_model.config._name_or_path = "elsewhere"
    tiny_model.config.transformers_version = "9.9"
    assert model_fingerprint(tiny_model) == before
    tiny_model.config.rms_norm_eps = 0.1
    assert model_fingerprint(tiny_model) != before


def test_values_are_memory_mapped(tmp_path: Path, tiny_model: Any, tokenized: TokenizedPreferences) -> None:
    made = cache(tmp_path, tiny_model)
    fill(made, tokenized, lambda: tiny_model)
    again = fill(cache(tmp_path, tiny_model), tokenized, no_model)
    address = again.chosen[0].__array_interface__["data"][0]
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in lines if str(made.folder) in line]
    assert any(int(first, 16) <= address < int(last, 16) for first, last in ranges)


def test_a_build_killed_half_way_goes_on(
    tmp_path: Path, tiny_model: Any, tokenized: TokenizedPreferences, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces that were finished count; the file that was being written is ignored."""
    monkeypatch.setattr(response_cache, "_PIECE_TOKENS", 60)
    calls: list[int] = []

    def die_later(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt

    plan = forward_plan(tiny_model)
    handle = tiny_model.register_forward_pre_hook(die_later)
    with pytest.raises(KeyboardInterrupt):
        fill(cache(tmp_path, tiny_model), tokenized, lambda: tiny_model, plan=lambda _: plan)
    handle.remove()
    made = cache(tmp_path, tiny_model)
    finished = list(made.folder.glob("shard-*.safetensors"))
    assert finished
    (made.folder / ".shard-0000.safetensors.1.part").write_bytes(b"half a file")
    (made.folder / "0000.lock").touch()
    resumed = fill(made, tokenized, lambda: tiny_model)
    shards = list(made.folder.glob("shard-*.safetensors"))
    assert set(finished) < set(shards)
    fresh = cache(tmp_path / "fresh", tiny_model)
    computed = fill(fresh, tokenized, lambda: tiny_model)
    assert {shard.name for shard in shards} == {shard.name for shard in fresh.folder.glob("shard-*.safetensors")}
    for mine, other in zip(resumed.chosen, computed.chosen, strict=True):
        np.testing.assert_array_equal(mine, other)


BUILDER = """
import sys
from pathlib import Path
import numpy as np
from transformers import AutoModelForCausalLM
from popmargin.data.ragged import Ragged
from popmargin.data.tokenize import TokenizedPreferences, TruncationReport
from popmargin.engine import response_cache
from popmargin.engine.reference import ReferenceCache, model_fingerprint

folder, tokens, out = sys.argv[1:]
response_cache._PIECE_TOKENS = 60
saved = np.load(tokens, allow_pickle=False)
def side(name):
    return Ragged.of([saved[f"{name}{i}"].tolist() for i in range(12)])
data = TokenizedPreferences([f"p{i}" for i in range(12)], side("prompt"), side("chosen"), side("rejected"),
                            np.arange(12), TruncationReport(rows_in=12, rows_kept=12))
model = AutoModelForCausalLM.from_pretrained(sys.argv[1] + "/model").eval()
cache = ReferenceCache(Path(folder), model_fingerprint(model), "fp32", model.dtype)
made = [0]
store = cache._store
cache._store = lambda entries: (made.__setitem__(0, made[0] + 1), store(entries))
found = cache.preferences(data, lambda: model, tokens_per_batch=64, pad_id=0)
np.savez(out, made=made[0], values=np.concatenate(found.chosen + found.rejected))
"""


@pytest.mark.slow
def test_several_processes_share_a_build(tmp_path: Path, tiny_model: Any, tokenized: TokenizedPreferences) -> None:
    """Every piece is stored once, whoever made it, and all find the same values."""
    tiny_model.save_pretrained(tmp_path / "model")
    (tmp_path / "builder.py").write_text(BUILDER)
    sides = {"prompt": tokenized.prompt, "chosen": tokenized.chosen, "rejected": tokenized.rejected}
    np.savez(tmp_path / "tokens.npz", **{f"{n}{i}": side[i] for n, side in sides.items() for i in range(12)})
    words = [sys.executable, str(tmp_path / "builder.py"), str(tmp_path), str(tmp_path / "tokens.npz")]
    running = [subprocess.Popen([*words, str(tmp_path / f"out{i}.npz")], env=ALONE) for i in range(4)]
    assert [process.wait(timeout=240) for process in running] == [0] * 4
    results = [np.load(tmp_path / f"out{i}.npz") for i in range(4)]
    (folder,) = {shard.parent for shard in tmp_path.glob("*/shard-*.safetensors")}
    assert sum(int(result["made"]) for result in results) == len(list(folder.glob("shard-*"))) > 3
    for result in results[1:]:
        np.testing.assert_array_equal(result["values"], results[0]["values"])
    assert not list(folder.glob("*.part")) and not list(folder.glob("*.lock"))


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "foreign", "missing"])
def test_what_is_damaged_is_said_and_computed_again(
    tmp_path: Path,
    tiny_model: Any,
    tokenized: TokenizedPreferences,
    damage: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever file of the cache it is."""
    made = cache(tmp_path, tiny_model)
    monkeypatch.setattr(response_cache, "_PIECE_TOKENS", 100)
    first = [values.copy() for side in vars(fill(made, tokenized, lambda: tiny_model)).values() for values in side]
    files = sorted(file for file in made.folder.iterdir() if file.is_file())
    assert len(files) > 3 and made.folder / "settings.json" in files
    for file in files:
        content = bytearray(file.read_bytes())
        if damage != "foreign":
            file.unlink()  # what is mapped stays as it is
        if damage == "missing":
            pass
        elif damage == "foreign":
            file.with_name(f"shard-0{file.suffix}").write_bytes(b"not a shard")
        else:
            content[len(content) // 2] ^= 1
            file.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "flipped": content}[damage])
        caplog.clear()
        again = fill(cache(tmp_path, tiny_model), tokenized, lambda: tiny_model)
        for mine, other in zip(first, again.chosen + again.rejected, strict=True):
            np.testing.assert_array_equal(mine, other)
        said = "its values are computed again" in caplog.text
        assert said == (file.suffix == ".safetensors" and damage != "missing")
        fill(cache(tmp_path, tiny_model), tokenized, no_model)


def test_a_broken_reference_is_refused(tmp_path: Path, tiny_model: Any, tokenized: TokenizedPreferences) -> None:
    with torch.no_grad():
        tiny_model.lm_head.weight[0, 0] = torch.nan
    with pytest.raises(RunError, match="non-finite"):
        fill(cache(tmp_path, tiny_model), tokenized, lambda: tiny_model)
    assert not list(tmp_path.glob("*/shard-*"))


def first_nine(tokenized: TokenizedPreferences) -> TokenizedPreferences:
    sides = {name: getattr(tokenized, name).take(np.arange(9)) for name in ("prompt", "chosen", "rejected")}
    return replace(tokenized, ids=tokenized.ids[:9], index=tokenized.index[:9], **sides)


@contextlib.contextmanager
def as_nobody() -> Generator[None]:
    """Without root's rights to write anywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def read_only(tiny_model: Any, tokenized: TokenizedPreferences) -> Generator[Path]:
    """A cache of most of the preferences, in folders that nobody may write to."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        fill(cache(place, tiny_model), first_nine(tokenized), lambda: tiny_model)
        folders = [place, *(entry for entry in place.iterdir() if entry.is_dir())]
        for entry in folders:
            entry.chmod(0o555)
        yield place
        for entry in folders:
            entry.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="rights of other users")
def test_a_complete_cache_is_only_read(read_only: Path, tiny_model: Any, tokenized: TokenizedPreferences) -> None:
    with as_nobody():
        with pytest.raises(PermissionError):
            (read_only / "file").touch()
        found = fill(cache(read_only, tiny_model), first_nine(tokenized), no_model)
    assert len(found.chosen) == 9


@pytest.mark.skipif(sys.platform == "win32", reason="rights of other users")
def test_an_incomplete_cache_says_where_to_write(
    read_only: Path, tiny_model: Any, tokenized: TokenizedPreferences
) -> None:
    with (
        as_nobody(),
        pytest.raises(RunError, match=r"lacks log-probs of 6 responses.*Permission denied.*Set reference\.cache"),
    ):
        fill(cache(read_only, tiny_model), tokenized, no_model)
