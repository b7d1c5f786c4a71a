"""What a column means is read from what it holds and what the caller says, never guessed from its name."""

import pytest

from popmargin.data import load_preferences, scan_preferences
from popmargin.errors import DataError

NUMBERED = ("output_1", "output_2")
LETTERED = ("response_a", "response_b")


def compared(values, pair=NUMBERED, name="preference", **more):
    first, second = pair
    return [
        {"prompt": f"p{i}", first: f"one {i}", second: f"two {i}", name: value, **more}
        for i, value in enumerate(values)
    ]


def chosen(rows, **options):
    """Which response of each kept row is chosen: 1 or 2."""
    prefs, _ = scan_preferences(rows, **options)
    return [1 if row["chosen"].startswith("one") else 2 for row in prefs.dataset]


@pytest.mark.parametrize(
    ("values", "pair"),
    [
        ([1, 2, 1], NUMBERED),
        ([1.0, 1.97, 1.02], NUMBERED),
        ([1, 2, 1], LETTERED),
        ([0, 1, 0], ("response_0", "response_1")),
        (["a", "B", "A"], LETTERED),
        (["model_a", "model_b", "model_a"], ("conversation_a", "conversation_b")),
        (["output_1", "output_2", "output_1"], NUMBERED),
        (["[[A]]", "Response B", "first"], LETTERED),
    ],
)
@pytest.mark.parametrize("name", ["preference", "winner"])
def test_a_column_that_names_the_winner_is_read_as_that(values, pair, name):
    rows = compared(values, pair, name)
    assert load_preferences(rows).report.format == "winner"
    assert chosen(rows) == [1, 2, 1]


def test_models_are_named_and_ties_reported():
    rows = compared(
        ["m2", "m1", "tie", "tie (bothbad)", "nobody", None], LETTERED, "winner", model_a="m1", model_b="m2"
    )
    prefs, report = scan_preferences(rows)
    assert chosen(rows) == [2, 1]
    assert report.problem_counts == {"tie": 2, "winner": 1, "missing": 1}
    assert report.rows_in == 6 == len(prefs) + report.rows_reported


def test_numbers_between_two_winners_are_soft_labels_that_add_up():
    prefs = load_preferences(compared([1.0, 1.02, 1.97, 1.5, 2.0]))
    assert [row["chosen"][:3] for row in prefs.dataset] == ["one", "one", "two", "two"]
    assert prefs.soft_label.tolist()[1:3] == pytest.approx([0.98, 0.97])
    assert prefs.strength.tolist()[1:3] == pytest.approx([0.96, 0.94])
    assert prefs.report.problem_counts == {"tie": 1}


@pytest.mark.parametrize(
    ("values", "pair", "name"),
    [
        ([1, 1], NUMBERED, "preference"),
        ([2.0], NUMBERED, "preference"),
        ([1, 2, 5], NUMBERED, "preference"),
        ([0, 1], LETTERED, "preference"),
        ([0, 1], NUMBERED, "winner"),
        ([0.2, 0.9], LETTERED, "preference"),
        ([True, False], LETTERED, "preference"),
        (["true", "false"], LETTERED, "winner"),
        ([1.2, 1.9], LETTERED, "preference"),
        ([1, 2, 3], NUMBERED, "preference_strength"),
        ([1, 2], ("response_1", "response_2"), "preference_strength"),
        ([-1, -3], LETTERED, "preference"),
        ([0, 3], LETTERED, "overall_preference"),
    ],
)
def test_a_scale_that_could_mean_several_things_is_asked_about(values, pair, name):
    with pytest.raises(DataError, match=f"'{name}' holds .* do not say which response is better") as caught:
        load_preferences(compared(values, pair, name))
    assert "Remedy: say what they mean: --" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([0, 1], {"columns": {"prefers_first": "preference"}}, [2, 1]),
        ([0.2, 0.9], {"columns": {"prefers_second": "preference"}}, [1, 2]),
        ([True, False], {"columns": {"prefers_first": "preference"}}, [1, 2]),
        ([1, 2], {"format": "winner"}, [1, 2]),
        ([2, 2], {"columns": {"winner": "preference"}}, [2, 2]),
        ([1, 2], {"format": "signed_strength"}, [2, 2]),
    ],
)
def test_what_the_question_says_to_say_settles_it(values, options, expected):
    assert chosen(compared(values, LETTERED), **options) == expected


