"""Row layouts: detection, and what each becomes."""

import datasets
import pytest

from popmargin.data import load_preferences, scan_preferences
from popmargin.data.formats import FORMATS
from popmargin.errors import DataError


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


TRL_STANDARD = [{"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}]
TRL_STANDARD_IMPLICIT = [{"chosen": "The sky is blue.", "rejected": "The sky is green."}]
TRL_CHAT = [{"prompt": [user("Sky?")], "chosen": [bot("Blue.")], "rejected": [bot("Green.")]}]
TRL_CHAT_IMPLICIT = [{"chosen": [user("Sky?"), bot("Blue.")], "rejected": [user("Sky?"), bot("Green.")]}]


@pytest.mark.parametrize(
    ("given", "explicit", "name"),
    [
        (TRL_STANDARD, TRL_STANDARD, "preference"),
        (TRL_STANDARD_IMPLICIT, TRL_STANDARD, "implicit_prompt"),
        (TRL_CHAT, TRL_CHAT, "preference"),
        (TRL_CHAT_IMPLICIT, TRL_CHAT, "implicit_prompt"),
    ],
)
def test_trl_data_sets_load_unchanged(given, explicit, name):
    prefs = load_preferences(datasets.Dataset.from_list(given))
    assert prefs.report.format == name
    assert prefs.dataset.select_columns(["prompt", "chosen", "rejected"]).to_list() == explicit
    assert prefs.conversational == isinstance(explicit[0]["chosen"], list)


HH = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: What is\n\n2+2?\n\nAssistant:"
HH_PROMPT = [user("Hi"), bot("Hello."), user("What is\n\n2+2?")]


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": HH + " 4.", "rejected": HH + " 5."},
        {"prompt": HH, "chosen": " 4.", "rejected": " 5."},
        {"prompt": HH, "chosen": HH + " 4.", "rejected": HH + " 5."},
    ],
)
def test_transcripts_become_conversations(row):
    prefs = load_preferences([row])
    assert prefs.report.format == "hh_rlhf"
    assert (prefs[0]["prompt"], prefs[0]["chosen"], prefs[0]["rejected"]) == (HH_PROMPT, [bot("4.")], [bot("5.")])


def test_transcripts_that_part_early_keep_their_turns_and_say_so():
    a = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Go\n\nAssistant: Gone."
    prefs = load_preferences([{"chosen": a, "rejected": "\n\nHuman: Hi\n\nAssistant: No."}])
    assert [turn["role"] for turn in prefs[0]["chosen"]] == ["assistant", "user", "assistant"]
    assert any("several messages" in note for note in prefs.report.notes)


def test_a_transcript_without_turns_is_reported():
    rows = [{"chosen": HH + " 4.", "rejected": HH + " 5."}, {"chosen": "4", "rejected": "5"}]
    _, report = scan_preferences(rows)
    assert [(problem.position, problem.kind) for problem in report.problems] == [(1, "transcript")]


THREE = (("bad", 1), ("good", 5), ("ok", 3))


def rated(text_name, rating_name, *values):
    return [{text_name: text, rating_name: rating} for text, rating in values]


RATED = {
    "prompt": "p",
    "responses": [{"text": "bad", "rating": 1}, {"text": "good", "rating": 5}, {"text": "ok", "rating": 3}],
}


@pytest.mark.parametrize(
    "row",
    [
        RATED,
        {
            "instruction": "p",
            "completions": rated("response", "overall_score", *THREE),
        },
        {"prompt": "p", "responses": ["bad", "good", "ok"], "scores": [1, 5, 3]},
        {"instruction": "p", "generations": ["bad", "good", "ok"], "ratings": [1.0, 5.0, 3.0]},
        {"prompt": "p", "completions": {"content": ["bad", "good", "ok"], "score": [1, 5, 3]}},
        {
            "prompt": "p",
            "score": 3,
            "responses": rated("completion", "score", *THREE),
        },
    ],
)
def test_rated_responses_in_every_shape(row):
    prefs = load_preferences([row])
    assert prefs.report.format == "responses"
    assert (prefs[0]["chosen"], prefs[0]["rejected"]) == ("good", "bad")
    assert (prefs[0]["chosen_rating"], prefs[0]["rejected_rating"]) == (5.0, 1.0)
    assert prefs.strength.tolist() == [4.0]


