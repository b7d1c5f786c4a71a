"""Iterative pairwise ranking: schemes, their counts of calls, what becomes of ties, and what is reported."""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popmargin.data.load import load_preferences
from popmargin.data.questions import Verdict
from popmargin.data.responses import Responses
from popmargin.errors import ConfigError, DataError, RunError
from popmargin.label.ranking.contests import BEYOND, TOO_FEW, plan_ranking
from popmargin.label.ranking.rank import rank_responses
from popmargin.label.ranking.ranking import EVEN, KEPT, LOST, UNREAD
from popmargin.label.ranking.ranking_report import ranking_report
from popmargin.label.ranking.schemes import SCHEMES, Outcome, Pair, Scheme, Standing, comparisons_of, outcome_of, replay

QUALITY = {"A": 3.0, "B": 1.0, "C": 2.0, "D": 0.0}
ALL: list[Scheme] = ["champion", "pairs", "round_robin"]


def play(scheme: Scheme, order: Sequence[int], better: Callable[[int, int], Outcome]) -> tuple[Standing, int]:
    """A whole game and the number of pairs that were asked."""
    known: dict[Pair, Outcome] = {}
    while True:
        standing = replay(scheme, order, known)
        if not standing.wanted:
            return standing, len(known)
        for pair in standing.wanted:
            assert outcome_of(known, pair) is None
            known[pair] = better(*pair)


def by(qualities: Sequence[float]) -> Callable[[int, int], Outcome]:
    return lambda i, j: "tie" if qualities[i] == qualities[j] else "first" if qualities[i] > qualities[j] else "second"


def perfect(prompts: Sequence[Any], first: Sequence[Any], second: Sequence[Any]) -> list[Verdict]:
    """Responses are numbers; the larger one is better."""
    return ["first" if float(a) > float(b) else "second" for a, b in zip(first, second, strict=True)]


def always_first(prompts: Sequence[Any], first: Sequence[Any], second: Sequence[Any]) -> list[Verdict]:
    return ["first" for _ in first]


def numbers(rows: Sequence[Sequence[float]], **parts: Any) -> Responses:
    return Responses([f"q{row}" for row in range(len(rows))], [[str(value) for value in of] for of in rows], **parts)


def test_golden_case() -> None:
    """Order C A D B. Champion: C–A, A–D, A–B, then C–D and D–B among the losers C, D, B: 5 comparisons, A and D.
    Pairs: C–A and D–B, then A–B and C–D: 4 comparisons; A–D has not been asked and is asked at last."""
    names, order = "ABCD", [2, 0, 3, 1]
    end, asked = play("champion", order, by(list(QUALITY.values())))
    assert ["".join(names[i] for i in pair) for pair, _ in end.played] == ["CA", "AD", "AB", "CD", "DB"]
    assert (names[end.best or 0], names[end.worst or 0], asked, end.direct) == ("A", "D", 5, "first")
    end, asked = play("pairs", order, by(list(QUALITY.values())))
    assert ["".join(names[i] for i in pair) for pair, _ in end.played] == ["CA", "DB", "AB", "CD"]
    assert (names[end.best or 0], names[end.worst or 0], asked, end.direct) == ("A", "D", 5, "first")


@pytest.mark.parametrize("count", range(2, 17))
def test_comparisons_and_calls_are_exact(count: int) -> None:
    """champion 4M − 6 calls, pairs 2(⌈3M/2⌉ − 2), round robin M(M − 1) where no pair is needed twice, as when the best
    response comes first. In any other order a scheme plays as many comparisons, and asks no more."""
    calls = {"champion": 4 * count - 6, "pairs": 2 * (math.ceil(1.5 * count) - 2), "round_robin": count * (count - 1)}
    falling = list(range(count, 0, -1))
    for scheme in ALL:
        end, asked = play(scheme, list(range(count)), by(falling))
        extra = frozenset((end.best, end.worst)) not in {frozenset(pair) for pair, _ in end.played}
        assert 2 * (asked - extra) == calls[scheme] == 2 * comparisons_of(scheme, count)
        plan = plan_ranking(numbers([falling]), scheme=scheme)
        assert plan.calls == calls[scheme] and plan.most_calls in (calls[scheme], calls[scheme] + 2)
        for seed in range(5):
            ranking = rank_responses(numbers([falling]), perfect, scheme=scheme, seed=seed)
            of = ranking.prompts[0]
            assert len(of.standing.played) == comparisons_of(scheme, count)
            assert of.calls == ranking.calls == 2 * len(of.games) <= plan.most_calls


