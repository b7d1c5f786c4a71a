"""A run goes on with what it was trained on: data, models, edges, code and settings are compared, differences said."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from popmargin.cli.main import main
from popmargin.code_permission import allow_code
from popmargin.config import EvaluationConfig, RunConfig
from popmargin.data import load_preferences
from popmargin.errors import ConfigError, RunError
from popmargin.evaluation.run import evaluate_run
from popmargin.pop.edges import PopEdges
from popmargin.training.build import Run
from popmargin.training.fingerprints import Change, Record, Rows, column_facts
from popmargin.training.inputs import differences, with_absolute_paths, with_data
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory

Configure = Callable[..., RunConfig]
OBJECTIVE = '''
import torch
from dataclasses import dataclass
from popmargin import Needs, objective

import scaling
from parts.sign import sign

@dataclass(frozen=True, kw_only=True)
class Options:
    """Options.

    Attributes:
        beta: scale.
    """

    beta: float = 0.1

@objective("NAME", options=Options, score="log_ratio", origin="ours", needs=Needs(edges=True))
def mine(rows, options):
    """Mine."""
    return -sign() * torch.nn.functional.logsigmoid(scaling.scaled(options.beta) * rows.gap)
'''
HELPERS = {
    "scaling.py": "import factors\n\ndef scaled(beta):\n    return factors.ONE * beta\n",
    "factors.py": "ONE = 1.0\n",
    "parts/__init__.py": "",
    "parts/sign.py": "from . import one\n\ndef sign():\n    return one.ONE\n",
    "parts/one.py": "ONE = 1.0\n",
    "other.py": "nothing = 'imports this'\n",
    "liking.py": "import vowels\n\ndef liked(prompts, completions):\n    return [*map(vowels.share, completions)]\n",
    "vowels.py": "def share(text):\n    return sum(c in 'aeiou' for c in text) / max(len(text), 1)\n",
}


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))


@pytest.fixture
def inputs(tmp_path: Path, model_path: str, rows: list[dict[str, Any]]) -> Path:
    """A folder with all that a run can read: data, a model, edges, an objective."""
    folder = tmp_path / "in"
    shutil.copytree(model_path, folder / "model")
    for name, part in (("train", rows[:24]), ("test", rows[24:32])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    ids = [row["id"] for row in rows[:24]]
    PopEdges.from_columns(ids[:-1], ids[1:]).save(folder / "edges.parquet")
    for name, text in HELPERS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "mine.py").write_text(OBJECTIVE.replace("NAME", f"mine_{tmp_path.name}"))  # a registry is for a process
    return folder


@pytest.fixture
def config(inputs: Path, configure: Configure) -> RunConfig:
    data = {"train": str(inputs / "train.jsonl"), "test": str(inputs / "test.jsonl")}
    parts = {"objective": {"name": f"{inputs / 'mine.py'}:mine"}, "pop": {"edges": str(inputs / "edges.parquet")}}
    parts |= {"evaluation": {"reward": f"{inputs / 'liking.py'}:liked", "prompts": 2, "max_new_tokens": 4}}
    return configure({"data": data, "model": {"path": str(inputs / "model")}, "train": {"max_steps": 1}}, parts)


def edit_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    weights[name][0, 0] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def other_template(folder: Path) -> None:
    file = next(file for file in folder.iterdir() if "<|im_start|>{{" in file.read_text(errors="replace"))
    file.write_text(file.read_text().replace("<|im_start|>{{", "<|im_start|> {{"))


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "edited": (
        lambda f: rewrite(f / "train.jsonl", lambda rows: [{**rows[0], "chosen": "other fine."}, *rows[1:]]),
        r"of 24 training preferences: 1 edited \(p000\)",
    ),
    "rated": (
        lambda f: rewrite(f / "train.jsonl", lambda rows: [{**rows[0], "chosen_rating": 4.99}, *rows[1:]]),
        r"of 24 training preferences: 1 edited \(p000\)",
    ),
    "grown": (
        lambda f: rewrite(f / "train.jsonl", lambda rows: [*rows, {**rows[0], "id": "x", "prompt": "new"}]),
        r"of 24 training preferences: 1 new \(x\)",
    ),
    "dropped": (
        lambda f: rewrite(f / "train.jsonl", lambda rows: rows[1:]),
        r"of 24 training preferences: 1 gone \(p000\)",
    ),
    "shuffled": (
        lambda f: rewrite(f / "train.jsonl", lambda rows: rows[::-1]),
        "they are in a different order",
    ),
    "test": (
        lambda f: rewrite(f / "test.jsonl", lambda rows: rows[1:]),
        r"of 8 held-out preferences: 1 gone \(p024\)",
    ),
    "weights": (lambda f: edit_weights(f / "model"), "start model: changed"),
    "template": (lambda f: other_template(f / "model"), "tokenizer: changed"),
    "edges": (
        lambda f: PopEdges.load(f / "edges.parquet").swap().save(f / "edges.parquet"),
        "PoP edges: changed",
    ),
    "code": (
        lambda f: (f / "mine.py").write_text((f / "mine.py").read_text() + "# edited\n"),
        "the code of 'mine_.*': changed",
    ),
    "imported": (lambda f: add_line(f / "scaling.py"), r"scaling\.py, which 'mine_.*' imports: changed"),
    "imported by that": (lambda f: add_line(f / "factors.py"), r"factors\.py, which 'mine_.*' imports: changed"),
    "in a package": (lambda f: add_line(f / "parts" / "one.py"), r"parts/one\.py, which 'mine_.*' imports: changed"),
    "reward": (lambda f: add_line(f / "liking.py"), "the code of the reward: changed"),
    "imported by the reward": (lambda f: add_line(f / "vowels.py"), r"vowels\.py, which the reward imports: changed"),
}


def add_line(file: Path) -> None:
    file.write_text(file.read_text() + "# edited\n")


def test_a_run_goes_on_with_nothing_else(config: RunConfig, inputs: Path, tmp_path: Path) -> None:
    """Every kind of change, for a finished run and for one that was stopped; afterwards all is as before."""
    run, _ = train(config)
    finished = (run.path / "run.json").read_bytes()
    before = tmp_path / "before"
    shutil.copytree(inputs, before)
    for name, (change, message) in CHANGES.items():
        change(inputs)
        for done in (True, False):
            if not done:
                (run.path / "run.json").unlink()
            state = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
            with pytest.raises(RunError, match=message) as caught:
                train(config, resume=True)
            assert "Restore it, or train again" in str(caught.value), name
            assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == state, name
        (run.path / "run.json").write_bytes(finished)
        shutil.rmtree(inputs)
        shutil.copytree(before, inputs)
    again, _ = train(config, resume=True)
    assert (again.path / "run.json").read_bytes() == finished
    (run.path / "run.json").unlink()
    assert train(config, resume=True)[0].finished


def test_the_source_of_own_components_is_kept(config: RunConfig, inputs: Path) -> None:
    run, _ = train(config)
    code = run.path / "code"
    kept = {file.relative_to(code).as_posix(): file.read_bytes() for file in code.rglob("*") if file.is_file()}
    objective = ("mine.py", "scaling.py", "factors.py", "parts/__init__.py", "parts/sign.py", "parts/one.py")
    wanted = {f"objective/{name}": (inputs / name).read_bytes() for name in objective}
    wanted |= {f"reward/{name}": (inputs / name).read_bytes() for name in ("liking.py", "vowels.py")}
    assert kept == wanted
    plain, _ = train(
        replace(config, objective={"name": "dpo"}, evaluation=EvaluationConfig(), output=str(inputs / "p"))
    )
    assert not (plain.path / "code").exists()


@pytest.mark.parametrize("name", ["code", "imported", "in a package", "reward", "imported by the reward"])
def test_code_that_changed_is_not_evaluated(config: RunConfig, inputs: Path, name: str) -> None:
    change, message = CHANGES[name]
    run, _ = train(config)
    change(inputs)
    with pytest.raises(RunError, match=rf"Changed: {message.rpartition(':')[0]}\. .*A copy of its code is in .*code"):
        evaluate_run(run.path)


def test_another_reward_is_evaluated_on_purpose(config: RunConfig, inputs: Path) -> None:
    run, _ = train(config)
    add_line(inputs / "liking.py")
    other = inputs / "other_reward.py"
    other.write_text("def length(prompts, completions):\n    return [float(len(text)) for text in completions]\n")
    changed = replace(config.evaluation, reward=f"{other}:length")
    assert "mean_reward" in evaluate_run(Run.opened(run.path, replace(run.config(), evaluation=changed)))["intervals"]


def test_a_run_stands_alone_when_the_code_is_gone(
    config: RunConfig, inputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With its own copies, which is said: evaluated, gone on with, and moved with them; its files keep their names."""
    (inputs / "judge.txt").write_text("{prompt} {response}")
    judge = {"template": str(inputs / "judge.txt")}
    config = replace(config, evaluation=replace(config.evaluation, reward_options=judge))
    plain = replace(config.evaluation, reward_options={})  # a function takes no options
    run, _ = train(config)

    def evaluated(folder: Path) -> dict[str, Any]:
        return evaluate_run(Run.opened(folder, replace(RunDirectory(folder).config(), evaluation=plain)))

    before, stored = evaluated(run.path), (run.path / "config.yaml").read_bytes()
    assert "is gone" not in caplog.text
    for name in ("mine.py", "judge.txt", *HELPERS):
        (inputs / name).unlink()
    allow_code([run.path / "code" / "objective" / "mine.py", run.path / "code" / "reward" / "liking.py"])
    plain = replace(plain, reward=run.config().evaluation.reward)
    after = evaluated(run.path)
    assert after["intervals"] == before["intervals"]
    said = "the file of '{}' is gone: the run's copy, code/objective/mine.py, is used".format(f"mine_{tmp_path.name}")
    assert said in {note for step in after["account"] for note in step["notes"]}
    (run.path / "run.json").unlink()
    caplog.clear()
    assert main(["train", "--resume", "--output", str(run.path)]) == 0
    assert (run.path / "config.yaml").read_bytes() == stored and str(inputs / "mine.py") in stored.decode()
    told = {note for step in run.facts()["account"] for note in step["notes"] if "is gone" in note}
    reward, template = (
        f"the file of {name} is gone: the run's copy, code/{place}, is used"
        for name, place in (("the reward", "reward/liking.py"), ("the judge's template", "template/judge.txt"))
    )
    assert told == {said, reward, template} and all(f"{run.path}: {note}" in caplog.text for note in told)
    before = before["intervals"]
    moved = tmp_path / "moved"
    shutil.move(run.path, moved)
    allow_code([moved / "code" / "objective" / "mine.py", moved / "code" / "reward" / "liking.py"])
    plain = replace(plain, reward=RunDirectory(moved).config().evaluation.reward)
    assert evaluated(moved)["intervals"] == before and str(moved) in str(plain.reward)
    add_line(moved / "code" / "objective" / "factors.py")
    with pytest.raises(RunError, match=r"code/objective/factors\.py has 19 bytes, and 10 were written\. Restore it"):
        evaluated(moved)
    (moved / "popmargin_files.json").unlink()  # as if it was meant
    with pytest.raises(RunError, match=r"inputs\. Changed: factors\.py, which 'mine_.*' imports\. Restore"):
        evaluated(moved)


