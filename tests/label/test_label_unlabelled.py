"""Data without labels are asked about as they are: pairs, lists and single responses; nobody's label is invented."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popmargin.cli.main import main
from popmargin.data.load import load_preferences
from popmargin.data.pairs import unrated_pairs
from popmargin.errors import DataError
from popmargin.label.store.label_store import LabelStore

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def lines(name: str, rows: list[dict[str, Any]]) -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return lines


def answer(store: LabelStore, name: str, of: Callable[[Any], Any]) -> int:
    """A person who answers everything; None skips."""
    who, _ = store.add_annotator(store.project().id, name)
    count, skipped = 0, set[int]()
    while (now := store.next_assignment(who.id)) is not None and now.id not in skipped:
        verdict = of(now)
        if verdict is None:
            store.skip(who.id, now.id)
            skipped.add(now.id)
        else:
            store.record(who.id, now.id, verdict, request=str(now.id))
            count += 1
    return count


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_pairs_of_a_list_connect_all_its_responses() -> None:
    for count in range(2, 7):
        ring = unrated_pairs(count)
        assert len(ring) == (1 if count == 2 else count) and {place for pair in ring for place in pair} == set(
            range(count)
        )
        assert len(unrated_pairs(count, pairs="all")) == count * (count - 1) // 2
    drawn = unrated_pairs(8, pairs="random", per_prompt=5, key="q")
    assert len(set(drawn)) == 5 and drawn == unrated_pairs(8, pairs="random", per_prompt=5, key="q")
    assert drawn != unrated_pairs(8, pairs="random", per_prompt=5, key="another prompt")


def test_training_refuses_what_labelling_takes(write: Write) -> None:
    """Without asking for it, no reader takes unlabelled pairs for preferences."""
    rows = [{"prompt": "q", "response_a": "a", "response_b": "b"}]
    with pytest.raises(DataError, match="popmargin label import DATA"):
        load_preferences(rows)
    assert load_preferences(rows, unlabelled="ring")[0]["unlabelled"] is True


def test_two_responses_without_a_label(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They need no options; models turn with their responses; a comparison of preferences is refused with a remedy."""
    rows = [
        {"prompt": f"q{i}", "response_a": f"a{i}", "response_b": f"b{i}", "model_a": "m", "model_b": "n", "topic": "t"}
        for i in range(3)
    ]
    data, db, out = write("pairs.jsonl", rows), str(tmp_path / "labels.db"), tmp_path / "out.jsonl"
    assert main(["label", "import", data, "--db", db, "--kind", "pop"]) == 2
    assert "Ask that first with --kind preference" in capsys.readouterr().err and not Path(db).exists()
    assert main(["label", "import", data, "--db", db]) == 0
    said = capsys.readouterr()
    assert "nobody has labelled these: 6 responses to 3 prompts, 3 pairs\n" in said.err
    assert "3 items of kind 'preference'" in said.out
    with LabelStore.open(db) as store:
        verdicts = {"q0": "first", "q1": "second", "q2": None}
        assert answer(store, "ann", lambda now: verdicts[now.first.prompt]) == 2
    assert main(["label", "export", "--db", db, "--as", "preferences", "--out", str(out)]) == 0
    kept = {row["prompt"]: row for row in read(out)}
    assert {key: (row["chosen"], row["chosen_model"], row["soft_label"]) for key, row in kept.items()} == {
        "q0": ("a0", "m", 1.0),
        "q1": ("b1", "n", 1.0),
    }
    assert not any("unlabelled" in row for row in kept.values()) and len(load_preferences(str(out))) == 2


@pytest.mark.parametrize(
    ("options", "pairs"),
    [([], 7), (["--pairs", "all"], 9), (["--pairs", "random", "--per-prompt", "2"], 4)],
)
def test_lists_of_responses(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], pairs: int
) -> None:
    rows = [{"id": key, "prompt": key, "responses": list(texts)} for key, texts in (("x", "abca"), ("y", "abcd"))]
    assert main(["label", "import", write("d.jsonl", rows), "--db", str(tmp_path / "l.db"), *options]) == 0
    said = capsys.readouterr()
    assert f"7 responses to 2 prompts, {pairs} pairs (" in said.err and "(rows: 1)" in said.err
    assert f"{pairs} items of kind 'preference'" in said.out


