"""A run is evaluated on exactly what was held out when it was trained, whatever became of its file since."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from popmargin.cli.main import main
from popmargin.config import RunConfig
from popmargin.data.split import normalised_key
from popmargin.errors import ConfigError, DataError, RunError
from popmargin.evaluation.held_out import held_out
from popmargin.evaluation.run import HeldOutMargins, evaluate_run
from popmargin.training.build import Run
from popmargin.training.inputs import with_data
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory
from popmargin.training.sides import load_split

Configure = Callable[..., RunConfig]
Row = dict[str, Any]


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path, rows: list[Row]) -> Path:
    return write(tmp_path / "mine.jsonl", rows)


@pytest.fixture
def run(configure: Configure, data: Path) -> RunDirectory:
    return train(configure({"data": {"train": str(data)}, "train": {"max_steps": 1}}))[0]


def new_rows(count: int, seed: int) -> list[Row]:
    draw = np.random.default_rng(seed).integers(10**9, size=count)
    return [{"id": f"new{n}", "prompt": f"rain {n}?", "chosen": f"blue {n}", "rejected": "old", "chosen_rating": 4.0,
             "rejected_rating": 1.0} for n in draw]  # fmt: skip


def test_no_growth_of_the_file_changes_what_is_measured(run: RunDirectory, data: Path, rows: list[Row]) -> None:
    """Ten random growths and orders: re-splitting them would have put training prompts into the test in some."""
    config, (trained, test) = run.config(), load_split(run.config().data)
    prompts = {normalised_key(key) for key in trained.prompt_keys}
    leaked = 0
    for seed in range(10):
        random = np.random.default_rng(seed)
        grown = [*rows, *new_rows(int(random.integers(1, 40)), seed)]
        write(data, [grown[i] for i in random.permutation(len(grown))])
        chosen = held_out(Run.opened(run.path, config))
        assert chosen.preferences.ids == test.ids and chosen.directory == run
        assert chosen.preferences.fingerprint() == test.fingerprint()
        assert any("added since" in note for note in chosen.steps[-1].notes)
        again = load_split(replace(config.data, test_size=0.2))[1]
        leaked += any(normalised_key(key) in prompts for key in again.prompt_keys)
    assert leaked  # this is what would have been


@pytest.mark.slow
def test_the_numbers_are_the_same_in_a_grown_file(run: RunDirectory, data: Path, rows: list[Row]) -> None:
    before = evaluate_run(run.path)
    margins = HeldOutMargins.load(run.evaluation / "margins.parquet")
    write(data, [*new_rows(20, 3), *rows])
    after = evaluate_run(run.path)
    assert after["intervals"] == before["intervals"]
    assert HeldOutMargins.load(run.evaluation / "margins.parquet").ids == margins.ids
    notes = [note for step in after["account"] for note in step["notes"]]
    assert any("mine.jsonl has 20 preferences added since" in note for note in notes)


def test_lost_or_edited_rows_are_refused_with_their_ids(
    run: RunDirectory, data: Path, rows: list[Row], configure: Configure
) -> None:
    out = load_split(run.config().data)[1].ids
    lost = [row for row in rows if row["id"] not in out[:2]]
    write(data, [row if row["id"] != out[3] else row | {"rejected": "birds sing"} for row in lost])
    with pytest.raises(
        RunError, match=rf"held-out preferences: of 8, 2 gone \({out[0]}, {out[1]}\), 1 edited"
    ) as caught:
        evaluate_run(run.path)
    assert "--data.test FILE" in str(caught.value) and "mine.jsonl" in str(caught.value)
    assert not (run.evaluation / "metrics.json").exists()
    write(data, [row for row in rows if row["id"] in out])  # all of the training is gone: that is no matter here
    notes = held_out(Run.opened(run.path)).steps[-1].notes
    assert any("lacks 32 training preferences" in note for note in notes)


def test_other_data_are_an_explicit_choice(run: RunDirectory, tmp_path: Path, rows: list[Row], data: Path) -> None:
    """Without a prompt that was trained on, and with results that no report mixes up with the run's own."""
    evaluate_run(run.path)
    own = (run.evaluation / "metrics.json").read_bytes()
    config, (trained, test) = run.config(), load_split(run.config().data)
    other = write(tmp_path / "other.jsonl", new_rows(9, 1))
    metrics = evaluate_run(Run.opened(run.path, with_data(config, test=str(other))))
    assert (run.evaluation / "metrics.json").read_bytes() == own
    folder = next(run.path.glob("evaluation-other-*"))
    assert len(HeldOutMargins.load(folder / "margins.parquet").ids) == 9
    assert metrics["account"][0]["name"] == "other.jsonl" and (folder / "metrics.json").is_file()
    leak = next(row for row in rows if row["id"] in trained.ids)
    shouted = {**leak, "id": "again", "prompt": f" {leak['prompt'].upper()} "}
    write(other, [*new_rows(3, 2), shouted])
    write(data, new_rows(30, 5))  # the file that was trained on tells nothing any more
    with pytest.raises(
        DataError, match=rf"1 of 4 preferences have a prompt .*\n  again has the prompt of {leak['id']}"
    ):
        evaluate_run(Run.opened(run.path, with_data(config, test=str(other))))
    moved = write(tmp_path / "moved.jsonl", [row for name in test.ids for row in rows if row["id"] == name])
    assert held_out(Run.opened(run.path, with_data(config, test=str(moved)))).preferences.ids == test.ids