def test_a_reward_model_is_recorded(configure: Configure, inputs: Path) -> None:
    """Its weights decide what is measured; another one is evaluated on purpose, or none."""
    shutil.copytree(inputs / "model", inputs / "rm")
    reward = {"evaluation": {"reward": f"model:{inputs / 'rm'}", "prompts": 2, "max_new_tokens": 4}}
    config = configure({"data": {"limit": 20}, "train": {"max_steps": 1}}, reward)
    run, _ = train(config)
    assert train(config, resume=True)[0].finished
    edit_weights(inputs / "rm")
    with pytest.raises(RunError, match="the reward model: changed"):
        train(config, resume=True)
    with pytest.raises(RunError, match=r"trained with different inputs\. Changed: the reward model"):
        evaluate_run(run.path)
    other = replace(config.evaluation, reward=None)
    assert "accuracy" in evaluate_run(Run.opened(run.path, replace(run.config(), evaluation=other)))["intervals"]
    shutil.rmtree(inputs / "rm")
    with pytest.raises(RunError, match="the reward model: was used before and is not there now"):
        train(config, resume=True)


def test_the_runs_own_settings_are_taken(config: RunConfig, capsys: pytest.CaptureFixture[str], inputs: Path) -> None:
    """`train --resume --output RUN` needs no file; a difference is said before any work, field by field."""
    run, _ = train(config)
    (run.path / "run.json").unlink()
    assert main(["train", "--resume", "--output", str(run.path)]) == 0
    assert run.finished and run.config() == with_absolute_paths(config)
    (inputs / "train.jsonl").unlink()  # nothing is read before
    flags = ["--train.max_steps", "2", "--objective.beta", "0.3", "--seed", "1"]
    assert main(["train", "--resume", "--output", str(run.path), *flags]) == 2
    said = capsys.readouterr().err
    for line in ("  train.max_steps: 1 → 2", "  objective.beta: not set → 0.3", "  seed: 0 → 1"):
        assert line in said.splitlines()
    assert "no such file" not in said
    assert main(["train", "--resume", "--output", str(run.path / "none")]) == 2
    assert "No such run directory" in capsys.readouterr().err