def test_to_call_0_and_1_a_winner_says_enough_only_of_columns_that_count_so():
    named = {"columns": {"winner": "preference"}}
    with pytest.raises(DataError, match="prefers_first"):
        load_preferences(compared([0, 1], LETTERED), **named)
    zero = ("response_0", "response_1")
    assert chosen(compared([1, 1], zero), **named) == [2, 2]
    with pytest.raises(DataError, match="--column winner=preference, if 0 is response_0"):
        load_preferences(compared([1, 1], zero))


def test_both_signs_make_a_signed_scale_and_later_rows_must_fit():
    assert chosen(compared([-1, 2, 1])) == [1, 2, 2]
    assert "read as signed: negative if output_1 is better" in " ".join(
        load_preferences(compared([-1, 2])).report.notes
    )
    late = compared([1, 2] * 5_000) + compared([3])  # the meaning is that of the first 10,000 rows
    _, report = scan_preferences(late)
    assert [(problem.position, problem.kind) for problem in report.problems] == [(10_000, "winner")]


RANKED = {"prompt": "q", "responses": ["best", "good", "worst"], "rank": [1, 2, 3]}


@pytest.mark.parametrize(
    "row",
    [
        RANKED,
        {"prompt": "q", "answers": [{"answer": "worst", "rank": 3.0}, {"answer": "best", "rank": 1.0}]},
        {"prompt": "q", "responses": ["worst", "best"], "Ranks": [2, 1]},
    ],
)
def test_ranks_are_read_with_1_as_the_best(row):
    prefs = load_preferences([row])
    assert (prefs[0]["chosen"], prefs[0]["rejected"]) == ("best", "worst")
    assert prefs[0]["chosen_rating"] == -1 and any("1 = best" in note for note in prefs.report.notes)
    _, report = scan_preferences([{**RANKED, "rank": [-1, 1, 2]}])
    assert [problem.kind for problem in report.problems] == ["rank"]
    with pytest.raises(DataError, match=r"--column ranks=rank"):
        load_preferences([RANKED], columns={"ratings": "rank"})


@pytest.mark.parametrize(
    ("layout", "remedy"),
    [
        ("scores", "--column ranks=scores"),
        ("nested", "name the field rank"),
        ("single", "name the field rank"),
    ],
)
def test_ratings_that_may_be_ranks_are_told(layout, remedy):
    """Every row's ratings are 1 to n, of which 1 may as well be the best."""

    def load(rows, **options):
        if layout == "nested":
            rows = [
                {
                    **row,
                    "responses": [
                        {"text": t, "score": s} for t, s in zip(row["responses"], row["scores"], strict=True)
                    ],
                }
                for row in rows
            ]
            rows = [{name: row[name] for name in ("prompt", "responses")} for row in rows]
        elif layout == "single":
            rows = [
                {"prompt": row["prompt"], "response": t, "score": s}
                for row in rows
                for t, s in zip(row["responses"], row["scores"], strict=True)
            ]
        return load_preferences(rows, **options)

    def told(preferences):
        return [note for note in preferences.report.notes if "may be ranks" in note]

    rows = [{"prompt": f"q{i}", "responses": ["a", "b", "c"], "scores": [2, 3, 1]} for i in range(3)]
    (note,) = told(load(rows))
    assert note.endswith(remedy) and load(rows)[0]["chosen"] == "b"
    assert not told(load([*rows, {"prompt": "q", "responses": ["a", "b", "c"], "scores": [2, 2, 1]}]))
    assert not told(load([*rows, {"prompt": "q", "responses": ["a", "b"], "scores": [4, 1]}]))
    said = {"scores": {"ratings": "scores"}, "nested": {"rating": "score"}, "single": {"label": "score"}}[layout]
    assert not told(load(rows, columns=said))
    if layout == "scores":
        ranked = load(rows, columns={"ranks": "scores"})
        assert ranked[0]["chosen"] == "c" and not told(ranked)


