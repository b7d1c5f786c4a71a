"""Goals and runs: what is trained on goals is asked for the best one, in every measurement, and says so."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popmargin.cli.main import main
from popmargin.config import RunConfig
from popmargin.data.augment import augment
from popmargin.data.goals import HEAD, GoalFacts
from popmargin.data.load import load_preferences
from popmargin.errors import DataError
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.prompt_set import PromptSet
from popmargin.evaluation.run import evaluate_run
from popmargin.training.build import Run
from popmargin.training.inputs import with_data
from popmargin.training.run import train

Configure = Callable[..., RunConfig]


@pytest.fixture
def plain(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rated preferences, ratings from 0 to 5, each prompt twice."""
    path = tmp_path / "plain.jsonl"
    again = [{**row, "id": f"{row['id']}b", "chosen": f"{row['chosen']} Yes."} for row in rows[:4]]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *again]))
    return path


@pytest.fixture
def augmented(plain: Path, tmp_path: Path) -> Path:
    path = tmp_path / "augmented.parquet"
    augment(load_preferences(plain), scale=(0, 5)).save(path)
    return path


@pytest.mark.slow
def test_held_out_rows_and_prompts_ask_for_the_best_goal(
    configure: Configure, augmented: Path, tmp_path: Path, reward_path: str, rows: list[dict[str, Any]]
) -> None:
    """A run on goals, with held-out rows of its own and with plain ones given later: margins, samples and account."""
    changes = {
        "data": {"train": str(augmented), "test_size": 6, "max_length": 192},
        "train": {"max_steps": 1},
        "evaluation": {"reward": reward_path},
    }
    directory, _ = train(configure(changes))
    facts = GoalFacts.from_dict(directory.facts()["goal"])
    assert facts.best is not None and facts.maps[0]["max"] == 5.0 and facts.best[0] <= 10
    line = f"Overall score: {facts.best[0]:g}"
    workspace = Run.opened(directory.path).workspace()
    split_off = workspace.test.preferences
    assert {row["goal_reversed"] for row in split_off.dataset} == {True, False}
    prompts = PromptSet.of(workspace, None).prompts
    assert len(prompts) == 6 and all(prompt.startswith(f"{HEAD}{line}\n\n") for prompt in prompts)
    notes = [note for step in directory.facts()["account"] for note in step["notes"]]
    assert any(note.startswith(f"held-out prompts ask for '{line}', the best goal") for note in notes)
    assert any("data.test_size 6, 6 of 40 prompts" in note for note in notes)

    metrics = evaluate_run(directory.path)
    assert metrics["goal"]["best"] == list(facts.best) and line in metrics["goal"]["note"]
    generations = Generations.load(directory.evaluation / "generations.parquet")
    asked = [f"{HEAD}{line}\n\n{prompt}" for prompt in generations.responses.prompts]  # without goals, as other runs
    assert asked == prompts[: len(asked)] and set(generations.responses.column("goal")) == {line}
    answered = [step for step in metrics["account"] if step["name"] == "generations of the policy"]
    assert any(line in note for note in answered[0]["notes"])

    assert main(["report", str(directory.path), "--out", str(tmp_path / "report.html")]) == 0
    assert "the best goal seen in training" in (tmp_path / "report.html").read_text(encoding="utf-8")

    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({**row, "prompt": f"new {row['prompt']}"}) + "\n" for row in rows[:5]))
    metrics = evaluate_run(Run.opened(directory.path, with_data(directory.config(), test=str(other))))
    assert any(line in note for step in metrics["account"] for note in step["notes"])
    folder = next(directory.path.glob("evaluation-other-*"))
    assert set(Generations.load(folder / "generations.parquet").responses.column("goal")) == {line}
    other.write_text(json.dumps(rows[0]) + "\n" + json.dumps(rows[1]) + "\n" + json.dumps(rows[2]) + "\n")
    trained = {row["goal_of"] for row in workspace.train.preferences.dataset}
    assert trained & {"p000", "p001", "p002"}
    with pytest.raises(DataError, match="have a prompt that the run was trained on"):
        evaluate_run(Run.opened(directory.path, with_data(directory.config(), test=str(other))))


def test_plain_held_out_rows_are_measured_under_the_best_goal(
    configure: Configure, plain: Path, tmp_path: Path
) -> None:
    """With a held-out file of its own: what training and evaluation encode is the same, and can be evaluated again."""
    data = load_preferences(plain)
    train_file, test_file = tmp_path / "train.parquet", tmp_path / "test.jsonl"
    augment(data.select(range(30)), scale=(0, 5), half=True).save(train_file)
    names = {row["prompt"] for row in data.select(range(30)).dataset}
    data.select([n for n in range(len(data)) if data[n]["prompt"] not in names]).save(test_file)
    config = configure(
        {"data": {"train": str(train_file), "test": str(test_file), "max_length": 192}, "train": {"max_steps": 1}}
    )
    directory, _ = train(config)
    workspace = Run.read(config).workspace()
    assert len(workspace.train) <= 30 and "goal_of" in workspace.train.preferences.columns
    best = directory.facts()["goal"]["best"][0]
    for row in workspace.test.preferences.dataset:
        assert dict(row)["prompt"].startswith(f"{HEAD}Overall score: {best:g}\n\n")
    assert evaluate_run(directory.path)["goal"]["best"] == [best]


def test_prompts_that_would_lose_their_goal_are_refused(
    configure: Configure, augmented: Path, reward_path: str
) -> None:
    """Trap 7: by data.max_length in training, and by the room beside an answer in evaluation."""
    data = {"train": str(augmented), "test_size": 6}
    with pytest.raises(DataError, match=r"lose the goal in their prompt \(p0.*cut to data.max_length 60"):
        _ = Run.read(configure({"data": data | {"max_length": 60}})).workspace().train
    cut = configure({"data": data | {"max_length": 130, "truncation": "keep_prompt_start"}})
    kept = Run.read(cut).workspace().train
    assert len(kept)
    run = Run.read(
        configure({"data": data | {"max_length": 192}, "evaluation": {"reward": reward_path, "max_new_tokens": 150}})
    )
    with pytest.raises(DataError, match="would lose the goal at their start"):
        run.workspace().check_rows(run.evaluation)


def test_a_template_that_drops_the_system_message_is_refused(
    configure: Configure, plain: Path, tmp_path: Path, model_path: str, tiny_tokenizer: Any
) -> None:
    """Chats under a template without a system role: the goal has to stand in the first user turn, where it is seen."""
    model = tmp_path / "no-system"
    model.mkdir()
    for file in Path(model_path).iterdir():
        (model / file.name).symlink_to(file)
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "for m in messages %}", "for m in messages if m['role'] != 'system' %}"
    )
    for file in model.glob("tokenizer*"):
        file.unlink()
    (model / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(model)
    chats = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            **{side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")},
            **{name: row[name] for name in ("id", "chosen_rating", "rejected_rating")},
        }
        for row in load_preferences(plain).dataset
    ]  # fmt: skip
    for place, lost in (("system", True), ("user", False)):
        path = tmp_path / f"{place}.parquet"
        augment(load_preferences(chats), scale=(0, 5), place=place).save(path)  # pyright: ignore
        config = configure({"model": {"path": str(model)}, "data": {"train": str(path), "max_length": 192}})
        if lost:
            with pytest.raises(DataError, match="the chat template leaves out the system message"):
                _ = Run.read(config).workspace().train
        else:
            assert len(Run.read(config).workspace().train) > 0
