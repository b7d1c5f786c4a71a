"""Every verb says what became of the rows that it read: rows in = kept + left out, on screen and in its output."""

import argparse
import contextlib
import io
import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from popmargin.cli.main import VERBS, build_parser, main

NO_ROWS = {
    "label annotators add", "label annotators token", "label annotators activate", "label annotators deactivate",
    "label annotators admit", "label annotators forget", "label annotators adjudicate",
    "label annotators quota", "label annotators lead", "label annotators weight",
    "label annotators discard", "label annotators list", "label backup", "label guidelines",
    "label language", "label next",
    "label status", "label token add", "label token list", "label token revoke",
    "objectives", "study power", "schema", "completion", "report",
}  # fmt: skip
"""Verbs that read no rows of data; `report` shows the accounts that runs have stored."""
ELSEWHERE = {
    "annotate": "reads what `label import` reads, with the same function",
    "label report": "counts labels, all of which it shows",
    "label set": "reads gold as `label import` does, and counts what is new, changed or added; test_cli_label_set.py",
    "label assign": "gives items to a person; its sum is shown: test_label_offers.py",
    "label ask": "adds comparisons to a store; test_cli_label.py",
    "demo": "a comparison of embedded data",
    "study budget": "tests/study, on preferences that load_preferences reads",
    "study best-of-n": "tests/study, on responses that Responses.load reads; empty ones are counted in the report",
    "recommend compare": "as recommend train, in tests/study",
}


def row(name: str, prompt: str, chosen: str, rejected: str, ratings: tuple[Any, Any] = (3.0, 1.0)) -> dict[str, Any]:
    return {"id": name, "prompt": prompt, "chosen": chosen, "rejected": rejected,
            "chosen_rating": ratings[0], "rejected_rating": ratings[1]}  # fmt: skip


GOOD = [row(f"g{i}", f"the sky {i}?", f"warm light {i} falls", f"no {i}", (4 + i / 10, 1.0)) for i in range(12)]
BAD: list[Any] = [
    row("same", "Q1?", "x", "x"),
    row("g0", "Q2?", "x", "y"),
    row("empty", "Q3?", "", "y"),
    "not json",
    row("two faults", "Q4?", "", "", (float("nan"), 1.0)),
    row("against", "Q5?", "u", "v", (1.0, 2.0)),
]
ODD = [
    row("tie", "Q6?", "u", "v", (2.0, 2.0)),
    row("long", "Q7? " + "sky " * 100, "quiet green", "v"),
    row("longer", "Q8?", "sky " * 100, "sky " * 101),
]
RESPONSES = [
    *({"prompt": f"P {i}?", "responses": ["a best one", "middle", "bad"], "score": [3.0, 2.0, 1.0]} for i in range(4)),
    {"prompt": "tied?", "responses": ["a", "b"], "score": [1.0, 1.0]},
    {"prompt": "one?", "responses": ["a"], "score": [1.0]},
    {"prompt": "alike?", "responses": ["a", "a"], "score": [1.0, 2.0]},
    {"prompt": "empty?", "responses": ["", "b"], "score": [1.0, 2.0]},
    {"prompt": "unknown?", "responses": ["cc", "b"], "score": [None, 2.0]},
]
OPEN = [{"prompt": f"O {i}?", "responses": ["a", "b", "c", "b"]} for i in range(2)]
VOTES = [
    {"id": name, "response": "chosen", "annotator": "ann", "label": label}
    for name, label in (("g0", 4), ("g1", 9), ("nobody knows", 3))
]
PROMPTS = [{"prompt": text} for text in ("Ask 0?", "Ask 1?", "Ask 0?", "Ask 2?")]
ANSWERS = [
    {"prompt": "Ask 0?", "responses": ["a", "b"]},
    {"prompt": "Ask 1?", "responses": ["a"]},
    {"prompt": "Other?", "responses": ["a"]},
]
EVENTS = [f"u{u},i{(u * 3 + t * 7) % 13},{t}" for u in range(20) for t in range(6)]
BAD_EVENTS = ["u1,i1,", "u2,,5", ",i3,4", "u3,i3,abc", "u99,i1,1"]
REWARDS = """
def length(prompts, completions):
    return [float(len(text)) for text in completions]

def some(prompts, completions):
    return [float("nan") if len(text) == 1 else float(len(text)) for text in completions]
"""


@dataclass(frozen=True)
class Case:
    """A command, and what it must say of its rows.

    Attributes:
        command: after `popmargin`.
        sums: each must be in the output: the start of a line, or of what follows a name in it.
        written: file -> rows that it must have.
        slow: whether it trains.
    """

    command: str
    sums: list[str]
    written: dict[str, int] = field(default_factory=dict[str, int])
    slow: bool = False