def test_paths_are_stored_absolute(
    configure: Configure,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run trained with relative paths is evaluated, and gone on with, from any folder."""
    monkeypatch.chdir(inputs)
    data = {"train": "train.jsonl", "test": "test.jsonl"}
    config = configure({"output": "run", "data": data, "model": {"path": "model"}, "train": {"max_steps": 1}},
                       {"objective": {"name": "mine.py:mine"}, "pop": {"edges": "edges.parquet"}})  # fmt: skip
    train(config)
    stored = RunDirectory(inputs / "run").config()
    assert stored.model.path == str(inputs / "model") and stored.objective["name"] == f"{inputs / 'mine.py'}:mine"
    assert (stored.data.train, stored.pop.edges) == (str(inputs / "train.jsonl"), str(inputs / "edges.parquet"))
    assert not differences(config, stored)
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "in/run"]) == 0
    assert main(["train", "--resume", "--output", "in/run"]) == 0
    hub = configure({"model": {"path": "org/name"}, "data": {"train": "demo"}, "evaluation": {"reward": "module:f"}})
    kept = with_absolute_paths(hub)
    assert (kept.model.path, kept.data.train, kept.evaluation.reward) == ("org/name", "demo", "module:f")


def test_everything_works_from_another_working_directory(
    configure: Configure,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Several files, a split of a folder, modules of the working directory: evaluated, gone on with, reported."""
    name = f"m_{tmp_path.name}"
    for old, new in (("mine", name), ("liking", f"l_{name}")):  # a module is loaded once in a process
        (inputs / f"{old}.py").rename(inputs / f"{new}.py")
    lines = (inputs / "train.jsonl").read_text().splitlines(keepends=True)
    for part, some in (("a", lines[:12]), ("b", lines[12:])):
        (inputs / f"{part}.jsonl").write_text("".join(some))
    (inputs / "held").mkdir()
    for split, file in (("test", "test"), ("train", "train")):
        shutil.move(inputs / f"{file}.jsonl", inputs / "held" / f"{split}.jsonl")
    monkeypatch.chdir(inputs)
    config = configure(
        {"output": "run", "data": {"train": "a.jsonl, b.jsonl", "test": "held:test"}, "model": {"path": "model"}},
        {"objective": {"name": f"{name}:mine"}, "pop": {"edges": "edges.parquet"}, "train": {"max_steps": 1}},
        {"evaluation": {"reward": f"l_{name}:liked", "prompts": 2, "max_new_tokens": 4}},
    )
    train(config)
    stored = RunDirectory(inputs / "run").config()
    assert stored.data.train == f"{inputs / 'a.jsonl'},{inputs / 'b.jsonl'}"
    assert stored.data.test == f"{inputs / 'held'}:test"
    assert stored.objective["name"] == f"{inputs / name}.py:mine"
    assert (inputs / "run" / "code" / "objective" / "scaling.py").is_file()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["eval", "../in/run"]) == 0
    assert "mean_reward" in capsys.readouterr().out
    assert main(["train", "--resume", "--output", "../in/run"]) == 0
    (inputs / "run" / "run.json").unlink()
    assert main(["train", "--resume", "--output", "../in/run"]) == 0
    assert main(["eval", "../in/run"]) == 0
    assert main(["report", "../in/run"]) == 0
    assert {file.name for file in elsewhere.iterdir()} == {"report.html"}