def test_only_evaluation_can_be_changed(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (["--objective.beta", "0.5"], ["--data.split_seed", "3"], ["--data.test_size", "4"], ["--seed", "2"]):
        assert main(["eval", str(run.path), *flags]) == 2
        assert f"{flags[0].removeprefix('--')} cannot be changed" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"data\.max_length: 96 → 48"):
        evaluate_run(Run.opened(run.path, with_data(run.config(), max_length=48)))
    assert main(["eval", str(run.path), "--evaluation.pop_k", "0"]) == 0


def test_another_start_model_is_refused(
    configure: Configure, tmp_path: Path, make_model: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    """An adapter on other weights, a KL from another reference: both would be of something that was never trained."""
    start = tmp_path / "start"
    make_model().save_pretrained(start)
    tiny_tokenizer.save_pretrained(start)
    change = {"model": {"path": str(start), "lora_rank": 2}, "train": {"max_steps": 1}}
    run, _ = train(configure(change))
    evaluate_run(run.path)
    start.rename(tmp_path / "elsewhere")
    assert main(["eval", str(run.path), "--model.path", str(tmp_path / "elsewhere")]) == 0
    make_model(seed=5).save_pretrained(start)
    tiny_tokenizer.save_pretrained(start)
    with pytest.raises(RunError, match=r"was trained with different inputs\. Changed: start model"):
        evaluate_run(run.path)


@pytest.mark.slow
def test_validation_preferences_are_found_again(configure: Configure, data: Path, rows: list[Row]) -> None:
    """Validation takes the place of testing, with a test file of its own and without; limits leave rows aside."""
    extra = {"data": {"train": str(data), "validation_size": 5, "limit": 12}, "train": {"max_steps": 1}}
    run, _ = train(configure(extra))
    ids = load_split(run.config().data)[1].ids
    write(data, rows[::-1])
    chosen = held_out(Run.opened(run.path))
    assert chosen.preferences.ids == ids and len(ids) == 5
    assert not any("added since" in note for note in chosen.steps[-1].notes)


def test_a_run_of_an_older_version_is_checked_as_a_whole(run: RunDirectory, data: Path, rows: list[Row]) -> None:
    for name in ("data.parquet", "fingerprints.json"):
        (run.path / name).unlink()
    assert any(
        "kept no record of its rows" in note for step in held_out(Run.opened(run.path)).steps for note in step.notes
    )
    write(data, [*rows, *new_rows(30, 1)])
    with pytest.raises(RunError, match=r"mine\.jsonl has changed since training"):
        evaluate_run(run.path)