READ = "21 in = 15 kept + 6 left out"
FROM = "bad.jsonl --bad-rows drop"
RUN = "--data.train bad.jsonl --data.bad_rows drop --data.max_length 64 --model.path model --train.batch_size 4"
CASES = [
    Case("data inspect bad.jsonl", [READ]),
    Case("data check bad.jsonl", [READ]),
    Case(f"data convert {FROM} converted.jsonl", [READ], {"converted.jsonl": 15}),
    Case(
        f"data split {FROM} --train a.jsonl --test b.jsonl --test-size 4",
        [READ, "15 in = 11 to train on + 4 held out"],
        {"a.jsonl": 11, "b.jsonl": 4},
    ),
    Case(
        "data export responses.jsonl --best score --as alpaca_eval --name m --out answers.json",
        ["21 responses in = 9 written + 12 left out (not the best by score: 12)"],
        {},
    ),
    Case("data pairs responses.jsonl --out pairs.jsonl", ["9 in = 4 kept + 5 left out"], {"pairs.jsonl": 4}),
    Case(
        "data pairs responses.jsonl --how all --min-gap 1.5 --out all.jsonl",
        ["17 in = 4 kept + 13 left out"],
        {"all.jsonl": 4},
    ),
    Case(
        f"data rate {FROM} --reward rewards.py:length --disagree drop --out rated.jsonl",
        [READ, "15 in = 14 kept + 1 left out"],
        {"rated.jsonl": 14},
    ),
    Case(
        "data rate responses.jsonl --reward rewards.py:some --out scored.jsonl",
        ["21 responses in = 14 scored + 7 without a score"],
        {"scored.jsonl": 9},
    ),
    Case(f"data augment {FROM} --out goals.jsonl", [READ, "15 in = 14 augmented, in 28 rows + 1 left out"],
         {"goals.jsonl": 28}),
    Case(f"pop sample {FROM} --sampling iterative --out edges.parquet",
         [READ, "15 in = 15 the stronger side of an edge", "15 = 15 training rows + 0 ties"], {"edges.parquet": 15}),
    Case(
        f"pop sample {FROM} --sampling iterative --budget 1 --unmatched drop --out few.parquet",
        [READ, "15 in = 7 the stronger side of an edge + 8 left out (only the weaker side: 3, in no edge: 5)"],
        {"few.parquet": 7},
    ),
    Case(f"pop stats edges.parquet --data {FROM}", [READ, "15 in = 15 the stronger side", "15 = 15 training rows"]),
    Case(f"pop scale edges.parquet --data {FROM} --out scale.parquet --preferences-out strong.jsonl", [READ],
         {"scale.parquet": 15, "strong.jsonl": 15}),
    Case(f"pop ask edges.parquet --data {FROM} --n 3 --out ask.parquet", [READ], {"ask.parquet": 3}),
    Case(
        f"label import {FROM} --db labels.db --project pop --edges edges.parquet --gold few.parquet",
        [READ, "15 in = 14 pairs + 1 left out (without a weaker side: 1)", "7 in = 7 pairs",
         "14 in = 13 asked + 1 left", "15 in = 15 in some pair"],
    ),
    Case(f"label import {FROM} --db labels.db --project pairs --k 1 --seed 2", [READ, "15 in = "]),
    Case(f"label import {FROM} --db labels.db --project each --kind preference", [READ]),
    Case("label import twice.jsonl --db labels.db --project rate --kind rating",
         ["4 in = 4 kept", "8 in = 6 items + 2 left out (the same response as another: 2)"]),
    Case("label import more.jsonl --db labels.db --project rate --append",
         ["4 in = 1 new + 3 left out (already there: 3)"]),
    Case("label import open.jsonl --db labels.db --project open", ["6 in = 6 kept"]),
    Case("label import-labels votes.jsonl --db labels.db --project rate",
         ["3 in = 1 stored + 2 left out (unknown answer: 1, no such item: 1)"]),
    Case("label export --db labels.db --project rate --as ratings --out ratings.csv",
         ["8 in = 1 rated + 7 left out (not rated: 7)"]),
    Case("label judge --db labels.db --project pop --judge ratings", ["20 questions = 20 labels + 0 unsure"]),
    Case("label judge --db labels.db --project each --judge rewards.py:length", ["15 questions = 15 labels"]),
    Case("label export --db labels.db --project pop --out own.parquet", ["20 labels = 20 used + 0 left out"],
         {"own.parquet": 20}),
    Case("label export --db labels.db --project each --as preferences --wrong drop --out own.jsonl",
         ["15 in = 14 kept + 1 left out (marked wrong by most: 1)"], {"own.jsonl": 14}),
    Case("label export --db labels.db --project each --out labels.jsonl", ["wrote 15 labels"], {"labels.jsonl": 15}),
    Case("label rank responses.jsonl --judge rewards.py:length --out ranked.jsonl",
         ["9 in = 6 ranked + 3 left out", "9 in = 5 kept + 4 left out"], {"ranked.jsonl": 5}),
    Case(
        "generate prompts.jsonl --answers answers.jsonl --n 1 --limit 2 --out taken.jsonl",
        ["4 in = 2 prompts + 2 left out (the same content as an earlier row: 1, beyond the first 2: 1)",
         "4 in = 2 taken + 2 left out (to prompts that were not asked for: 1, beyond 1 to a prompt: 1)"],
        {"taken.jsonl": 2},
    ),
    Case("generate preferences.jsonl --answers answers.jsonl --missing keep --out none.jsonl",
         ["20 in = 15 prompts + 5 left out (an empty text: 2, chosen and rejected are the same: 1, "],
         {"none.jsonl": 15}),
    Case(f"train {RUN} --output run --evaluation.reward rewards.py:length --evaluation.prompts 2 "
         "--evaluation.max_new_tokens 4 --data.limit 10",
         [READ, "15 in = 10 to train on + 3 held out + 2 left out", "10 in = 9 kept + 1 left out", "3 in = 3 kept",
          "1 row left out after tokenization (longer)", "1 row (long) lost prompt tokens"], slow=True),
    Case("eval run", [READ, "15 in = 3 held out + 12 left out", "3 in = 2 answered + 1 left out"], slow=True),
    Case("generate prompts.jsonl --model run --max-new-tokens 4 --out drawn.jsonl",
         ["4 in = 3 prompts + 1 left out"], {"drawn.jsonl": 3}, slow=True),
    Case("compare study.yaml", [READ, "12 in = 11 kept + 1 left out"], slow=True),
    Case("rounds rounds.yaml", [READ, "12 in = 4 seed + 4 round-1 + 4 left out (not used: 4)", "4 in = 4 prompts",
                                "8 in = 8 scored", "4 in = "], slow=True),
    Case("recommend train shop.yaml", ["125 in = 121 kept + 4 left out", "21 in = 20 users with both targets + 1"],
         slow=True),
    Case("recommend eval shop", ["125 in = 121 kept + 4 left out", "21 in = 20 users with both targets + 1"],
         slow=True),
]  # fmt: skip
BASE = {
    "model": {"path": "model"},
    "data": {"train": "bad.jsonl", "bad_rows": "drop", "max_length": 64},
    "train": {"batch_size": 4},
    "evaluation": {"reward": "rewards.py:length", "prompts": 2, "max_new_tokens": 4},
}
CONFIGS = {
    "study.yaml": {"output": "study", "base": BASE, "arms": {"dpo": {"objective": {"name": "dpo"}}}},
    "rounds.yaml": {"output": "rounds", "base": BASE, "recipe": {
        "name": "iterate", "rounds": 1, "labels": "rewards.py:length", "samples": 2, "seed_prompts": 4,
        "prompts_per_round": 4, "max_new_tokens": 4}},
    "shop.yaml": {"output": "shop", "data": {"path": "events.csv", "bad_rows": "drop", "split": "leave_one_out"},
                  "vectors": {"source": "learned", "dimension": 8}, "run": {"train": {"epochs": 1, "batch_size": 8}}},
}  # fmt: skip


