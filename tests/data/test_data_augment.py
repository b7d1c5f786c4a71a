"""Reward-augmented data: two rows a pair that differ in the goal and in which response is chosen, and nothing else."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popmargin.data.augment import augment, place_for, without_goals
from popmargin.data.goal_scores import goals_of
from popmargin.data.goals import (
    HEAD,
    GoalFacts,
    asking,
    asks_for_goal,
    bodies,
    distinct_rows,
    goal_facts,
    with_goal,
    without_goal,
)
from popmargin.data.load import load_preferences
from popmargin.data.schema import Preferences
from popmargin.data.split import check_leak, split_preferences
from popmargin.errors import ConfigError, DataError

FACTS = GoalFacts(("Overall score",), ({"kind": "as they are"},), best=(9.0,))


def pair(
    prompt: Any = "x", chosen: Any = "good", rejected: Any = "bad", high: float = 9, low: float = 4.5, **more: Any
) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "chosen_rating": high,
        "rejected_rating": low,
        **more,
    }


def load(*rows: dict[str, Any]) -> Preferences:
    return load_preferences(list(rows), ties="keep")


def turn(text: str, role: str = "user") -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def goal_line(row: dict[str, Any]) -> str:
    text = row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][0]["content"]
    return text.removeprefix(HEAD).partition("\n")[0]


def test_golden_case() -> None:
    """{x, good, bad, 9, 4.5} → goal 9: good ≻ bad; goal 4.5: bad ≻ good; 9.0 is printed as 9."""
    rows = augment(load(pair()))
    assert [(goal_line(row), row["chosen"], row["rejected"]) for row in (rows[0], rows[1])] == [
        ("Overall score: 9", "good", "bad"),
        ("Overall score: 4.5", "bad", "good"),
    ]
    assert rows[0]["prompt"] == f"{HEAD}Overall score: 9\n\nx"
    assert FACTS.line([9.0]) == "Overall score: 9" and FACTS.line([8.5]) == "Overall score: 8.5"


@pytest.mark.parametrize("place", ["system", "user"])
def test_the_two_rows_differ_in_the_goal_and_exchange_their_responses(place: Any) -> None:
    """Trap 1: also where the goal stands in the first user turn, the responses are exchanged and not the prompts."""
    talk = [*turn("Be kind.", "system"), *turn("Hi"), *turn("Hello.", "assistant"), *turn("Well?")]
    for prompt in (turn("Hi"), talk):
        data = load(pair(prompt, turn("good", "assistant"), turn("bad", "assistant")))
        rows = augment(data, place=place)
        one, other = rows[0], rows[1]
        assert one["prompt"] != other["prompt"]
        swapped = json.loads(json.dumps(one["prompt"]).replace("Overall score: 9", "Overall score: 4.5"))
        assert swapped == other["prompt"]
        assert (one["chosen"], one["rejected"]) == (other["rejected"], other["chosen"])
        facts = goal_facts(rows)
        assert facts is not None
        assert [without_goal(row["prompt"], facts) for row in (one, other)] == [prompt, prompt] == list(bodies(rows))
        held = next(t for t in one["prompt"] if t["role"] == place)
        assert held["content"].startswith(f"{HEAD}Overall score: 9")
        if len(prompt) > 1 or place == "user":
            old = next(t for t in prompt if t["role"] == place)
            assert held["content"].endswith(f"Overall score: 9\n\n{old['content']}")


def test_columns_of_the_responses_change_places_and_strengths_stay_positive() -> None:
    """Trap 8: the strength of both rows is |r_w − r_l|; a margin and a soft label of the pair hold for both."""
    rows = augment(
        load(pair(chosen_model="A", rejected_model="B", margin=-2.0, soft_label=0.75, topic="t", weight=2.0))
    )
    one, other = rows[0], rows[1]
    assert (one["chosen_model"], other["chosen_model"], other["topic"], other["weight"]) == ("A", "B", "t", 2.0)
    assert rows.strength.tolist() == rows.margin.tolist() == [4.5, 4.5]
    assert rows.column("margin").tolist() == [-2.0, 2.0] and rows.soft_label.tolist() == [0.75, 0.75]
    assert (other["chosen_own_rating"], other["rejected_own_rating"], other["chosen_rating"]) == (4.5, 9.0, None)
    assert rows.column("goal_scores").tolist() == [[9.0], [4.5]]
    assert (one["goal_reversed"], other["goal_reversed"], one["goal_of"]) == (False, True, one["id"])


SCORE = st.integers(2, 20).map(lambda n: n / 2)


@given(st.lists(st.tuples(SCORE, SCORE, st.integers(0, 3)), min_size=1, max_size=8), st.booleans())
@settings(max_examples=6)
def test_rows_out_bodies_and_the_way_back(scores: list[tuple[float, float, int]], half: bool) -> None:
    """rows out = 2·(rows in − ties), half of that with `half`; the (prompt, response) pairs are those that came in; the
    transform reversed gives the input without its ties."""
    rows = [
        pair(f"q{prompt}", f"good {n}", f"bad {n}", max(a, b), min(a, b), id=f"p{n}")
        for n, (a, b, prompt) in enumerate(scores)
    ]
    data = load(*rows)
    kept = [row for row in rows if row["chosen_rating"] != row["rejected_rating"]]
    if not kept:
        with pytest.raises(DataError, match="are ties"):
            augment(data, half=half)
        return
    made = augment(data, half=half, seed=3)
    assert len(made) == len(kept) * (1 if half else 2)
    answered = Counter(
        (body, row[side])
        for body, row in zip(bodies(made), made.dataset, strict=True)
        for side in ("chosen", "rejected")
    )
    times = 1 if half else 2
    assert answered == Counter({(row["prompt"], row[s]): times for row in kept for s in ("chosen", "rejected")})
    back = without_goals(made)
    assert [back[n] for n in range(len(back))] == [
        row for row in map(dict, data.dataset) if row["id"] in {r["id"] for r in kept}
    ]
    ties = len(rows) - len(kept)
    note = f"{len(rows)} in = {len(kept)} augmented, in {len(made)} rows"
    assert any(note in text for text in made.report.notes)
    assert any(f"printed alike: {ties})" in text for text in made.report.notes) == bool(ties)


def test_near_ties_are_compared_as_they_are_printed() -> None:
    """7.1 and 7.2 on a scale that is rounded to halves have one goal; unmapped they have two."""
    data = load(pair(high=7.2, low=7.1, id="near"), pair(high=8, low=3, id="far"))
    assert set(augment(data, scale=(1, 10)).column("goal_scores").ravel().tolist()) == {8.0, 3.0}
    assert len(augment(data)) == 4
    with pytest.raises(DataError, match="all 1 pairs are ties"):
        augment(data.select([0]), scale=(1, 10))


def test_augmenting_twice_is_refused() -> None:
    rows = augment(load(pair()))
    with pytest.raises(DataError, match="was augmented already"):
        augment(rows)
    copied = load(pair(rows[0]["prompt"]))
    with pytest.raises(DataError, match=r"row 0 \(id .* asks for a goal already"):
        augment(copied)
    with pytest.raises(DataError, match="has a goal already"):
        with_goal([rows[0]["prompt"]], 9, FACTS)
    assert asks_for_goal(rows[0]["prompt"]) and not asks_for_goal("x")


def test_other_scales_go_to_one_to_ten_and_the_map_is_kept() -> None:
    """0–4: 4 is 10, 3 is 7.75 and so 8 (halves go up); −1 … 1: 0 is 5.5; the best goal is the largest one seen."""
    rows = augment(load(pair(high=3, low=0)), scale=(0, 4))
    facts = goal_facts(rows)
    assert facts is not None and facts.best == (8.0,)
    assert rows.column("goal_scores").ravel().tolist() == [8.0, 1.0] and rows.strength.tolist() == [3.0, 3.0]
    assert facts.maps == ({"kind": "affine", "min": 0.0, "max": 4.0, "step": 0.5},)
    assert any("scores from 0 … 4 mapped to it in steps of 0.5" in note for note in rows.report.notes)
    assert facts.note() == (
        "prompts ask for 'Overall score: 8', the best goal seen in training (the scale ends at 10; scores from 0 … 4 "
        "mapped to it in steps of 0.5)"
    )
    assert goals_of(np.array([[0.0], [-1.0]]), (-1, 1))[0].tolist() == [[5.5], [1.0]]
    assert goals_of(np.array([[80.0], [33.0]]), (0, 100), step=1)[0].tolist() == [[8.0], [4.0]]
    for scale in ((4, 0), (0, float("inf")), "quantiles"):
        with pytest.raises(ConfigError, match="The scale is"):
            augment(load(pair()), scale=scale)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="step of goals is 0"):
        augment(load(pair()), step=0)
    with pytest.raises(DataError, match=r"'rating' are outside the scale from 1 to 10, such as 11 .* '.*--scale"):
        augment(load(pair(high=11)))


def test_implicit_scores_become_quantiles() -> None:
    """Of six scores the largest is 10 and the smallest 1; a label that they contradict keeps its direction."""
    rows = [pair(f"q{n}", chosen_implicit=a, rejected_implicit=b, id=f"p{n}") for n, (a, b) in
            enumerate([(0.3, -2.0), (0.1, 0.2), (5.0, -0.5)])]  # fmt: skip
    made = augment(load(*rows), scores={"Overall score": "implicit"}, scale="quantile")
    assert made.column("goal_scores").ravel().tolist() == [8.0, 1.0, 4.5, 6.5, 10.0, 3.0]
    assert [row["chosen"] for row in made.dataset][:4] == ["good", "bad", "good", "bad"]
    facts = goal_facts(made)
    assert facts is not None and facts.maps[0]["least_score"] == {
        "1": -2.0, "3": -0.5, "4.5": 0.1, "6.5": 0.2, "8": 0.3, "10": 5.0
    }  # fmt: skip
    equal = goals_of(np.array([[1.0, 1.0], [2.0, 0.0]]), "quantile")[0]
    assert equal.tolist() == [[5.5, 5.5], [10.0, 1.0]]


def test_several_attributes() -> None:
    """Both are printed; the best goal is the best of each, and the strength the length of the difference."""
    more = {"chosen_help": 8, "rejected_help": 4, "honest_chosen": 6, "honest_rejected": 9}
    made = augment(load(pair(**more)), scores={"Helpfulness": "help", "Honesty": "honest"})
    assert [goal_line(row) for row in (made[0], made[1])] == [
        "Helpfulness: 8, Honesty: 6",
        "Helpfulness: 4, Honesty: 9",
    ]
    facts = goal_facts(made)
    assert facts is not None and facts.best == (8.0, 9.0) and made.strength.tolist() == [5.0, 5.0]
    assert made[1]["chosen_help"] == 4 and made[1]["honest_chosen"] == 9
    only = augment(load(pair(**more)), scores={"Help": "help", "Honesty": "honest"}, scale={"Help": (0, 8)})
    assert [row["goal_scores"] for row in (only[0], only[1])] == [[10.0, 6.0], [5.5, 9.0]]
    for wrong, message in (({"Help": "helpful"}, "no columns chosen_helpful"), ({"Help": "help"}, "'Honest', which")):
        with pytest.raises(ConfigError, match=message):
            augment(load(pair(**more)), scores=wrong, scale={"Honest": (0, 8)})
    with pytest.raises(DataError, match=r"1 of 2 rows have no number in chosen_help or rejected_help \(first: 'b'\)"):
        augment(load(pair(id="a", **more), pair("y", id="b")), scores={"Help": "help"})


def test_a_switch_is_told_with_its_joint_histogram() -> None:
    """Trap 6: all chosen 10, all rejected 1."""
    told = " ".join(augment(load(*(pair(f"q{n}", high=10, low=1) for n in range(3)))).report.notes)
    assert "a switch" in told and "chosen 10, rejected 1: 3" in told
    told = " ".join(augment(load(pair("q", high=10, low=6), pair("r", high=5, low=1))).report.notes)
    assert "goals of chosen 5 to 10, of rejected 1 to 6" in told and "switch" not in told


def test_splits_go_by_the_prompt_without_its_goal() -> None:
    """Trap 5: rows of one prompt stay together, on the same side as without goals, and leaks are seen through goals."""
    for prompts in ([f"q{n}" for n in range(6)], [turn(f"q{n}") for n in range(6)]):
        answers = [(turn("good", "assistant"), turn("bad", "assistant")), ("good", "bad")][isinstance(prompts[0], str)]
        data = load(*(pair(p, *answers, high=9 - k, id=f"{n}-{k}") for n, p in enumerate(prompts) for k in (0, 1)))
        for place in ("system", "user"):
            made = augment(data, place=place)  # pyright: ignore[reportArgumentType]
            train, test = split_preferences(made, test_size=2, seed=1)
            assert (len(train), len(test)) == (16, 8)
            check_leak(train, test)
            plain = split_preferences(data, test_size=2, seed=1)[1]
            assert {row["goal_of"] for row in test.dataset} == set(plain.ids)
            assert len(set(test.clusters)) == 2
            with pytest.raises(DataError, match="has the prompt of train row"):
                check_leak(train, data)
            assert len(distinct_rows(made)) == 6 and distinct_rows(made, 1) == [0]


def test_held_out_rows_ask_for_the_best_goal_that_was_trained() -> None:
    """Plain rows get it, rows with goals keep theirs, and other goals than the training's are refused."""
    made = augment(load(pair()))
    facts = goal_facts(made)
    plain = asking(load(pair("other")), facts)
    assert plain[0]["prompt"] == f"{HEAD}Overall score: 9\n\nother" and plain.strength.tolist() == [4.5]
    assert goal_facts(plain) == facts and list(bodies(plain)) == ["other"]
    held = asking(augment(load(pair("other", high=10))), facts)
    assert [goal_line(row) for row in (held[0], held[1])] == ["Overall score: 10", "Overall score: 4.5"]
    assert goal_facts(held) == facts  # the best of training, not its own
    assert asking(load(pair()), None)[0]["prompt"] == "x"
    with pytest.raises(DataError, match="but the training data does not"):
        asking(made, None)
    with pytest.raises(DataError, match="goals of another augmentation"):
        asking(augment(load(pair()), scale=(0, 10)), facts)