@given(st.permutations(range(9)), st.integers(2, 9))
@settings(max_examples=60)
def test_a_perfect_judge_finds_best_and_worst_under_each_scheme(order: list[int], count: int) -> None:
    players = [number for number in order if number < count]
    for scheme in ALL:
        end, _ = play(scheme, players, by(list(range(count))))
        assert (end.best, end.worst, end.direct) == (count - 1, 0, "first")


def test_a_judge_that_likes_the_first_place_gives_ties_and_no_preference() -> None:
    """The champion is the first of the random order: a tie keeps it."""
    responses = numbers([range(5), range(4)])
    for scheme in ALL:
        ranking = rank_responses(responses, always_first, scheme=scheme, seed=3)
        for of in ranking.prompts:
            assert of.standing.best == of.contest.order[0] and set(of.games.values()) == {"tie"}
            assert of.fate == EVEN
        report = ranking_report(ranking)
        assert (report.ties.estimate, report.first_place.estimate, report.contradictions.estimate) == (1.0, 1.0, 1.0)
        assert ranking.step().arithmetic == f"2 in = 0 kept + 2 left out ({EVEN}: 2)"
        with pytest.raises(DataError, match="won the same share: 2"):
            ranking.preferences()
    single = rank_responses(responses, always_first, orders="one", seed=3)
    assert "tie" not in single.prompts[0].games.values()  # one order takes the liking for wins


def test_an_intransitive_judge_shows_in_the_round_robin() -> None:
    """A > B > C > A, all above D: one of four triples is a cycle. A champion that lost directly is dropped."""
    beats = {("A", "B"), ("B", "C"), ("C", "A"), ("A", "D"), ("B", "D"), ("C", "D")}

    def judge(prompts: Sequence[Any], first: Sequence[Any], second: Sequence[Any]) -> list[Verdict]:
        return ["first" if pair in beats else "second" for pair in zip(first, second, strict=True)]

    cycles = ranking_report(rank_responses(Responses(["q"], [list("ABCD")]), judge, scheme="round_robin")).cycles
    assert cycles is not None and (cycles.triads, cycles.cyclic.estimate, cycles.on_cycles) == (4, 0.25, 0.5)
    lines = ranking_report(rank_responses(Responses(["q"], [list("ABCD")]), judge, scheme="round_robin")).lines()
    assert any("cycles: 25.0%" in line and "of 4 triples" in line for line in lines)
    fates = {
        rank_responses(Responses(["q"], [list("ABC")]), judge, scheme="champion", seed=seed).prompts[0].fate
        for seed in range(8)
    }
    assert LOST in fates and KEPT not in fates


def simulated(
    scheme: Scheme, orders: Any, *, temperature: float, bias: float, count: int, prompts: int, seed: int = 1
) -> tuple[list[float], list[float]]:
    """The three shares of the note's table, and their standard errors."""
    rng = np.random.default_rng(seed)
    qualities = rng.normal(size=(prompts, count)).round(9)
    coin = random.Random(seed)

    def judge(asked: Sequence[Any], first: Sequence[Any], second: Sequence[Any]) -> list[Verdict]:
        gaps = [(float(b) - float(a)) / temperature - bias for a, b in zip(first, second, strict=True)]
        chances = [1 / (1 + math.exp(gap)) for gap in gaps]
        return ["first" if coin.random() < chance else "second" for chance in chances]

    ranking = rank_responses(numbers(qualities.tolist()), judge, scheme=scheme, orders=orders, seed=seed)
    found: list[list[float]] = []
    for of in ranking.prompts:
        if of.fate == KEPT:
            quality = qualities[of.contest.row]
            best, worst = quality[of.standing.best], quality[of.standing.worst]
            found.append([(best - worst) / (quality.max() - quality.min()), best == quality.max(), best < worst])
    values = np.array(found, dtype=float)
    return values.mean(axis=0).tolist(), (values.std(axis=0) / math.sqrt(len(values))).tolist()


