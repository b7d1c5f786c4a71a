"""Log-probs and margins of any model as tables, and PoP target margins of edges."""

import copy
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset

from popmargin import PopEdges, Table, load_preferences, log_probs, margins, target_margins
from popmargin.data import tokenize_preferences
from popmargin.errors import ConfigError, DataError, MissingExtraError
from popmargin.margin import Margin
from popmargin.objectives.base import Rows
from popmargin.objectives.pop import target_margin


def by_hand(model: Any, prompt: np.ndarray, completion: np.ndarray) -> torch.Tensor:
    """Log-probs of a completion's tokens from the logits of one unpadded sequence, nats."""
    ids = torch.from_numpy(np.concatenate([prompt, completion]))[None]
    with torch.no_grad():
        logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return logps.gather(1, ids[0, 1:, None]).squeeze(1)[len(prompt) - 1 :]


def test_log_probs_are_those_of_single_sequences(
    tiny_model: Any, tiny_tokenizer: Any, rows: list[dict[str, Any]]
) -> None:
    table = log_probs(tiny_model.train(), tiny_tokenizer, rows[:6], per_token=True, tokens_per_batch=64)
    assert tiny_model.training  # left as it was
    tokens = tokenize_preferences(load_preferences(rows[:6]), tiny_tokenizer)
    assert table.ids == tokens.ids == [row["id"] for row in rows[:6]]
    for number in range(6):
        for side, completion in (("chosen", tokens.chosen[number]), ("rejected", tokens.rejected[number])):
            expected = by_hand(tiny_model.eval(), tokens.prompt[number], completion)
            np.testing.assert_allclose(table[f"{side}_token_logps"][number], expected, atol=1e-5)
            assert table[f"{side}_logps"][number] == pytest.approx(float(expected.sum()), abs=1e-4)
            assert table[f"{side}_tokens"][number] == len(completion)


def test_every_source_and_a_path_give_the_same(
    tiny_model: Any, tiny_tokenizer: Any, rows: list[dict[str, Any]], data_path: str, model_path: str
) -> None:
    expected = log_probs(tiny_model, tiny_tokenizer, rows)["chosen_logps"]
    for source in (data_path, Dataset.from_list(rows), load_preferences(rows)):
        np.testing.assert_array_equal(log_probs(model_path, None, source)["chosen_logps"], expected)


def test_margins_are_differences_of_log_ratios(
    make_model: Any, tiny_tokenizer: Any, rows: list[dict[str, Any]]
) -> None:
    model, reference = make_model(seed=1), make_model(seed=2)
    table = margins(model, reference, rows, tokenizer=tiny_tokenizer, beta=0.1)
    own, other = (log_probs(each, tiny_tokenizer, rows) for each in (model, reference))
    expected = (own["chosen_logps"] - other["chosen_logps"]) - (own["rejected_logps"] - other["rejected_logps"])
    np.testing.assert_allclose(table["margin"], expected, atol=1e-9)
    np.testing.assert_allclose(table["reward_margin"], 0.1 * expected, atol=1e-9)
    np.testing.assert_array_equal(table["reference_chosen_logps"], other["chosen_logps"])
    alone = margins(model, None, rows, tokenizer=tiny_tokenizer)
    np.testing.assert_allclose(alone["margin"], own["chosen_logps"] - own["rejected_logps"])
    assert "reference_chosen_logps" not in alone and "reward_margin" not in alone


def test_an_adapter_is_scored_as_it_is_put_on(tiny_model: Any, tiny_tokenizer: Any, rows: list[dict[str, Any]]) -> None:
    from peft import LoraConfig, get_peft_model

    adapted: Any = get_peft_model(copy.deepcopy(tiny_model), LoraConfig(r=4, target_modules=["q_proj"]))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter += 0.5
    merged: Any = copy.deepcopy(adapted).merge_and_unload()
    got, expected = (log_probs(each, tiny_tokenizer, rows[:8])["chosen_logps"] for each in (adapted, merged))
    np.testing.assert_allclose(got, expected, atol=1e-3)
    assert np.abs(got - log_probs(tiny_model, tiny_tokenizer, rows[:8])["chosen_logps"]).max() > 0.01


