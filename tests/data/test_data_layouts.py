"""Layouts that people have: each is read as it was meant, or refused with the remedy for it."""

import json

import pytest

from popmargin.data import load_preferences, scan_preferences
from popmargin.errors import DataError


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


SIDES = {"chosen": "yes", "rejected": "no"}


@pytest.mark.parametrize(("more", "prompt"), [("text", "Do.\n\ntext"), ("", "Do."), (None, "Do."), ("  ", "Do.")])
@pytest.mark.parametrize("columns", [None, {"prompt": "instruction"}])
def test_instruction_and_input_are_joined_as_alpaca_does(more, prompt, columns):
    prefs = load_preferences([{"instruction": "Do.", "input": more, **SIDES}], columns=columns)
    assert prefs[0]["prompt"] == prompt
    rated = {"instruction": "Do.", "input": more, "generations": ["a", "b"], "ratings": [1, 2]}
    assert load_preferences([rated])[0]["prompt"] == prompt


def test_the_system_column_is_the_first_message_of_every_row():
    rows = [
        {"system": "Be kind.", "question": "Hi", **SIDES},
        {"system": "", "question": "Ho", **SIDES},
        {"system": "Be kind.", "question": [system("Be kind."), user("Hi")], **SIDES},
        {"system": "Be kind.", "question": [system("Be bad."), user("Hi")], **SIDES},
    ]
    prefs, report = scan_preferences(rows)
    assert prefs.dataset["prompt"][:] == [[system("Be kind."), user("Hi")], [user("Ho")], rows[2]["question"]]
    assert prefs[0]["chosen"] == [bot("yes")]
    assert [problem.kind for problem in report.problems] == ["system"]
    assert "the system column is empty: no system message (rows: 1)" in report.notes


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "Hi"}],
         "chosen": {"from": "gpt", "value": "yes"}, "rejected": {"from": "gpt", "value": "no"}},
        {"conversations": [{"from": "human", "value": "Hi"}], **SIDES},
        {"chosen": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "yes"}],
         "rejected": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "no"}]},
        {"input": {"messages": [user("Hi")], "tools": [], "parallel_tool_calls": True},
         "preferred_output": [bot("yes")], "non_preferred_output": [bot("no")]},
        {"conversation_a": [user("Hi"), bot("yes")], "conversation_b": [user("Hi"), bot("no")], "winner": "model_a",
         "model_a": "m", "model_b": "n", "turn": 1},
        {"prompt": '["Hi"]', "response_a": '["yes"]', "response_b": ["no"], "winner": "model_a"},
        {"prompt": json.dumps([user("Hi")]), "chosen": str([bot("yes")]), "rejected": json.dumps([bot("no")])},
        {"prompt": [user("Hi")], "response_a": "yes", "response_b": "no", "winner_model_a": 1, "winner_model_b": 0,
         "winner_tie": 0},
    ],
)  # fmt: skip
def test_conversations_in_every_layout(row):
    prefs = load_preferences([row])
    assert (prefs[0]["prompt"], prefs[0]["chosen"], prefs[0]["rejected"]) == ([user("Hi")], [bot("yes")], [bot("no")])


def test_lists_of_turns_are_conversations_or_refused():
    row = {"prompt": '["Hi", "Ho"]', "response_a": '["a", "b"]', "response_b": '["c", "d"]', "winner": "b"}
    prefs, report = scan_preferences([row, {**row, "response_a": '["a"]'}, {**row, "response_a": '["a", null]'}])
    assert prefs[0]["prompt"] == [user("Hi")] and prefs[0]["chosen"] == [bot("c"), user("Ho"), bot("d")]
    assert [problem.kind for problem in report.problems] == ["type", "type"]


@pytest.mark.parametrize(
    "text", ["[{'role': 'user', 'content': 'x'}\n {'role': 'user', 'content': 'y'}]", '[{"role": "user", "content": ]']
)
def test_messages_as_text_that_cannot_be_parsed_are_refused(text):
    _, report = scan_preferences([{"prompt": text, **SIDES}])
    assert [problem.kind for problem in report.problems] == ["type"]
    assert "neither JSON nor Python" in report.problems[0].message


@pytest.mark.parametrize("text", ['[{"role": "admin", "rights": 3}]', '{"role": "x"} is an object', "[see above]"])
def test_texts_that_only_look_like_messages_stay_texts(text):
    assert load_preferences([{"prompt": "p", "chosen": text, "rejected": "b"}])[0]["chosen"] == text


CALL = [{"type": "function", "function": {"name": "f", "arguments": {}}}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "chosen": "a", "tools": json.dumps(CALL)},
        {"prompt": [user("p")], "chosen": [bot("a")], "tools": "f, g"},
        {"prompt": [user("p")], "chosen": [{"role": "assistant", "content": None, "tool_calls": [{"name": None}]}]},
        {"prompt": [user("p")], "chosen": [{"from": "function_call", "value": "f()"}]},
    ],
)
def test_tools_that_no_template_could_write_are_refused_by_name(row):
    rejected = "b" if isinstance(row["chosen"], str) else [bot("b")]
    _, report = scan_preferences([{**row, "rejected": rejected}])
    assert [problem.kind for problem in report.problems] == ["tools"]
    assert "tool" in report.problems[0].message