def test_ways_of_pairing_fit_the_data(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rated = write("rated.jsonl", [{"prompt": "q", "responses": [{"text": t, "rating": 1 + (t == "a")} for t in "abc"]}])
    plain = write("plain.jsonl", [{"prompt": "q", "responses": list("abc")}])
    for data, options, said in (
        (rated, ["--pairs", "ring"], "is for responses that nobody has labelled"),
        (plain, ["--pairs", "best_vs_rest"], "compares ratings, but nobody has rated"),
        (plain, ["--per-prompt", "2"], "--pairs random"),
        (plain, ["--pairs", "random", "--per-prompt", "0"], "give at least 1"),
    ):
        assert main(["label", "import", data, "--db", str(tmp_path / "l.db"), *options]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "l.db").exists()


def test_single_responses_are_rated(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One response to a prompt is no preference: it is rated, and its rating is exported; an unrated one is counted."""
    rows = [{"id": f"s{i}", "prompt": f"q{i}", "response": f"=r{i}", "model": f"m{i}"} for i in range(3)]
    data, db, out = write("one.jsonl", rows), str(tmp_path / "labels.db"), tmp_path / "out.csv"
    assert main(["label", "import", data, "--db", db, "--kind", "preference"]) == 2
    assert "3 prompts have a single response, such as that of 's0'" in capsys.readouterr().err
    assert main(["label", "import", data, "--db", db]) == 0
    assert "3 items of kind 'rating'" in capsys.readouterr().out
    with LabelStore.open(db) as store:
        answer(store, "ann", lambda now: {"q0": "5", "q1": "2"}.get(now.first.prompt))
        answer(store, "ben", lambda now: None)
    assert main(["label", "export", "--db", db, "--as", "preferences", "--out", str(tmp_path / "p.jsonl")]) == 2
    assert "--as ratings" in capsys.readouterr().err
    assert main(["label", "export", "--db", db, "--as", "ratings", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "3 in = 2 rated + 1 left out (not rated: 1)" in said and "2 cells begin like a formula" in said
    with out.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [(row["id"], row["response"], row["rating"], row["raters"], row["model"]) for row in table] == [
        ("s0", "'=r0", "5.0", "1", "m0"),
        ("s1", "'=r1", "2.0", "1", "m1"),
    ]


def test_ratings_of_lists_say_which_is_better(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every response of a list is rated once. Unequal means order a pair, equal ones make it a tie, and a pair with an
    unrated response has no order that could be exported; the lone response is left out and counted."""
    rows = [{"id": "x", "prompt": "q", "responses": list("abcd")}, {"id": "y", "prompt": "r", "responses": ["a"]}]
    data, db, out = write("d.jsonl", rows), str(tmp_path / "l.db"), tmp_path / "out.jsonl"
    assert main(["label", "import", data, "--db", db, "--kind", "rating"]) == 0
    assert "9 in = 5 items + 4 left out" in capsys.readouterr().out
    ratings = {"a": "2", "b": "4", "c": "4", "d": None}
    with LabelStore.open(db) as store:
        answer(store, "ann", lambda now: ratings[getattr(now.first, now.response)])
    assert main(["label", "export", "--db", db, "--as", "preferences", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "5 in = 2 kept + 3 left out" in said and "1 prompt with a single response left out" in said
    kept = {row["id"]: (row["chosen"], row["chosen_rating"], row["rejected_rating"], row.get("soft_label"))
            for row in read(out)}  # fmt: skip
    assert kept == {"x/0-1": ("b", 4.0, 2.0, None), "x/1-2": ("b", 4.0, 4.0, 0.5)}


def test_texts_are_what_was_written(write: Write, tmp_path: Path) -> None:
    """Formulas, backslashes and white space pass through import, project and export unchanged, also as CSV."""
    maths = '- \\( a_1 \\) is \\[ 2*3*4 \\], "quoted", __init__ & C:\\*\r\n  = $x$, \u00e9\u200f'
    rows = [{"id": f"m{i}", "prompt": f"{maths}{i}", "response": f"={maths}"} for i in range(2)]
    db = str(tmp_path / "l.db")
    assert main(["label", "import", write("m.jsonl", rows), "--db", db]) == 0
    with LabelStore.open(db) as store:
        answer(store, "ann", lambda now: "3" if now.first.chosen == f"={maths}" else None)
    for name, options in (("a.jsonl", []), ("a.csv", ["--formulas", "keep"])):
        out = tmp_path / name
        assert main(["label", "export", "--db", db, "--as", "ratings", "--out", str(out), *options]) == 0
        with out.open(newline="", encoding="utf-8") as file:
            table = read(out) if name.endswith("jsonl") else list(csv.DictReader(file))
        assert [(row["prompt"], row["response"]) for row in table] == [(row["prompt"], row["response"]) for row in rows]


def test_ties_of_the_data_are_asked(write: Write, tmp_path: Path) -> None:
    """A tie of the source is labelled like the rest; people's unequal ratings take its soft label away."""
    rows = [{"id": n, "prompt": n, "response_a": "a", "response_b": "b", "votes_a": v, "votes_equal": 1, "votes_b": 2}
            for n, v in (("tie", 2), ("clear", 4))]  # fmt: skip
    data = write("votes.jsonl", rows)
    for kind, verdict in (("preference", "second"), ("rating", None)):
        db, out = str(tmp_path / f"{kind}.db"), tmp_path / f"{kind}.jsonl"
        assert main(["label", "import", data, "--db", db, "--kind", kind]) == 0
        with LabelStore.open(db) as store:
            answer(store, "ann", lambda now, v=verdict: v or ("1" if getattr(now.first, now.response) == "a" else "5"))
        assert main(["label", "export", "--db", db, "--as", "preferences", "--out", str(out)]) == 0
        kept = {row["id"]: row for row in read(out)}
        assert {key: row["chosen"] for key, row in kept.items()} == {"tie": "b", "clear": "b"}
        assert kept["tie"].get("soft_label") in ((1.0,) if kind == "preference" else (None,))