@pytest.mark.parametrize("name", ["rank", "ranking", "Rankings"])
def test_every_name_of_ranks_is_read_as_such(name):
    ranked = load_preferences([{"prompt": "q", "responses": ["a", "b"], name: [2, 1]}])
    assert ranked[0]["chosen"] == "b" and ranked[0]["chosen_rating"] == -1


def test_a_ranking_of_each_response_is_read_as_such():
    nested = {"prompt": "q", "responses": [{"text": "a", "ranking": 2}, {"text": "b", "ranking": 1}]}
    single = [{"prompt": "q", "response": text, "ranking": rank} for text, rank in (("a", 2), ("b", 1))]
    for rows in ([nested], single):
        assert load_preferences(rows)[0]["chosen"] == "b"


def test_rows_of_one_ranked_response():
    rows = [{"prompt": "q", "response": text, "rank": rank} for text, rank in (("worst", 2), ("best", 1))]
    prefs = load_preferences(rows)
    assert (prefs[0]["chosen"], prefs[0]["rejected"]) == ("best", "worst")
    with pytest.raises(DataError, match="for ranks 1 is the best"):
        load_preferences([{"prompt": "q", "response": "a", "my rank": 1}], columns={"label": "my rank"})


UNKNOWN = [
    {"user_prompt": f"What is {i}?", "chosen": f"The answer is {i}.", "rejected": f"The answer is {i + 1}."}
    for i in range(3)
]


def test_text_that_nothing_reads_beside_an_implicit_prompt_is_asked_about():
    with pytest.raises(DataError, match="the text of 'user_prompt' would be ignored") as caught:
        load_preferences(UNKNOWN)
    assert "--column prompt=user_prompt" in str(caught.value) and "--format implicit_prompt" in str(caught.value)
    assert load_preferences(UNKNOWN, columns={"prompt": "user_prompt"})[0]["prompt"] == "What is 0?"
    assert load_preferences(UNKNOWN, format="implicit_prompt")[0]["prompt"] == "The answer is"
    turns = [{"role": "user", "content": "Hi"}]
    with pytest.raises(DataError, match="the text of 'dialogue' would be ignored"):
        load_preferences([{"chosen": "a b", "rejected": "a c", "dialogue": turns}])
    sides = {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    with pytest.raises(DataError, match="the text of 'user_prompt' would be ignored"):
        load_preferences([{**sides, "user_prompt": "Hi"}])


def test_numbers_constants_and_conversations_raise_no_doubt():
    rows = [{"chosen": "a b", "rejected": f"a {i}", "source": "web", "stars": str(i)} for i in range(2)]
    assert load_preferences(rows).report.format == "implicit_prompt"
    ask = {"role": "user", "content": "Hi"}
    sides = {side: [ask, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    prefs = load_preferences([{**sides, "model": "m1"}, {**sides, "model": "m2"}])
    assert prefs[0]["prompt"] == [ask] and prefs.report.columns_kept == ("model",)


def test_a_context_that_nothing_reads_is_noted():
    prefs = load_preferences([{"prompt": "p", "context": "c", "chosen": "a", "rejected": "b"}])
    assert "the column 'context' is not used; it may belong to the prompt" in prefs.report.notes


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"strength": 1.5}, 1.5),
        ({"margin": 1.5}, 1.5),
        ({"margin": 9.0, "chosen_rating": 4.0, "rejected_rating": 1.0}, 3.0),
    ],
)
def test_margins_are_rating_gaps_else_strengths(row, expected):
    prefs = load_preferences([{"prompt": "p", "chosen": "a", "rejected": "b", **row}])
    assert prefs.margin.tolist() == [expected]
    said = any("is the margin if an objective needs one" in note for note in prefs.report.notes)
    assert said == ("chosen_rating" not in row)


def test_signed_strengths_are_margins():
    assert load_preferences(compared([-3, 2])).margin.tolist() == [3, 2]


def test_earlier_turns_that_nothing_reads_are_noted():
    row = {"history": [["Hi", "Hello"]], "instruction": "And you?", "chosen": "Fine.", "rejected": "No."}
    notes = load_preferences([row]).report.notes
    assert "the column 'history' is not used; it may belong to the prompt" in notes