def write_inputs(folder: Path) -> None:
    def lines(name: str, rows: list[Any]) -> None:
        texts = [one if isinstance(one, str) else json.dumps(one) for one in rows]
        (folder / name).write_text("".join(f"{text}\n" for text in texts))

    lines("bad.jsonl", [*GOOD, *BAD, *ODD])
    lines("preferences.jsonl", [one for one in [*GOOD, *BAD, *ODD] if one != "not json"])
    lines("twice.jsonl", [*GOOD[:3], {**GOOD[0], "id": "again"}])
    lines("more.jsonl", GOOD[:4])
    lines("open.jsonl", OPEN)
    lines("votes.jsonl", VOTES)
    lines("responses.jsonl", RESPONSES)
    lines("prompts.jsonl", PROMPTS)
    lines("answers.jsonl", ANSWERS)
    lines("events.csv", ["user,item,timestamp", *EVENTS, *BAD_EVENTS])
    (folder / "rewards.py").write_text(REWARDS)
    for name, values in CONFIGS.items():
        (folder / name).write_text(json.dumps(values))


Said = Callable[[Case], tuple[int, str]]


@pytest.fixture(scope="module")
def run_all(tmp_path_factory: pytest.TempPathFactory, make_model: Any, tiny_tokenizer: Any) -> Iterator[Said]:
    """Runs commands in the order of the table, each once, those before one that needs them too."""
    folder = tmp_path_factory.mktemp("account")
    write_inputs(folder)
    make_model().save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    done: dict[str, tuple[int, str]] = {}

    def said(case: Case) -> tuple[int, str]:
        for earlier in CASES[: CASES.index(case) + 1]:
            if earlier.command not in done and (case.slow or not earlier.slow):
                with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
                    code = main(shlex.split(earlier.command))
                done[earlier.command] = code, out.getvalue().replace("\r", "\n")
        return done[case.command]

    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        here.setenv("POPMARGIN_CACHE", str(folder / "cache"))
        yield said