def test_what_is_left_out_is_named(
    tiny_model: Any, tiny_tokenizer: Any, rows: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    long = {"id": "long", "prompt": "sky " * 60, "chosen": "blue", "rejected": "green"}
    with caplog.at_level(logging.WARNING):
        table = log_probs(tiny_model, tiny_tokenizer, [*rows[:2], long], max_length=96, truncation="drop")
    assert table.rows == 2 and table.left_out == (("long", "too_long"),)
    assert "data.max_length" in caplog.text or "max_length" in caplog.text


def test_a_model_in_memory_needs_its_tokenizer(tiny_model: Any, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match="comes without its tokenizer"):
        log_probs(tiny_model, None, rows)
    with pytest.raises(ConfigError, match="must be a transformers model"):
        log_probs(torch.nn.Linear(2, 2), object(), rows)


def test_a_tokenizer_without_padding_is_left_as_it_is(
    tiny_model: Any, tiny_tokenizer: Any, rows: list[dict[str, Any]]
) -> None:
    bare = copy.deepcopy(tiny_tokenizer)
    bare.pad_token = None
    np.testing.assert_allclose(
        log_probs(tiny_model, bare, rows[:4])["chosen_logps"],
        log_probs(tiny_model, tiny_tokenizer, rows[:4])["chosen_logps"],
    )
    assert bare.pad_token is None


def test_target_margins_are_those_of_the_objective() -> None:
    names = ["a", "b", "c", "d"]
    edges = PopEdges.from_columns(["a", "b", "c", "a"], ["b", "c", None, "d"], tie=[False, False, False, True])
    gaps = Table({"id": names, "margin": [5.0, 1.5, 12.0, -3.0]})
    table = target_margins(edges, gaps, margin_min=0.5, margin_max=8.0)
    rows = Rows(
        chosen=torch.zeros(3),
        rejected=torch.zeros(3),
        target=Margin(values=torch.tensor([1.5, 12.0, 0.0]), unit="nats"),
        has_weaker=torch.tensor([True, True, False]),
    )
    assert table["target_margin"].tolist() == target_margin(rows, 0.5, 8.0).values.tolist() == [1.5, 8.0, 0.0]
    assert table["stronger"].tolist() == ["a", "b", "c"] and table["weaker"].tolist() == ["b", "c", None]
    mapping = {name: float(gap) for name, gap in zip(names, gaps["margin"], strict=True)}
    assert target_margins(edges, mapping)["target_margin"].tolist() == [1.5, 10.0, 0.0]


def test_a_weaker_preference_without_a_gap_is_named() -> None:
    edges = PopEdges.from_columns(["a", "b"], ["b", "c"])
    with pytest.raises(DataError, match=r"No finite gap for 2 weaker preferences of the edges \(b, c\)"):
        target_margins(edges, {"a": 1.0, "b": float("nan")})
    with pytest.raises(ValueError, match=r"margin_min 3\.0 is above margin_max 1\.0"):
        target_margins(edges, {"b": 1.0, "c": 1.0}, margin_min=3, margin_max=1)


def test_tables_are_saved_as_their_name_says(tmp_path: Path) -> None:
    plain = Table({"id": ["a", "b"], "margin": [0.5, -1.0], "weaker": ["b", None]})
    plain.save(tmp_path / "t.parquet")
    assert pq.read_table(tmp_path / "t.parquet").to_pydict() == {name: plain[name].tolist() for name in plain}
    plain.save(tmp_path / "t.jsonl")
    assert json.loads((tmp_path / "t.jsonl").read_text().splitlines()[1]) == {"id": "b", "margin": -1.0, "weaker": None}
    plain.save(tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().splitlines()[1] == '"a",0.5,"b"'
    with pytest.raises(ConfigError, match=r"written as \.parquet, \.csv or \.jsonl"):
        plain.save(tmp_path / "t.xlsx")
    ragged = Table({"id": ["a", "b"], "logps": [np.array([1.0, 0.5]), [2.0, 3.0]]})
    ragged.save(tmp_path / "r.parquet")
    assert pq.read_table(tmp_path / "r.parquet")["logps"].to_pylist() == [[1.0, 0.5], [2.0, 3.0]]
    with pytest.raises(DataError, match="logps have a list per row"):
        ragged.save(tmp_path / "r.csv")
    assert not (tmp_path / "r.csv").exists() and ragged.rows == 2
    assert Dataset.from_dict(dict(plain))["margin"][:] == [0.5, -1.0]
    with pytest.raises(DataError, match="id 2, margin 1"):
        Table({"id": ["a", "b"], "margin": [1.0]})


def test_pandas_where_it_is_installed() -> None:
    table = Table({"id": ["a"], "margin": [0.5]})
    with pytest.raises(DataError, match=r"^The table has no column 'margn'\. Did you mean 'margin'\?"):
        _ = table["margn"]
    assert "margn" not in table and table.get("margn") is None
    with pytest.raises(DataError, match="no column 'id'"):
        _ = Table({"margin": [0.5]}).ids
    try:
        import pandas  # pyright: ignore  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match="pandas"):
            table.to_pandas()
    else:
        assert table.to_pandas()["margin"].tolist() == [0.5]


def test_mistakes_get_a_sentence(tiny_model: Any, rows: list[dict[str, Any]]) -> None:
    edges: Any = PopEdges.from_columns(["a"], ["b"])
    with pytest.raises(ConfigError, match=r"PopEdges\.load reads a file"):
        target_margins("edges.parquet", {"b": 1.0})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="from id to gap, not list"):
        target_margins(edges, [1.0])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"margin_min 5\.0 is above margin_max 2"):
        target_margins(edges, {"b": 1.0}, margin_min=5, margin_max=2)
    with pytest.raises(ConfigError, match="The tokenizer is a text"):
        log_probs(tiny_model, "my-model", rows)