def test_overwrite_never_deletes_what_is_read(config: RunConfig, inputs: Path) -> None:
    run, _ = train(config)
    moved = run.path / "data.jsonl"
    shutil.copy(inputs / "train.jsonl", moved)
    inside = with_absolute_paths(config)
    with pytest.raises(ConfigError, match=r"would delete .*data\.jsonl, which data\.train refers to"):
        train(with_data(inside, train=str(moved)), overwrite=True)
    assert moved.is_file() and run.finished


def test_the_record_is_read_as_it_was_written(tmp_path: Path, configure: Configure) -> None:
    workspace = Run.read(configure({"data": {"limit": 20}})).workspace()
    sides = {"train": Rows.of(workspace.train.preferences), "test": Rows.of(workspace.test.preferences)}
    record = Record(sides | {"aside": Rows([], [], [])}, {"start model": "abc"})
    assert Record.load(tmp_path) is None
    record.save(tmp_path)
    assert Record.load(tmp_path) == record and not record.changes(record)
    (tmp_path / "data.parquet").write_bytes(b"no")
    with pytest.raises(RunError, match=r"data\.parquet cannot be read .* Restore it"):
        Record.load(tmp_path)


def test_a_change_is_told_by_ids() -> None:
    before = Rows(["a", "b", "c"], ["1", "2", "3"], ["x", "y", "z"])
    now = Rows(["b", "c", "d"], ["2", "3", "4"], ["y", "new", "w"])
    assert str(Change.between(before, now)) == "1 gone (a), 1 new (d), 1 edited (c)"
    assert not Change.between(before, before)
    other = Rows(["c", "b", "a"], ["3", "2", "1"], ["z", "y", "x"])
    assert str(Change.between(before, other)) == "they are in a different order"


