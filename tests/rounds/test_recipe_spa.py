"""SPA's loop: stages, judge's reference, controls, and what must not be shared between rounds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.rounds.conftest import facts

from popmargin.data.load import load_preferences
from popmargin.data.responses import Responses
from popmargin.data.split import leak_keys
from popmargin.errors import ConfigError
from popmargin.recipes.base import plan_of
from popmargin.rounds.rounds_config import RoundsConfig
from popmargin.rounds.run_rounds import run_rounds
from popmargin.training import watch

MakeRounds = Callable[..., RoundsConfig]


def test_the_stages_and_what_they_depend_on(make_rounds: MakeRounds) -> None:
    config = make_rounds({"name": "spa", "rounds": 2, "seed_prompts": 8})
    plan = plan_of(config)
    steps = ("sample", "label", "pair", "train", "measure")
    assert [stage.name for stage in plan] == [
        "data", "start/measure", "seed/train", "seed/measure",
        *(f"round-1/{step}" for step in steps), *(f"round-2/{step}" for step in steps),
    ]  # fmt: skip
    start = Path(config.base["model"]["path"])
    label = plan["round-2/label"]
    assert label.inputs["reference"] == start  # the judge's reference is the start model in every round
    assert label.inputs["policy"] == plan["round-1/train"]["model"]
    train = plan["round-2/train"]
    assert train.inputs["model.path"] == plan["round-1/train"]["model"]
    assert "reference.model" not in train.inputs and train.settings["reference"]["model"] is None  # its own start
    assert [plan[f"round-{r}/train"].settings["objective"]["decoupling"] for r in (1, 2)] == [0.5, 0.25]
    assert plan["seed/train"].settings["epochs_if_few"] == {"below": 2000, "epochs": 3.0}


@pytest.mark.parametrize(
    ("judge", "of_round"),
    [("initial", ("start", "start")), ("previous", ("start", "seed/train")), ("none", ("none", "none"))],
)
def test_the_reference_of_the_judge(make_rounds: MakeRounds, judge: str, of_round: tuple[str, str]) -> None:
    config = make_rounds({"name": "spa", "rounds": 2, "seed_prompts": 8, "judge_reference": judge})
    plan = plan_of(config)
    for number, expected in enumerate(of_round, 1):
        label = plan[f"round-{number}/label"]
        if expected == "none":
            assert label.settings["reference"] == "none" and "reference" not in label.inputs
        else:
            wanted = Path(config.base["model"]["path"]) if expected == "start" else plan[expected]["model"]
            assert label.inputs["reference"] == wanted


def test_options_are_checked(make_rounds: MakeRounds) -> None:
    for recipe, sentence in (
        ({"name": "spaa"}, r"Unknown recipe 'spaa'.*spa"),
        ({"name": "spa", "round": 1}, r"no option 'round'.*rounds"),
        ({"name": "spa", "rounds": -1}, "rounds must be at least 0"),
        ({"name": "spa", "samples": 1}, "samples must be at least 2"),
        ({"name": "spa", "judge_reference": "first"}, "judge_reference"),
        ({"rounds": 1}, r"recipe\.name is missing"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            plan_of(make_rounds(recipe) if "name" in recipe else make_rounds({}).__class__(recipe=recipe))


@pytest.mark.slow
def test_two_rounds(
    tmp_path: Path, make_rounds: MakeRounds, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "GROWN", 0.5)  # a response of any length is too long
    monkeypatch.setattr(watch, "GROWN_TOKENS", -100)
    config = make_rounds({"name": "spa", "rounds": 2, "seed_prompts": 8, "prompts_per_round": 8})
    report = run_rounds(config, plan_of(config))
    folder = tmp_path / "rounds"
    data = [load_preferences(folder / f"data/{name}.parquet") for name in ("seed", "round-1", "round-2", "test")]
    keys = [set(leak_keys(part)) for part in data]
    assert [len(part) for part in keys] == [8, 8, 8, 8]
    assert len(set().union(*keys)) == 32  # no prompt in two parts
    for number in (1, 2):
        sampled = Responses.load(folder / f"round-{number}/sample/responses.parquet")
        assert len(sampled) == 8 and set(sampled.counts) == {2} and set(sampled.field("round")) == {number}
        labelled = Responses.load(folder / f"round-{number}/label/responses.parquet")
        assert {"label", "trusted"} <= set(labelled.score_names)
        pairs = load_preferences(folder / f"round-{number}/pair/preferences.parquet")
        best = {str(p): labelled.select([row]).best("label").texts[0] for row, p in enumerate(labelled.prompts)}
        for row in range(len(pairs)):
            assert pairs[row]["chosen"] == best[str(pairs[row]["prompt"])]
        counted = facts(folder, f"round-{number}/pair")
        assert counted["prompts"] == counted["pairs"] + sum(counted["left_out"].values()) == 8
        assert 0 <= facts(folder, f"round-{number}/label")["agreement"]["overall"]["estimate"] <= 1
    assert "warnings" not in facts(folder, "round-1/sample")
    (warned,) = facts(folder, "round-2/sample")["warnings"]
    assert "(the first round;" in warned and f"  warning: {warned}" in capsys.readouterr().err
    page = report.read_text()
    for words in ("round-2", "agreement", "Win rate", "Mean reward"):
        assert words in page
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "locks" not in path.parts}
    capsys.readouterr()
    run_rounds(config, plan_of(config))
    assert capsys.readouterr().err == ""
    assert before == {path: path.read_bytes() for path in before}


def test_random_labels_know_nothing_and_hold_still() -> None:
    from popmargin.rounds.stages.label_responses import random_labels

    table = Responses([f"{n}?" for n in range(200)], [["a", "b", "c"]] * 200)
    labels = np.array(random_labels(table, 3))
    assert (labels[:5] == np.array(random_labels(table.select(range(5)), 3))).all()
    assert not (labels == np.array(random_labels(table, 4))).any()
    counts = np.bincount(labels.argmax(axis=1), minlength=3)
    assert np.abs(counts - 200 / 3).max() < 4 * np.sqrt(200 * 2 / 9)


def test_too_few_prompts_are_refused(make_rounds: MakeRounds) -> None:
    config = make_rounds({"name": "spa", "rounds": 3, "seed_prompts": 20, "prompts_per_round": 20})
    with pytest.raises(ConfigError, match=r"stage 'data'.*needs 80 distinct training prompts.*have 32"):
        run_rounds(config, plan_of(config))