def test_all_pairs_count_ties_and_gaps():
    row = {
        "id": "x",
        "prompt": "p",
        "responses": [{"text": t, "rating": r} for t, r in (("a", 1), ("b", 2), ("c", 2), ("d", 5))],
    }
    prefs = load_preferences([row], pairs="all", min_gap=2.0)
    assert [(q["chosen"], q["rejected"]) for q in prefs.dataset] == [("d", "a"), ("d", "b"), ("d", "c")]
    assert prefs.ids == ["x/3-0", "x/3-1", "x/3-2"]
    assert prefs.report.problem_counts == {"below_min_gap": 2, "tie": 1}
    assert (prefs.report.source_rows, prefs.report.rows_in) == (1, 6)


def test_best_vs_random_is_seeded_and_independent_of_row_order():
    rows = [
        {"prompt": f"p{i}", "responses": [f"a{i}", f"b{i}", f"c{i}", f"d{i}"], "scores": [1, 2, 3, 4]}
        for i in range(30)
    ]
    first = load_preferences(rows, pairs="best_vs_random", seed=1)
    again = load_preferences(rows[::-1], pairs="best_vs_random", seed=1)
    assert first.ids == again.ids[::-1]
    assert set(first.strength.tolist()) == {1.0, 2.0, 3.0}
    assert first.ids != load_preferences(rows, pairs="best_vs_random", seed=2).ids


def test_bad_responses_are_reported():
    rows = [
        RATED,
        {"prompt": "p", "responses": [{"text": "a", "rating": 1}]},
        {"prompt": "p", "responses": "a"},
        {"prompt": "p", "responses": [{"text": "a", "rating": float("nan")}, {"text": "b", "rating": 1}]},
        {"prompt": "p", "responses": [{"text": "a", "rating": None}, {"text": "b", "rating": 1}]},
        {"prompt": "p", "responses": [{"text": "a", "grade": 2}, {"text": "b", "grade": 1}]},
        {"prompt": "p", "responses": [{"text": "a", "rating": 2}, {"text": "", "rating": 1}]},
        {"prompt": "p", "responses": [{"text": "a", "rating": 2}, {"text": "b", "rating": 2}]},
    ]
    prefs, report = scan_preferences(rows)
    assert prefs is not None and len(prefs) == 1
    kinds = ["too_few", "type", "too_few", "too_few", "missing", "empty", "tie"]
    assert [problem.kind for problem in report.problems] == kinds
    assert {problem.column for problem in report.problems} == {"responses"}
    assert [problem.kind for problem in report.problems if not problem.fatal] == ["tie"]
    assert "grade" in report.problems[4].message


def test_a_rating_field_can_be_named():
    row = {"prompt": "p", "responses": [{"text": "a", "fun": 2}, {"text": "b", "fun": 3}]}
    assert load_preferences([row], columns={"rating": "fun"})[0]["chosen"] == "b"


def test_win_probabilities_become_clipped_log_odds():
    row = {"prompt": "p", "responses": [{"text": "a", "winprob": 0.5}, {"text": "b", "winprob": 1.0}]}
    prefs = load_preferences([row])
    assert prefs[0]["chosen_rating"] == pytest.approx(6.906755)
    assert prefs[0]["rejected_rating"] == 0.0
    assert any("log-odds" in note for note in prefs.report.notes)


@pytest.mark.parametrize(
    "names", [("response_a", "response_b", "preference_strength"), ("response1", "response2", "overall_preference")]
)
def test_signed_strength(names):
    first, second, sign = names
    rows = [{"prompt": "p", first: "one", second: "two", sign: value} for value in (-3, 2, 0)]
    prefs = load_preferences(rows)
    assert prefs.report.format == "signed_strength"
    assert [(row["chosen"], row["rejected"]) for row in prefs.dataset] == [("one", "two"), ("two", "one")]
    assert prefs.strength.tolist() == [3.0, 2.0]
    assert prefs.report.problem_counts == {"tie": 1}