def test_a_column_that_is_used_is_compared_and_others_are_not(
    tmp_path: Path, configure: Configure, rows: list[dict[str, Any]]
) -> None:
    """A run on data with columns that it does not read goes on when these change, also one of an earlier version."""
    numbers = ("chosen_rating", "rejected_rating", "strength")
    plain = [{name: value for name, value in row.items() if name not in numbers} for row in rows[:12]]
    file = tmp_path / "data.jsonl"

    def record(margin: float, note: str, objective: str = "dpo_rating_margin") -> Record:
        file.write_text("".join(json.dumps(row | {"margin": margin, "note": note}) + "\n" for row in plain))
        config = configure({"data": {"train": str(file)}, "objective": {"name": objective}})
        run = Run.read(config)
        return run.record(Run.read(config).workspace())

    first = record(-1.0, "a")
    assert first.changes(record(-1.0, "b")) == []
    (told,) = first.changes(record(-2.0, "a"))
    assert told.startswith("the column 'margin': changed (")
    assert record(-1.0, "a", "dpo").changes(record(-2.0, "a", "dpo")) == []
    assert not any("column" in name for name in record(1.0, "a").facts)  # the strength holds it, as it always did


def test_facts_of_columns_are_of_values_and_of_those_that_there_are() -> None:
    base = {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_rating": 2.0, "rejected_rating": 1.0, "margin": -1.0}
    one, other = (load_preferences([base | {"weight": 1.0, "vector": [0.0, number]}]) for number in (1.0, 2.0))
    names = ("weight", "vector", "soft_label", "scale", "absent")
    facts = column_facts(one, names)
    assert set(facts) == {"the column 'weight'", "the column 'vector'"}
    changed = column_facts(other, names)
    assert {name for name in facts if facts[name] != changed[name]} == {"the column 'vector'"}
    assert Rows.of(one) == Rows.of(other) == Rows.of(one.with_columns(weight=None, vector=None, margin=None))
    assert one.fingerprint() == other.fingerprint()