def test_a_missing_rating_leaves_its_response_out_and_is_counted():
    row = {"prompt": "p", "responses": ["a", "b", "c", None], "ratings": [5, None, 1, 0]}
    rated = (("a", 1), ("b", float("nan")), ("c", 2))
    nested = {"prompt": "q", "responses": [{"text": text, "rating": rating} for text, rating in rated]}
    prefs = load_preferences([row])
    assert (prefs[0]["chosen"], prefs[0]["rejected"]) == ("a", "c")
    assert set(prefs.report.notes) == {
        "responses without a rating, dropped from their row (rows: 1)",
        "responses without a text, dropped from their row (rows: 1)",
    }
    assert load_preferences([nested])[0]["chosen"] == "c"


def thumbs(*rows):
    return [dict(zip(("prompt", "completion", "label"), row, strict=True)) for row in rows]


@pytest.mark.parametrize(
    ("up", "down"),
    [(True, False), (1, 0), ("up", "down"), ("thumbs_up", "Thumbs down"), ("👍", "👎"), ("True", "False")],
)
def test_thumbs_become_pairs_of_each_prompt(up, down):
    rows = thumbs(("p", "good", up), ("q", "alone", up), ("p", "bad", down), ("r", "a", up), ("r", "b", up))
    prefs, report = scan_preferences(rows)
    assert (report.format, [(row["chosen"], row["rejected"]) for row in prefs.dataset]) == (
        "single_responses", [("good", "bad")]
    )  # fmt: skip
    assert (report.source_rows, report.rows_in, report.rows_kept, report.rows_reported) == (5, 3, 1, 2)
    assert report.problem_counts == {"too_few": 1, "tie": 1} and not report.fatal
    assert report.notes[0] == (
        "rows with one rated response each: 5, prompts: 3, prompts with a single row: 1; candidate pairs "
        "(best_vs_worst): 3 = 1 kept + 2 reported"
    )


def test_single_responses_with_ratings_all_pairs_and_bad_rows():
    rows = thumbs(("p", "a", 1), ("p", "b", 2), ("p", "c", 3), ("p", "c", 5), ("p", None, 1), ("p", "d", "maybe"))
    prefs, report = scan_preferences(rows, pairs="all")
    assert sorted(prefs.strength.tolist()) == [1, 2, 3]  # c has the mean of 3 and 5
    assert report.problem_counts == {"missing": 1, "type": 1}
    assert report.rows_in == 5 == report.rows_kept + report.rows_reported


def test_transcripts_keep_their_white_space():
    text = "\n\nHuman:  Hi \n\nAssistant: A\n"
    prefs = load_preferences([{"chosen": text + " ", "rejected": text + "b"}])
    assert prefs[0]["prompt"] == [user(" Hi ")] and prefs[0]["chosen"] == [bot("A\n ")]
    assert any("all other white space is kept" in note for note in prefs.report.notes)


def test_both_directions_are_noted_once_a_pair():
    rows = [{"prompt": "p", "chosen": a, "rejected": b} for a, b in ("xy", "yx", "xy", "xz")]
    prefs = load_preferences(rows)
    (note,) = [note for note in prefs.report.notes if "both directions" in note]
    assert "directions: 1;" in note and len(prefs) == 4


@pytest.mark.parametrize("header", [("Prompt", "CHOSEN", "Rejected"), (" prompt", "chosen ", "\ufeffrejected"),
                                    ("prompt", "Chosen Response", "rejected-response")])  # fmt: skip
def test_headers_are_known_in_every_case_and_with_spaces(header):
    prefs = load_preferences([dict(zip(header, ("p", "a", "b"), strict=True))])
    assert (prefs[0]["chosen"], prefs[0]["rejected"]) == ("a", "b")
    assert load_preferences([{"My Text": "p", **SIDES}], columns={"prompt": "my text"})[0]["prompt"] == "p"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "p", "completion": "a"}, "nothing says how good it is"),
        ({"conversations": [user("p"), bot("a")]}, "alone is not a preference"),
        ({"prompt": "p", "response_a": "a", "response_b": "b"}, "which response is better"),
        ({"prompt": "p", "responses": ["a", "b"]}, "--column ranks="),
    ],
)
def test_the_remedy_is_that_of_the_layout(row, words):
    with pytest.raises(DataError) as caught:
        load_preferences([row])
    assert words in str(caught.value)


TIED = [
    {"prompt": "p", "response_a": "a", "response_b": "b", "votes_a": 2, "votes_b": 2},
    {"prompt": "p", "response_a": "a", "response_b": "b", "winner": "tie"},
    {"prompt": "p", "responses": ["a", "b"], "ratings": [3, 3]},
]


@pytest.mark.parametrize("row", TIED)
def test_ties_are_reported_or_kept_on_demand(row):
    prefs, report = scan_preferences([row])
    assert prefs is None and report.problem_counts == {"tie": 1}
    kept = load_preferences([row], ties="keep")
    assert (kept[0]["chosen"], kept[0]["rejected"], kept.strength.tolist()) == ("a", "b", [0.0])
    assert any("ties are kept" in note for note in kept.report.notes)