def test_helpsteer3_conversation_context():
    row = {"context": [user("Hi")], "response1": "a", "response2": "b", "overall_preference": 1, "domain": "x"}
    prefs = load_preferences([row, {**row, "overall_preference": -2}])
    assert (prefs[0]["prompt"], prefs[0]["chosen"]) == ([user("Hi")], [bot("b")])


def test_votes():
    base = {"prompt": "p", "response_a": "one", "response_b": "two"}
    votes = [(1, 3, 1), (4, 1, 0), (2, 2, 1), (-1, 2, 0)]
    rows = [{**base, "votes_a": a, "votes_b": b, "votes_equal": equal} for a, b, equal in votes]
    prefs = load_preferences(rows, bad_rows="drop")
    assert [row["chosen"] for row in prefs.dataset] == ["two", "one"]
    assert prefs.strength.tolist() == pytest.approx([0.4, 0.6])
    assert prefs.soft_label.tolist() == pytest.approx([0.7, 0.8])  # (votes for + half of the equal ones) / all
    assert prefs.report.problem_counts == {"tie": 1, "votes": 1}


@pytest.mark.parametrize(
    "names",
    [("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"), ("rating_chosen", "rating_rejected")],
)
def test_rating_names(names):
    prefs = load_preferences([{"prompt": "p", "chosen": "a", "rejected": "b", names[0]: 4, names[1]: 1.5}])
    assert prefs.rating_gap.tolist() == [2.5]


def test_a_text_prompt_beside_whole_conversations():
    row = {
        "prompt": "Sky?",
        "prompt_id": "9",
        "chosen": [user("Sky?"), bot("Blue")],
        "rejected": [user("Sky?"), bot("Red")],
    }
    prefs = load_preferences([row])
    assert (prefs[0]["prompt"], prefs[0]["chosen"]) == ([user("Sky?")], [bot("Blue")])
    _, report = scan_preferences([row, {**row, "prompt": "Sea?"}])
    assert [problem.kind for problem in report.problems] == ["prompt_mismatch"]
    assert len(load_preferences([{**row, "prompt": "Sea?"}], format="implicit_prompt")) == 1


def test_unknown_and_ambiguous_columns_are_named():
    with pytest.raises(DataError, match="Columns found: id, stars, text") as caught:
        load_preferences([{"id": 1, "stars": 2, "text": "x"}])
    assert all(f"'{name}'" in str(caught.value) for name in FORMATS)
    both = {"prompt": "p", "chosen": "a", "rejected": "b", "responses": ["a", "b"], "scores": [2, 1]}
    with pytest.raises(DataError, match="fit the formats 'preference' and 'responses'"):
        load_preferences([both])
    assert load_preferences([both], format="preference").report.columns_kept == ("responses", "scores")
    with pytest.raises(DataError, match=r"missing: rejected\. Columns found: prompt, chosen"):
        load_preferences([{"prompt": "p", "chosen": "a"}], format="preference")
    with pytest.raises(DataError, match="question and input could each be the prompt"):
        load_preferences([{"question": "p", "input": "q", "chosen": "a", "rejected": "b"}])


REAL = [
    ("ultrafeedback", {}, "preference", 1000, 994),
    ("alpacaeval", {}, "responses", 599, 428),
    ("ukpconvarg", {}, "votes", 13635, 12272),
    ("hanna", {"columns": {"rating": "Relevance"}}, "responses", 68, 68),
]


@pytest.mark.parametrize(("name", "options", "format_name", "rows_in", "rows_kept"), REAL)
def test_real_files(shared_data, name, options, format_name, rows_in, rows_kept):
    prefs = load_preferences(shared_data / f"{name}.jsonl.gz", bad_rows="drop", **options)
    report = prefs.report
    assert (report.format, report.rows_in, report.rows_kept) == (format_name, rows_in, rows_kept)
    assert report.rows_in == len(prefs) + report.rows_reported
    assert (prefs.strength >= 0).all()