def test_goals_are_asked_for_by_number_or_name() -> None:
    two = GoalFacts(("Help", "Style"), ({}, {}), place="user", best=(9.0, 8.0))
    prompt: Any = [turn("Hi")]
    assert with_goal(prompt, {"Style": 3, "Help": 4.5}, two)[0][0]["content"] == f"{HEAD}Help: 4.5, Style: 3\n\nHi"
    assert with_goal(prompt, None, two) == with_goal(prompt, [9, 8], two)
    for goal, message in (
        (7, "1 scores for 2 attributes"),
        ([7, 11], "'Style: 11' is outside"),
        ({"Helf": 1}, "no attribute 'Helf'.*Help"),
        ({"Help": 1}, "1 scores for 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            with_goal(prompt, goal, two)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="No best goal"):
        with_goal(["x"], None, GoalFacts(("a",), ({},)))
    with pytest.raises(DataError, match="no user turn"):
        with_goal([turn("Hi", "assistant")], [9, 8], two)  # pyright: ignore[reportArgumentType]


def test_rows_with_and_without_goals_do_not_mix(tmp_path: Path) -> None:
    """Nor do rows of two augmentations; a file keeps goals and facts in every layout."""
    made = augment(load(pair(id="a")))
    other = augment(load(pair("y", id="b")), scale=(0, 10))
    for name in ("a.parquet", "a.jsonl.gz"):
        made.save(tmp_path / name)
        again = load_preferences(tmp_path / name)
        assert again.fingerprint() == made.fingerprint() and goal_facts(again) == goal_facts(made)
        assert without_goals(again)[0]["prompt"] == "x"
    for rows, message in (
        ([*made.dataset, *load(pair("y", id="b")).dataset], "1 of 3 rows have no goal"),
        ([*made.dataset, *other.dataset], "rows of 2 different augmentations"),
    ):
        with pytest.raises(DataError, match=message):
            goal_facts(load_preferences(list(map(dict, rows))))  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="carries no goals"):
        without_goals(load(pair()))


def test_a_template_without_a_system_role_is_seen(tiny_tokenizer: Any) -> None:
    """It may raise, or leave the message out."""
    import copy

    without = copy.deepcopy(tiny_tokenizer)
    without.chat_template = "{% for m in messages if m.role != 'system' %}{{ m.content }}<|im_end|>{% endfor %}"
    raising = copy.deepcopy(tiny_tokenizer)
    raising.chat_template = "{{ raise_exception('no system') }}"
    assert [place_for(one) for one in (tiny_tokenizer, without, raising)] == ["system", "user", "user"]
