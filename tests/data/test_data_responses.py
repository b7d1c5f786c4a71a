"""Responses: what is kept of them, and that their pairs are those of loading."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popmargin.data import load_preferences
from popmargin.data.pairs import PAIRINGS, make_pairs
from popmargin.data.responses import Responses
from popmargin.errors import ConfigError, DataError

WORDS = st.sampled_from(["a", "b", "c", "d", "e"])
PROMPT = st.lists(st.tuples(WORDS, st.none() | st.integers(-2, 2).map(float)), min_size=1, max_size=4)


def made(**more: Any) -> Responses:
    return Responses(
        ["p", "q"],
        [["a", "b", "c"], ["d", "e"]],
        {"reward": [[1.0, 3.0, 2.0], [0.0, None]], "length": [1, 2, 3, 4, 5]},
        finished=[True, False, True, True, False],
        tokens=[[3, 4, 5], [6, 7]],
        source="policy",
        round=2,
        columns={"topic": ["x", "y"], "id": ["i", "j"]},
        **more,
    )


@given(
    st.lists(PROMPT, min_size=1, max_size=4), st.sampled_from(PAIRINGS), st.sampled_from([0.0, 1.5]), st.integers(0, 3)
)
@settings(max_examples=40, deadline=None)
def test_pairs_are_those_that_loading_makes_of_rated_responses(data: Any, how: Any, min_gap: float, seed: int) -> None:
    texts = [[text for text, _ in prompt] for prompt in data]
    scores = [[score for _, score in prompt] for prompt in data]
    responses = Responses([f"p{i}" for i in range(len(data))], texts, {"score": scores})
    rows = [
        {"prompt": f"p{i}", "responses": [{"text": t, "rating": r} for t, r in zip(*columns, strict=True)]}
        for i, columns in enumerate(zip(texts, scores, strict=True))
    ]
    options: dict[str, Any] = {"pairs": how, "min_gap": min_gap, "seed": seed}
    try:
        expected = load_preferences(rows, bad_rows="drop", format="responses", **options)
    except DataError:
        with pytest.raises(DataError, match="No preference is left"):
            responses.pairs(how, by="score", min_gap=min_gap, seed=seed)
        return
    found = responses.pairs(how, by="score", min_gap=min_gap, seed=seed)
    assert list(found) == list(expected) and found.fingerprint() == expected.fingerprint()
    assert found.report.problem_counts == expected.report.problem_counts
    kept = [
        (f"p{i}", names[pair.chosen], names[pair.rejected], pair.gap)
        for i, prompt in enumerate(data)
        if len(names := [text for text, score in prompt if score is not None]) > 1
        for pair in make_pairs([s for _, s in prompt if s is not None], key=f"p{i}", **options)
        if pair.skipped is None and names[pair.chosen] != names[pair.rejected]
    ]
    assert [(*(row[name] for name in ("prompt", "chosen", "rejected")), gap) for row, gap in
            zip(found, found.rating_gap, strict=True)] == kept  # fmt: skip


def test_ties_identical_and_empty_answers_are_dropped_and_counted() -> None:
    texts = [["a", "b"], ["a", "a"], ["", "b"], ["a"], ["a", "b"], ["good", "bad"]]
    scores = [[1, 1], [2, 1], [2, 1], [1], [1, None], [2, 1]]
    data = Responses([f"p{i}" for i in range(6)], texts, {"s": scores}).pairs("best_vs_worst", by="s")
    assert data.report.problem_counts == {"too_few": 2, "tie": 1, "identical": 1, "empty": 1}
    assert (data.report.rows_in, data.report.rows_kept, data[0]["chosen"]) == (6, 1, "good")


def test_pairs_with_a_cut_side_are_dropped_and_counted_where_asked() -> None:
    texts, scores = [["a", "b", "c"], ["d", "e"], ["f", "g"]], [[3, 2, 1], [2, 1], [1, 1]]
    responses = Responses(
        ["p", "q", "r"], texts, {"s": scores}, finished=[[True, True, False], [None, True], [False] * 2]
    )
    for how, kept, counts in (
        ("best_vs_worst", ["d"], {"unfinished": 1, "tie": 1}),
        ("all", ["a", "d"], {"unfinished": 2, "tie": 1}),
    ):
        data = responses.pairs(how, by="s", unfinished="drop")  # type: ignore[arg-type]
        assert [row["chosen"] for row in data] == kept and data.report.problem_counts == counts
        assert data.report.rows_in == data.report.rows_kept + sum(counts.values())
    assert len(responses.pairs("all", by="s")) == 4
    with pytest.raises(DataError, match="no 'finished'"):
        Responses(["p"], [["a", "b"]], {"s": [1, 2]}).pairs("all", by="s", unfinished="drop")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_lists_that_belong_to_a_response_stay_its_own(tmp_path: Path, suffix: str) -> None:
    """Also where there are as many prompts as responses, so that flat lists could be lists for each prompt."""
    ids = [[[1, 2]], [[3]]]
    responses = Responses(["p", "q"], [["a"], ["b"]], {"s": [1, 2]}, fields={"token_ids": ids})
    responses.save(tmp_path / f"r{suffix}")
    loaded = Responses.load(tmp_path / f"r{suffix}")
    for table in (responses, loaded, responses.with_scores(t=[3, 4]), responses.best("s"), responses.select([0, 1])):
        assert table.field("token_ids") == [[1, 2], [3]]
    flat = Responses.load([{"prompt": p, "response": "x", "token_ids": i} for p, i in (("p", [1, 2]), ("q", [3]))])
    assert flat.field("token_ids") == [[1, 2], [3]]
    outputs = Responses.load([{"instruction": "p", "output": "x", "generator": "m", "dataset": "d"}])
    assert (outputs.field("source"), outputs.column("dataset")) == (["m"], ["d"])  # AlpacaEval's
    several = Responses(["p"], [["a", "b"]], {"s": [1, 2]}, fields={"token_ids": [[[1, 2], [3]]]})
    (pair,) = several.pairs("all", by="s")
    assert (pair["chosen_token_ids"], pair["rejected_token_ids"]) == ([3], [1, 2])


def test_what_is_known_of_responses_becomes_columns_of_the_preferences() -> None:
    data = made().pairs("best_vs_worst", by="reward")
    row = {"id": "i", "prompt": "p", "chosen": "b", "rejected": "a", "chosen_rating": 3.0, "rejected_rating": 1.0}
    row |= {"topic": "x", "chosen_length": 2.0, "rejected_length": 1.0, "chosen_tokens": 4, "rejected_tokens": 3}
    row |= {"chosen_finished": False, "rejected_finished": True, "chosen_round": 2, "rejected_source": "policy"}
    assert {name: data[0][name] for name in row} == row and len(data) == 1
    assert made().pairs("best_vs_rest", by="length").ids == ["i/2-0", "i/2-1", "j/1-0"]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".jsonl.gz"])
@pytest.mark.parametrize("talk", [False, True])
def test_saving_and_loading_keeps_everything(tmp_path: Path, suffix: str, talk: bool) -> None:
    responses = made(fields={"model": ["m", None, "m", "n", "n"]})
    if talk:
        turn = [{"role": "user", "content": "Hi"}]
        answers = [[{"role": "assistant", "content": word}] for word in ("Hello", "Go")]
        responses = Responses([turn], [answers], {"reward": [1, 2]})
    path = tmp_path / f"responses{suffix}"
    responses.save(path)
    back = Responses.load(path)
    assert list(back) == list(responses) and repr(back) == repr(responses)
    assert (back.score_names, set(back.field_names)) == (responses.score_names, set(responses.field_names))
    loaded = load_preferences(path, columns={"rating": "reward"}, bad_rows="drop")
    assert [row["chosen"] for row in loaded] == [row["chosen"] for row in responses.pairs("best_vs_worst", by="reward")]


def test_responses_come_from_the_layouts_that_preferences_come_from(tmp_path: Path) -> None:
    lists = Responses.load([{"question": "p", "generations": ["a", "b"], "ratings": [1, 2], "topic": "t"}])
    assert (lists.texts, lists.score("ratings").tolist(), lists.column("topic")) == (["a", "b"], [1.0, 2.0], ["t"])
    ranked = Responses.load(
        [{"prompt": "p", "responses": [{"response": "a", "rank": 1}, {"response": "b", "rank": 2}]}]
    )
    assert ranked.score("rating").tolist() == [-1.0, -2.0] and ranked.best("rating").texts == ["a"]
    (tmp_path / "flat.csv").write_text("prompt,answer,topic,score\np,a,t,1\np,b,t,2\nq,c,u,3\n", encoding="utf-8")
    flat = Responses.load(tmp_path / "flat.csv")
    assert flat.counts.tolist() == [2, 1] and flat.column("topic") == ["t", "u"]
    assert flat.score("score").tolist() == [1.0, 2.0, 3.0]
    (tmp_path / "bad.jsonl").write_text(json.dumps({"prompt": "p", "responses": "x"}) + "\n{", encoding="utf-8")
    for source, words in (
        (tmp_path / "bad.jsonl", r"bad.jsonl:2: not valid JSON"),
        ([{"prompt": "p", "responses": "x"}], r"row 0 \(from 0\), column 'responses': the responses are a str"),
        (
            [{"prompt": "p", "responses": [{"txt": "x"}]}],
            r"column 'text of response 0': the text of response 0 is missing",
        ),
        ([{"prompt": "p", "chosen": "x"}], "no prompt with responses found. Columns: prompt, chosen"),
    ):
        with pytest.raises(DataError, match=words):
            Responses.load(source)


def test_best_select_and_with_scores() -> None:
    responses = made()
    assert responses.best("length").texts == ["c", "e"] and responses.best("reward").texts == ["b", "d"]
    assert responses.best("reward").field("tokens") == [4, 6]
    last = responses.select([1])
    assert (last.texts, last.prompts, last.column("id"), last.field("round")) == (["d", "e"], ["q"], ["j"], [2, 2])
    np.testing.assert_array_equal(last.score("reward"), [0.0, math.nan])
    scored = responses.with_scores(reward=None, other=[[1, 2, 3], [4, 5]])
    assert scored.score_names == ("length", "other") and responses.score_names == ("reward", "length")
    assert scored.field("source") == ["policy"] * 5 and scored.column("topic") == ["x", "y"]


def test_tables_of_several_rounds_become_one(tmp_path: Path) -> None:
    """The same prompt comes together; what only one table knows is empty in the other."""
    more = Responses(["q", "r"], [["f"], ["g", "h"]], {"kl": [1, 2, 3]}, round=3, columns={"topic": ["y", "z"]})
    both = Responses.concat([made(), more])
    assert both.prompts == ["p", "q", "r"] and both.counts.tolist() == [3, 3, 2]
    assert both.texts == ["a", "b", "c", "d", "e", "f", "g", "h"] and both.field("round") == [2] * 5 + [3] * 3
    np.testing.assert_array_equal(both.score("kl"), [math.nan] * 5 + [1, 2, 3])
    np.testing.assert_array_equal(both.score("reward")[[0, 4, 5]], [1.0, math.nan, math.nan])
    assert (both.column("topic"), both.column("id"), both.field("tokens")[5]) == (
        ["x", "y", "z"],
        ["i", "j", None],
        None,
    )
    assert list(Responses.concat(iter([made()]))) == list(made())
    both.save(tmp_path / "both.parquet")
    assert list(Responses.load(tmp_path / "both.parquet")) == list(both)
    apart = Responses.concat([made(), more.with_columns(topic=["t", "z"])], merge=False)
    assert apart.prompts == ["p", "q", "q", "r"] and apart.column("topic") == ["x", "y", "t", "z"]
    with pytest.raises(
        DataError, match=r"prompt 'q' has the topic 'y' and 't'.*with_columns\(topic=None\).*merge=False"
    ):
        Responses.concat([made(), more.with_columns(topic=["t", "z"])])
    with pytest.raises(DataError, match="no responses to put together"):
        Responses.concat([])


def test_identical_answers_are_counted_and_kept_once() -> None:
    """Counts add up over rounds; scores are means, and equal ones keep their last bit."""
    drawn = Responses(["p", "q"], [["a", "b", "a", "a"], ["a"]], {"kl": [0.1] * 5, "s": [1, 2, None, 4, None]}, round=1)
    once = drawn.distinct()
    assert once.texts == ["a", "b", "a"] and once.field("count") == [3, 1, 1] and once.counts.tolist() == [2, 1]
    assert once.score("kl").tolist() == [0.1] * 3 and once.score("s")[:2].tolist() == [2.5, 2.0]
    assert math.isnan(once.score("s")[2]) and list(once.distinct()) == list(once)
    again = Responses.concat([once, drawn]).distinct()
    assert again.texts == once.texts and again.field("count") == [6, 2, 2] and again.field("round") == [1] * 3


def test_fields_slices_and_unfinished_answers() -> None:
    responses = made()
    assert responses.unfinished.tolist() == [1, 1] and responses.with_fields(finished=None).field_names[0] == "tokens"
    changed = responses.with_fields({"temperature": [0.5, 1.0, 1.0, 0.7, 1.0]}, source=[["a"] * 3, ["b"] * 2])
    assert changed.field("temperature")[0] == 0.5 and changed.field("source") == ["a"] * 3 + ["b"] * 2
    assert changed.with_fields(finished=[None, False, True, None, None]).unfinished.tolist() == [1, 0]
    with pytest.raises(DataError, match="no 'finished'"):
        _ = responses.with_fields(finished=None).unfinished
    assert list(responses[1:]) == list(responses.select([1])) and list(responses[::-1]) == [responses[1], responses[0]]
    assert responses[-1] == responses[1] and len(responses[5:]) == 0 and len(list(responses)) == 2
    with pytest.raises(IndexError, match="Prompt 2 does not exist: there are 2, counted from 0"):
        _ = responses[2]


def test_a_column_without_any_value_comes_back(tmp_path: Path) -> None:
    responses = made().with_columns(note=[None, None])
    responses.save(tmp_path / "a.jsonl")
    assert Responses.load(tmp_path / "a.jsonl").column("note") == [None, None]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Responses(["p"], []), DataError, "1 prompt, but responses to 0"),
        (lambda: Responses(["p"], [["a"]], {"s": [1, 2]}), DataError, "2 values of 's' for 1 response"),
        (lambda: Responses(["p"], [["a", "b"]], {"s": [[1]]}), DataError, "1 value of 's' for prompt 0, which has 2"),
        (lambda: Responses(["p"], [["a"]], {"s": [math.inf]}), DataError, "score 's' of response 0 is infinite"),
        (lambda: Responses(["p"], [["a"]], {"text": [1]}), DataError, "name 'text' is used twice"),
        (lambda: Responses(["p"], [["a"]], columns={"t": []}), DataError, "0 values of 't' for 1 prompt"),
        (lambda: made().score("rewrd"), DataError, r"no score 'rewrd'\. Did you mean 'reward'"),
        (lambda: made().field("token"), DataError, "no 'token'"),
        (lambda: made().column("topc"), DataError, "no column 'topc'"),
        (lambda: made()["topic"], DataError, "'topic' in square brackets: give a number or a slice there"),
        (lambda: made()[True], DataError, "True in square brackets"),
        (lambda: made()["a":], DataError, "'a' in square brackets"),  # type: ignore[misc]
        (lambda: made().select([2]), DataError, "Prompt 2 does not exist"),
        (lambda: made().with_scores(reward=None).best("reward"), DataError, "no score 'reward'"),
        (lambda: Responses(["p"], [["a"]], {"s": [None]}).best("s"), DataError, "No response to prompt 0 has a score"),
        (lambda: Responses(["p"], ["ab"]), DataError, "'ab' is one text, not a list"),
        (lambda: made().pairs("best_vs_wrst", by="reward"), ConfigError, "Did you mean 'best_vs_worst'"),  # type: ignore[arg-type]
        (
            lambda: Responses(["p"], [["a", "b"]], {"s": [1, 1]}).pairs("all", by="s"),
            DataError,
            "No preference is left of 1",
        ),
    ],
)
def test_mistakes_are_answered_in_words(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