@pytest.mark.parametrize(
    ("judge", "scheme", "orders", "expected"),
    [
        ((0.5, 0, 4), "champion", "both", (0.85, 0.74, 0.02)),
        ((0.5, 0, 4), "pairs", "both", (0.82, 0.71, 0.03)),
        ((0.5, 0, 4), "round_robin", "both", (0.88, 0.76, 0.01)),
        ((0.5, 0, 4), "champion", "one", (0.80, 0.71, 0.04)),
        ((0.5, 1, 8), "champion", "both", (0.86, 0.63, 0.00)),
        ((0.5, 1, 8), "pairs", "both", (0.84, 0.60, 0.00)),
        ((0.5, 1, 8), "champion", "one", (0.76, 0.56, 0.02)),
        ((1.0, 1, 8), "champion", "both", (0.69, 0.46, 0.03)),
        ((1.0, 1, 8), "pairs", "both", (0.64, 0.43, 0.05)),
        ((1.0, 1, 8), "champion", "one", (0.49, 0.35, 0.13)),
    ],
)
def test_what_both_orders_and_more_comparisons_buy(
    judge: tuple[float, float, int], scheme: Scheme, orders: Any, expected: tuple[float, ...]
) -> None:
    """The simulation: share of the largest possible gap, best is the true best, chosen is worse than rejected.

    A judge is its temperature, its bias to the first place, and the number of responses.
    """
    temperature, bias, count = judge
    prompts = 1500 if count == 4 else 500
    shares, errors = simulated(scheme, orders, temperature=temperature, bias=bias, count=count, prompts=prompts)
    for share, error, value in zip(shares, errors, expected, strict=True):
        assert abs(share - value) < 3.5 * math.hypot(error, 0.008) + 0.005


def test_every_ordered_question_is_asked_once_and_together() -> None:
    """Repeated prompts and merged duplicates cost nothing; a round asks all prompts at once."""
    seen: list[tuple[str, str, str]] = []
    rounds: list[int] = []

    def judge(prompts: Sequence[Any], first: Sequence[Any], second: Sequence[Any]) -> list[Verdict]:
        seen.extend(zip(prompts, first, second, strict=True))
        rounds.append(len(first))
        return perfect(prompts, first, second)

    rows = [["1", "2", "3", "2", ""], ["7", "7"], ["4", "5"], ["3", "2", "1"]]
    responses = Responses(["q", "r", "s", "q"], rows)
    ranking = rank_responses(responses, judge, scheme="round_robin")
    assert len(seen) == len(set(seen)) == ranking.calls == 6 + 2 and rounds == [8]
    assert [of.calls for of in ranking.prompts] == [6, 2, 6]
    assert ranking.plan.contests[0].merged == 1 and ranking.plan.contests[0].blank == 1
    assert (
        ranking.plan.left_out == {1: TOO_FEW} and "empty responses, which do not play: 1" in ranking.plan.step().notes
    )
    assert ranking.step().arithmetic == f"4 in = 3 kept + 1 left out ({TOO_FEW}: 1)"
    assert ranking.scored().score("won").tolist()[:4] == [0.0, 0.5, 1.0, 0.5]  # a duplicate shares its twin's score


