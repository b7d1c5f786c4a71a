"""Nothing leaves without a word: in = kept + left out from the file to the rows, printed, stored and in the report."""

import itertools
import json
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import popmargin
from popmargin.account import Step
from popmargin.cli.main import main
from popmargin.config import DataConfig, RunConfig, dump_yaml, to_dict
from popmargin.data.tokenize import tokenize_preferences
from popmargin.errors import DataError
from popmargin.evaluation.run import evaluate_run
from popmargin.pop.edges import PopEdges
from popmargin.training.account import encoding_step
from popmargin.training.build import Run, make_parts
from popmargin.training.run import train
from popmargin.training.run_account import training_steps
from popmargin.training.sides import read_split

Configure = Callable[..., RunConfig]
GOOD = {"prompt": "sky", "chosen": "blue hills", "rejected": "rain"}
KINDS: dict[str, dict[str, Any]] = {
    "good": {},
    "long": {"chosen": "birds sing " * 30},
    "long and alike": {"chosen": "rain " * 40 + "a", "rejected": "rain " * 40 + "b"},
    "no answer": {"chosen": " "},
    "no text": {"rejected": None},
    "the same": {"rejected": "blue hills"},
    "weak": {"strength": 0.25},
    "swapped": {"soft_label": 0.2},
    "not a number": {"strength": float("nan")},
}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def check_sums(steps: list[Step]) -> None:
    for step in steps:
        assert step.rows_in == sum(step.kept.values()) + sum(step.left_out.values()), step
        assert Step.from_dict(json.loads(json.dumps(step.to_dict()))) == step


def test_a_step_that_loses_rows_cannot_be_written() -> None:
    with pytest.raises(AssertionError, match="rows lost"):
        Step(name="x", rows_in=3, kept={"kept": 1}, left_out={"tie": 1})
    with pytest.raises(AssertionError, match="rows lost"):
        Step(name="x", rows_in=1, kept={"kept": 2}, left_out={"tie": -1})
    step = Step(name="x.jsonl", rows_in=3, kept={"kept": 1}, left_out={"tie": 2, "odd_thing": 0})
    assert step.lines() == ["x.jsonl: 3 in = 1 kept + 2 left out (a tie: 2)"]


@settings(max_examples=25)
@given(
    kinds=st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=14),
    size=st.sampled_from([1, 2, 0.4]),
    validation=st.sampled_from([0.0, 1, 0.3]),
    limit=st.sampled_from([None, 2, 100]),
    own_test=st.booleans(),
    min_gap=st.sampled_from([0.0, 1.0]),
    truncation=st.sampled_from(["drop", "keep_prompt_end"]),
)
def test_every_row_of_every_data_set_is_in_the_account(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_tokenizer: Any,
    kinds: list[str],
    size: float,
    validation: float,
    limit: int | None,
    own_test: bool,
    min_gap: float,
    truncation: Any,
) -> None:
    """Whatever is read, split, limited and tokenized, each step takes over what the one before has kept."""
    folder = tmp_path_factory.mktemp("account")
    rows = [GOOD | {"prompt": f"sky {i}", "id": f"r{i}", "strength": 2.0} | KINDS[kind] for i, kind in enumerate(kinds)]
    good = [GOOD | {"prompt": f"always {i}", "strength": 3.0} for i in range(6)]
    test = write(folder / "test.jsonl", [{**row, "prompt": f"other {row['prompt']}"} for row in good])
    config = DataConfig(
        train=write(folder / "train.jsonl", rows + good),
        test=test if own_test else None,
        test_size=size,
        validation_size=validation,
        limit=limit,
        min_gap=min_gap,
        bad_rows="drop",
        split_seed=len(kinds),
    )
    split = read_split(config)
    steps = list(split.steps)
    check_sums(steps)
    reading, halves = steps[0], steps[-1]
    assert reading.rows_in == len(rows) + len(good) and reading.kept["kept"] == halves.rows_in
    assert halves.kept["to train on"] == len(split.train)
    if not own_test or validation:
        assert halves.kept["held out"] == len(split.test)
    names = [*split.train.ids, *split.aside.ids, *(split.test.ids if not own_test or validation else [])]
    assert len(names) == len(set(names)) == halves.rows_in
    for preferences in (split.train, split.test):
        try:
            tokenized = tokenize_preferences(preferences, tiny_tokenizer, max_length=24, truncation=truncation)
        except DataError:
            continue  # none is left: said
        step = encoding_step(tokenized.report, "x")
        check_sums([step])
        assert (step.rows_in, step.kept["kept"]) == (len(preferences), len(tokenized))