SUM = re.compile(r"(\d+)(?: [a-z]+)?(?: in)? = (\d+ .*)")


def wrong_sums(said: str) -> list[str]:
    """The sums on screen that do not add up, or whose reasons do not."""
    wrong: list[str] = []
    for line in said.splitlines():
        found = SUM.search(line)
        if found is None:
            continue
        whole = found[2].partition(";")[0]
        plain = re.sub(r"\([^()]*\)", "", whole)
        terms = [re.match(r"\d+", term.strip()) for term in plain.split(" + ")]
        if sum(int(term[0]) for term in terms if term is not None) != int(found[1]):
            wrong.append(line)
        reasons = re.search(r"(\d+) left out \((.*: \d+)\)", whole)
        if reasons is not None and sum(map(int, re.findall(r": (\d+)(?:,|$)", reasons[2]))) != int(reasons[1]):
            wrong.append(line)
    kinds = [int(count) for count in re.findall(r"^  left out, [a-z_]+: (\d+)$", said, re.MULTILINE)]
    first = re.search(r" in = \d+ kept \+ (\d+) left out$", said, re.MULTILINE)
    if kinds and first is not None and sum(kinds) != int(first[1]):
        wrong.append(f"{kinds} do not add up to {first[1]}")
    return wrong


def rows_of(file: str) -> int:
    path = Path(file)
    return pq.read_metadata(path).num_rows if path.suffix == ".parquet" else len(path.read_text().splitlines())


def marked(case: Case) -> Any:
    name = " ".join(word for word in case.command.split()[:3] if word[:1] != "-")
    return pytest.param(case, id=name, marks=[pytest.mark.slow] if case.slow else [])


@pytest.mark.parametrize("case", [marked(case) for case in CASES])
def test_rows_in_are_kept_or_left_out(case: Case, run_all: Said) -> None:
    code, said = run_all(case)
    assert code == (1 if case.command == "data check bad.jsonl" else 0), said
    for wanted in case.sums:
        assert re.search(rf"(?m)(^|[ :]){re.escape(wanted)}", said), f"{wanted!r} is not in:\n{said}"
    assert not wrong_sums(said)
    for file, count in case.written.items():
        assert rows_of(file) == count


@pytest.mark.slow
def test_runs_store_what_they_said(run_all: Said) -> None:
    """And so do the evaluation, the study and every stage of rounds that reads rows."""
    for name in ("train", "eval", "compare", "rounds", "recommend train", "recommend eval"):
        run_all(next(case for case in CASES if case.command.startswith(name)))
    stored = {
        "run/run.json": ["account"], "run/evaluation/metrics.json": ["account"],
        "study/runs/dpo/seed-0/run.json": ["account"], "shop/run.json": ["account"],
    }  # fmt: skip
    for file in sorted(Path("rounds").rglob("manifest.json")):
        if "account" in json.loads(file.read_text()).get("facts", {}):
            stored[str(file)] = ["facts", "account"]
    assert len(stored) > 6, list(Path("rounds").rglob("*.json"))
    for file, keys in stored.items():
        found = json.loads(Path(file).read_text())
        for key in keys:
            found = found[key]
        assert found
        for step in found:
            assert step["rows_in"] == sum(step["kept"].values()) + sum(step["left_out"].values())
    steps = json.loads(Path("run/run.json").read_text())["account"]
    assert {"rows_in": 21, "kept": {"kept": 15}}.items() <= steps[0].items()
    assert any("lost prompt tokens" in note for step in steps for note in step["notes"])


def leaves(parser: argparse.ArgumentParser, before: str = "") -> Iterator[str]:
    """The verbs of a parser, with those above them."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield before.strip()
    for action in groups:
        for name, below in action.choices.items():
            yield from leaves(below, f"{before} {name}")


def test_every_verb_is_in_the_table() -> None:
    verbs = set(leaves(build_parser(VERBS)))
    in_table = {verb for verb in verbs if any(case.command.startswith(f"{verb} ") for case in CASES)}
    assert verbs - in_table - NO_ROWS == set(ELSEWHERE)
    assert not in_table & NO_ROWS
