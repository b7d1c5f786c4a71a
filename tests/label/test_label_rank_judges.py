"""Ranking by judges as they are named: a server in a process, a local model, a reward, and a function."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import Served

from popmargin.data.responses import Responses
from popmargin.errors import ConfigError, RunError
from popmargin.label.ranking.comparers import Comparer, load_comparer
from popmargin.label.ranking.rank import rank_responses
from popmargin.label.ranking.ranking import EVEN
from popmargin.label.ranking.ranking_report import ranking_report

CODE = """
seen = []
def longer(prompts, first, second):
    seen.append(len(first))
    return ["tie" if len(a) == len(b) else "first" if len(a) > len(b) else "second" for a, b in zip(first, second)]
def length(prompts, completions):
    seen.append(len(completions))
    return [len(text) for text in completions]
def broken(prompts, first, second):
    raise KeyError("key")
"""


@pytest.fixture
def responses() -> Responses:
    """The longer one is better to the server, too; one prompt is vague."""
    texts = [["a" * size for size in (3, 7, 1, 5)], ["b" * size for size in (2, 6)]]
    return Responses(["Say a.", "Say b."], texts)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "judges.py"
    path.write_text(CODE)
    return path


def judge(server: Served, tmp_path: Path, **options: Any) -> Comparer:
    return load_comparer(server.spec, cache=tmp_path / "cache.jsonl", backoff=0.01, **options)


def test_a_server_is_asked_each_ordered_question_once_and_never_again(
    serve: Callable[..., Served], responses: Responses, tmp_path: Path
) -> None:
    """M = 4 and 2 under the champion scheme: 2(2·4 − 3) + 2 calls, one less pair where it is needed twice, and the
    direct question; a second run and another scheme pay for nothing that was asked."""
    server = serve()
    comparer = judge(server, tmp_path, price_in=10.0)
    ranking = rank_responses(responses, comparer.compare, again=comparer.again)
    assert len(server.calls) == ranking.calls == comparer.account.asked == sum(of.calls for of in ranking.prompts)
    assert ranking.calls <= ranking.plan.most_calls == 14
    assert comparer.account.cost == pytest.approx(ranking.calls * 100 * 10e-6)
    rows = [ranking.preferences()[row] for row in range(2)]
    assert [(len(row["chosen"]), len(row["rejected"])) for row in rows] == [(7, 1), (6, 2)]
    again = judge(server, tmp_path)
    same = rank_responses(responses, again.compare, again=again.again)
    assert again.account.asked == 0 and same.preferences().fingerprint() == ranking.preferences().fingerprint()
    every = judge(server, tmp_path)
    whole = rank_responses(responses, every.compare, again=every.again, scheme="round_robin")
    assert whole.calls == 14 and len(server.calls) == 14


def test_a_server_that_always_names_a_gives_no_preference(
    serve: Callable[..., Served], responses: Responses, tmp_path: Path
) -> None:
    """Its probabilities of .9 for A say the same in both orders."""
    comparer = judge(serve("place"), tmp_path)
    ranking = rank_responses(responses, comparer.compare, again=comparer.again)
    assert [of.fate for of in ranking.prompts] == [EVEN, EVEN]
    assert ranking_report(ranking).first_place.estimate == 1.0


def test_unreadable_answers_get_one_reminder_that_is_cached_too(serve: Callable[..., Served], tmp_path: Path) -> None:
    """Two questions of two prompts; those of the vague one are asked again with a reminder, once."""
    server = serve("vague")
    responses = Responses(["A vague wish.", "Say b."], [["x", "xxx"], ["b", "bbb"]])
    for _ in range(2):
        comparer = judge(server, tmp_path)
        ranking = rank_responses(responses, comparer.compare, again=comparer.again)
        contents = [call["messages"][0]["content"] for call in server.calls]
        assert len(contents) == 6 and sum("could not be read" in text for text in contents) == 2
        assert (ranking.repeated, ranking.prompts[0].count("unknown"), len(ranking.preferences())) == (2, 1, 1)
    server.mend()
    fresh = judge(server, tmp_path / "fresh")
    ranking = rank_responses(responses, fresh.compare, again=fresh.again)
    assert (ranking.repeated, len(ranking.preferences())) == (0, 2)


def test_a_server_that_fails_for_one_prompt_leaves_that_one_out(serve: Callable[..., Served], tmp_path: Path) -> None:
    server = serve("filter")
    responses = Responses(["A vague wish.", "Say b."], [["x", "xxx"], ["b", "bbb"]])
    comparer = judge(server, tmp_path)
    ranking = rank_responses(responses, comparer.compare, again=comparer.again)
    assert len(ranking.preferences()) == 1 and ranking.prompts[0].count("unknown") == 1
    assert comparer.account.failed > 0 and "HTTP 400" in " ".join(comparer.account.usage())


def test_a_local_model_compares(model_path: str, responses: Responses, tmp_path: Path) -> None:
    """A random model has a verdict on every question, and gives the same ranking from its cache."""
    comparer = load_comparer(f"local:{model_path}", cache=tmp_path / "cache.jsonl", prompt=_prompt(tmp_path))
    ranking = rank_responses(responses, comparer.compare, again=comparer.again)
    assert ranking.repeated == 0 and comparer.account.asked == ranking.calls
    again = load_comparer(f"local:{model_path}", cache=tmp_path / "cache.jsonl", prompt=_prompt(tmp_path))
    other = rank_responses(responses, again.compare, again=again.again)
    assert again.account.asked == 0 and other.comparisons().equals(ranking.comparisons())


def _prompt(folder: Path) -> Path:
    path = folder / "prompt.txt"
    path.write_text("{prompt}\nA {first}\nB {second}\nBetter:")
    return path


def test_a_reward_scores_each_response_once(code: Path, responses: Responses) -> None:
    comparer = load_comparer(f"{code}:length")
    ranking = rank_responses(responses, comparer.compare, again=comparer.again, scheme="round_robin")
    assert comparer.pays == "response" and comparer.account.asked == 6
    assert [len(ranking.preferences()[row]["chosen"]) for row in range(2)] == [7, 6]
    assert ranking_report(ranking).contradictions.estimate == 0.0


def test_a_function_of_two_responses_compares_by_itself(code: Path, responses: Responses) -> None:
    comparer = load_comparer(f"{code}:longer")
    assert comparer.pays == "comparison"
    ranking = rank_responses(responses, comparer.compare)
    assert [len(ranking.preferences()[row]["rejected"]) for row in range(2)] == [1, 2]
    with pytest.raises(RunError, match=r"broken.*KeyError"):
        rank_responses(responses, load_comparer(f"{code}:broken").compare)
    with pytest.raises(ConfigError, match="takes no options, but got workers"):
        load_comparer(f"{code}:longer", workers=3)


def test_ratings_are_no_judge() -> None:
    with pytest.raises(ConfigError, match="need no ranking"):
        load_comparer("ratings")