def test_unreadable_answers_are_asked_for_once_more_and_are_neither_ties_nor_losses() -> None:
    """One judge is unreadable the first time it sees a question, the other whenever it sees the pair 1–2."""
    seen: list[tuple[Any, Any]] = []

    def shy(prompts: Sequence[Any], first: Sequence[Any], second: Sequence[Any]) -> list[Verdict]:
        pairs = list(zip(first, second, strict=True))
        answers = perfect(prompts, first, second)
        answers = [answer if pair in seen else "unsure" for pair, answer in zip(pairs, answers, strict=True)]
        seen.extend(pairs)
        return answers

    def mute(prompts: Sequence[Any], first: Sequence[Any], second: Sequence[Any]) -> list[Verdict]:
        pairs = zip(first, second, perfect(prompts, first, second), strict=True)
        return ["unsure" if {a, b} == {"1", "2"} else answer for a, b, answer in pairs]

    responses = Responses(["q"], [["1", "2", "3"]])
    ranking = rank_responses(responses, shy, scheme="round_robin")
    assert (ranking.calls, ranking.repeated) == (6, 6) and ranking.preferences()[0]["chosen"] == "3"
    ranking = rank_responses(responses, mute, scheme="round_robin")
    report = ranking_report(ranking)
    assert (ranking.repeated, report.no_outcome, report.comparisons, report.ties.estimate) == (2, 1, 3, 0.0)
    assert ranking.preferences()[0]["no_outcome"] == 1 and ranking.preferences()[0]["ties"] == 0
    assert ranking.scored().score("won").tolist() == [0.0, 0.0, 1.0]  # of the other comparisons alone
    asked: list[int] = []

    def reminder(prompts: Sequence[Any], first: Sequence[Any], second: Sequence[Any]) -> list[Verdict]:
        asked.append(len(first))
        return perfect(prompts, first, second)

    assert rank_responses(responses, mute, scheme="round_robin", again=reminder).prompts[0].count("unknown") == 0
    assert asked == [2]
    two = rank_responses(Responses(["q"], [["1", "2"]]), mute)
    assert two.prompts[0].fate == UNREAD


def test_preferences_say_how_they_came_about(tmp_path: Path) -> None:
    """Scores, fields and columns go along; ratings are the shares won, and the file is read again as it was written."""
    responses = numbers(
        [[2, 0, 1, 3], [5, 4]],
        scores={"reward": [[0.1, 0.2, 0.3, 0.4], [0.5, 0.6]]},
        tokens=[[1, 2, 3, 4], [5, 6]],
        columns={"topic": ["sums", "more"]},
    )
    ranking = rank_responses(responses, perfect, seed=5)
    preferences = ranking.preferences()
    row = preferences[0]
    assert (row["chosen"], row["rejected"], row["chosen_rating"], row["rejected_rating"]) == ("3", "0", 1.0, 0.0)
    assert (row["chosen_reward"], row["rejected_tokens"], row["topic"]) == (0.4, 2, "sums")
    assert (row["scheme"], row["seed"], row["comparisons"]) == ("champion", 5, 5)
    assert row["order_of_play"] == list(ranking.prompts[0].contest.order) and sorted(row["order_of_play"]) == [
        0,
        1,
        2,
        3,
    ]
    assert row["bt_gap"] == pytest.approx(row["chosen_bt"] - row["rejected_bt"]) and row["bt_gap"] > 0
    assert row["calls"] == ranking.prompts[0].calls and preferences.strength.tolist() == [1.0, 1.0]
    preferences.save(tmp_path / "pairs.parquet")
    again = load_preferences(tmp_path / "pairs.parquet")
    assert again.fingerprint() == preferences.fingerprint() and again.column("bt_gap").tolist()[0] == row["bt_gap"]
    ranking.save_comparisons(tmp_path / "all.jsonl")
    rows = list(ranking.rows())
    assert len(rows) == len((tmp_path / "all.jsonl").read_text().splitlines())
    assert sum(row["asked"] for row in rows) == sum(len(of.games) for of in ranking.prompts)
    for row in rows:
        better, worse = (row["first"], row["second"]) if row["outcome"] == "first" else (row["second"], row["first"])
        assert float(better) > float(worse) and {row["answer"], row["answer_turned"]} == {"first", "second"}