def test_two_bad_rows_are_printed_stored_and_in_the_report(
    tmp_path: Path, base_run: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The public case: of eight rows two are unusable, and once only '5 rows' was said."""
    rows = [GOOD | {"prompt": f"sky {i}?", "hue": "blue"} for i in range(8)]
    rows[2]["chosen"], rows[5]["rejected"] = "", None
    rows[7] |= {"prompt": "sky 0?"}  # the same texts as the first row
    data = write(tmp_path / "eight.jsonl", rows)
    run = base_run | {"data": {"train": data, "bad_rows": "drop", "test_size": 1, "max_length": 96}}
    file = tmp_path / "run.yaml"
    file.write_text(dump_yaml(run))
    assert main(["train", str(file), "--train.max_steps", "1", "--train.batch_size", "2"]) == 0
    printed = capsys.readouterr().err
    expected = [
        "eight.jsonl: 8 in = 6 kept + 2 left out (an empty text: 1, a missing value: 1)",
        "eight.jsonl:3: the chosen completion is empty.",
        "data columns not used by 'dpo': hue",
        "rows that repeat the texts of an earlier row (kept): 1",
        "held out by prompt: data.test_size 1, 1 of 5 prompts",
    ]
    assert all(sentence in printed for sentence in expected), printed
    assert "rows seen in 1 step of 2: 5 in = 2 seen + 3 left out (training ended before the first epoch: 3)" in printed
    stored = json.loads((tmp_path / "run" / "run.json").read_text())["account"]
    steps = [Step.from_dict(step) for step in stored]
    check_sums(steps)
    assert all(line in printed for step in steps for line in step.lines())
    assert main(["eval", str(tmp_path / "run")]) == 0
    assert "eight.jsonl: 8 in = 6 kept + 2 left out" in capsys.readouterr().err
    page = tmp_path / "report.html"
    assert main(["report", str(tmp_path / "run"), "--out", str(page)]) == 0
    text = unescape(page.read_text())
    assert "an empty text: 1; a missing value: 1" in text and all(sentence in text for sentence in expected[1:])
    assert "held out when the run was trained, matched by id and content" in text


def test_what_tokenization_does_is_said(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = Run.read(configure({"data": {"max_length": 24, "truncation": "drop"}})).workspace()
    workspace.tell(workspace.account)
    workspace.tell(workspace.account)  # a study tells what its runs share once
    printed = capsys.readouterr().err
    report = workspace.train.encoded.report
    dropped = len(report.dropped)
    assert 0 < dropped < report.rows_in
    line = f"training preferences: {report.rows_in} in = {report.rows_kept} kept + {dropped} left out"
    assert printed.count(f"{line} (longer than data.max_length: {dropped})") == 1
    cut = Run.read(configure({"data": {"max_length": 24}})).workspace()
    assert any("lost prompt tokens" in note for note in cut.account[-2].notes)


def test_edges_that_name_what_was_left_out_are_counted(tmp_path: Path, configure: Configure, data_path: str) -> None:
    """In the file = used + those of preferences beyond the limit or dropped as too long; unknown ids stay an error."""
    everyone = Run.read(configure({})).workspace().train.ids
    edges = PopEdges.from_columns(everyone[:-1], everyone[1:], tie=[i == 0 for i in range(len(everyone) - 1)])
    edges.save(tmp_path / "edges.parquet")
    config = configure(
        {"objective": {"name": "pop"}, "pop": {"edges": str(tmp_path / "edges.parquet")}},
        {"data": {"limit": 24, "max_length": 30, "truncation": "drop"}},
    )
    workspace = Run.read(config).workspace()
    steps = training_steps(Run.read(config), workspace, make_parts(Run.read(config), workspace))
    check_sums(steps)
    of_edges, of_rows = steps
    assert of_edges.rows_in == len(edges)
    assert set(of_edges.left_out) >= {
        "name a preference beyond data.limit",
        "name a preference dropped by tokenization",
    }
    trained = set(workspace.train.ids)
    pairs = list(itertools.pairwise(everyone))
    inside = [pair for pair in pairs[1:] if set(pair) <= trained]
    assert of_edges.kept["used"] == len(inside) > 0
    stronger, weaker = {pair[0] for pair in inside}, {pair[1] for pair in inside}
    assert of_rows.rows_in == len(trained) and of_rows.kept == {f"trained on, in {len(inside)} rows": len(stronger)}
    assert sum(of_rows.left_out.values()) == len(trained - stronger)
    assert of_rows.left_out["only the weaker side of edges, scored but not trained on"] == len(weaker - stronger)
    PopEdges.from_columns(["nobody"], sorted(trained)[:1]).save(tmp_path / "edges.parquet")
    with pytest.raises(DataError, match="such as 'nobody'"):
        make_parts(Run.read(config), Run.read(config).workspace())


def test_columns_that_the_objective_does_not_use_are_named(configure: Configure) -> None:
    expected = {"dpo": "chosen_rating, rejected_rating", "dpo_rating_margin": None, "pop": None}
    for name, columns in expected.items():
        config = configure({"objective": {"name": name}})
        workspace = Run.read(config).workspace()
        notes = training_steps(Run.read(config), workspace, make_parts(Run.read(config), workspace))[-1].notes
        said = [note for note in notes if "not used by" in note]
        assert said == ([] if columns is None else [f"data columns not used by '{name}': {columns}"])


@pytest.mark.parametrize(
    ("objective", "signals", "unused"),
    [
        ("dpo_rating_margin", {}, None),
        ("dpo_rating_margin", {"margin": "margin"}, None),
        ("pop", {}, None),
        ("dpo", {}, "strength, topic"),
    ],
)
def test_a_margin_that_is_read_as_the_strength_is_one_column(
    tmp_path: Path, configure: Configure, objective: str, signals: dict[str, Any], unused: str | None
) -> None:
    """It was said to be the margin, and in the next line to be unused."""
    rows = [GOOD | {"prompt": f"sky {i}?", "margin": 0.5 + i} | ({"topic": "sky"} if unused else {}) for i in range(8)]
    data = write(tmp_path / "margins.jsonl", rows)
    config = configure({"data": {"train": data, "test_size": 2}, "objective": {"name": objective}, "signals": signals})
    workspace = Run.read(config).workspace()
    notes = training_steps(Run.read(config), workspace, make_parts(Run.read(config), workspace))[-1].notes
    said = [note for note in notes if "not used by" in note]
    assert said == ([] if unused is None else [f"data columns not used by '{objective}': {unused}"])


def test_the_python_api_gives_the_same_account(
    tmp_path: Path, base_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of what was left out when the data was loaded in memory, before `train` saw it."""
    monkeypatch.setenv("POPMARGIN_CACHE", str(tmp_path / "cache"))
    answers = [[{"text": "blue", "rating": 2}, {"text": "rain", "rating": 1 + (i == 3)}] for i in range(8)]
    rated = [{"prompt": f"sky {i}", "responses": given} for i, given in enumerate(answers)]
    shared = {name: base_run[name] for name in ("reference", "evaluation")}
    config = shared | {"train": base_run["train"] | {"max_steps": 1}, "data": {"test_size": 2}}
    run = popmargin.train(
        rated, model=base_run["model"]["path"], objective="dpo", output=tmp_path / "run", config=config
    )
    steps = [Step.from_dict(step) for step in run.facts()["account"]]
    assert (steps[0].rows_in, steps[0].left_out) == (8, {"tie": 1})
    assert steps[1].rows_in == 7
    assert "8 in = 7 kept + 1 left out (a tie: 1)" in capsys.readouterr().err
    metrics = popmargin.evaluate(run)
    check_sums([Step.from_dict(step) for step in metrics["account"]])


@pytest.mark.slow
def test_generations_are_counted(configure: Configure, reward_path: str) -> None:
    """Prompts asked and not asked, prompts cut, answers cut, empty ones."""
    changes = {"evaluation": {"reward": reward_path, "max_new_tokens": 4, "prompts": 5}, "train": {"max_steps": 1}}
    run, _ = train(configure(changes, {"data": {"max_length": 16}}))
    metrics = evaluate_run(run.path)
    steps = {step["name"]: Step.from_dict(step) for step in metrics["account"]}
    policy = steps["generations of the policy"]
    assert (policy.rows_in, policy.kept["answered"], sum(policy.left_out.values())) == (8, 5, 3)
    assert any(note.startswith("prompts truncated to the 12 tokens that fit") for note in policy.notes)
    cut = 1 - metrics["intervals"]["finished"]["estimate"]
    assert f"answers cut at evaluation.max_new_tokens 4: {round(5 * cut)} of 5" in policy.notes or np.isclose(cut, 0)
    assert steps["generations of the reference"].rows_in == 8
    assert to_dict(run.config())["evaluation"]["prompts"] == 5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"warmup_ratio": 0.03}, "nothing was trained: every step was a warm-up step at a learning rate of 0; lower"),
        ({"learning_rate": 0.0}, "nothing was trained: train.learning_rate is 0"),
        ({}, None),
    ],
)
def test_a_run_that_trained_nothing_says_so(
    configure: Configure, capsys: pytest.CaptureFixture[str], change: dict[str, Any], sentence: str | None
) -> None:
    """The only step of a short run is a warm-up step. `train` itself says it, so that studies and rounds do, too."""
    directory, _ = train(configure({"train": {"scheduler": "linear", "max_steps": 1, **change}}))
    notes = [note for step in directory.facts()["account"] for note in step["notes"]]
    told = [note for note in notes if "nothing was trained" in note]
    assert len(told) == (sentence is not None) and (sentence is None or told[0].startswith(sentence))
    assert sentence is None or sentence in capsys.readouterr().err