def test_the_result_depends_on_the_seed_and_not_on_other_prompts() -> None:
    """The order of play belongs to the prompt; another seed draws another one."""
    responses = numbers([range(6), range(7)])
    one = rank_responses(responses, always_first, seed=1)
    other = rank_responses(responses.select([1]), always_first, seed=1)
    assert one.prompts[1].contest.order == other.prompts[0].contest.order
    assert one.prompts[1].contest.order != rank_responses(responses, always_first, seed=2).prompts[1].contest.order
    assert [list(of.games.items()) for of in one.prompts] == [
        list(of.games.items()) for of in rank_responses(responses, always_first, seed=1).prompts
    ]


def test_a_limit_takes_the_first_prompts_and_none_half() -> None:
    responses = numbers([range(4), range(4), range(2)])
    asked: list[int] = []

    def judge(prompts: Sequence[Any], first: Sequence[Any], second: Sequence[Any]) -> list[Verdict]:
        asked.append(len(first))
        return perfect(prompts, first, second)

    ranking = rank_responses(responses, judge, limit=20)
    assert sum(asked) <= 12 and ranking.plan.left_out == {1: BEYOND, 2: BEYOND}
    assert ranking.step().left_out == {BEYOND: 2}
    assert plan_ranking(responses, limit=0).contests == ()
    assert [plan_ranking(responses, scheme=scheme).most_calls for scheme in ALL] == [12 + 12 + 2, 10 + 10 + 2, 26]


def test_the_length_of_what_is_chosen_is_reported() -> None:
    """Longer is chosen in one of two pairs, 4 times and a quarter as long."""
    texts = [["8" * 8, "1" * 2], ["9", "1234"]]

    def judge(prompts: Sequence[Any], first: Sequence[Any], second: Sequence[Any]) -> list[Verdict]:
        return ["first" if a[0] > b[0] else "second" for a, b in zip(first, second, strict=True)]

    report = ranking_report(rank_responses(Responses(["q", "r"], texts), judge))
    assert (report.longer.estimate, report.pairs) == (0.5, 2)
    assert report.length_gap.estimate == pytest.approx(0.0, abs=1e-12)
    assert report.to_dict()["longer"]["estimate"] == 0.5 and any(
        "the longer response" in line for line in report.lines()
    )


def test_wrong_input_is_named() -> None:
    responses = numbers([range(3)])
    with pytest.raises(ConfigError, match=r"scheme is 'champions'.*champion"):
        rank_responses(responses, perfect, scheme="champions")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="orders is 'two'"):
        rank_responses(responses, perfect, orders="two")  # pyright: ignore[reportArgumentType]
    with pytest.raises(RunError, match="2 comparisons were asked, but 1 answers came"):
        rank_responses(responses, lambda prompts, first, second: ["first"])
    with pytest.raises(RunError, match="answered with 'A'"):
        rank_responses(responses, lambda prompts, first, second: ["A"] * len(first))  # pyright: ignore
    with pytest.raises(DataError, match="already have a column 'won'"):
        rank_responses(responses.with_scores(won=[1.0, 2.0, 3.0]), perfect).preferences()
    assert set(SCHEMES) == set(ALL)


def test_messages_rank_like_texts() -> None:
    """Prompts and responses as messages; a contest of two needs a single comparison."""
    turn = [[[{"role": "assistant", "content": str(value)}] for value in (1, 5, 3)]]
    prompt: list[Any] = [[{"role": "user", "content": "q"}]]

    def judge(prompts: Sequence[Any], first: Sequence[Any], second: Sequence[Any]) -> list[Verdict]:
        return perfect(prompts, [a[0]["content"] for a in first], [b[0]["content"] for b in second])

    ranking = rank_responses(Responses(prompt, turn), judge)
    row = ranking.preferences()[0]
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("5", "1")
    assert len(list(itertools.islice(ranking.rows(), 3))) == 3 and ranking.comparisons().num_rows == 3
