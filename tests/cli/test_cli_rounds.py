"""`popmargin rounds`: what it plans, where it stands, and what it answers to typos."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from popmargin.cli.main import main
from popmargin.config import dump_yaml, merge
from popmargin.recipes.base import RECIPES, plan_of
from popmargin.rounds.rounds_config import load_rounds


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["rounds", *words])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("name", ["spa", "ropo", "iterate"])
def test_a_commented_configuration_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, out, _ = said(capsys, name, "--print-config", "--recipe.max_new_tokens", "9")
    assert code == 0
    file = tmp_path / "own.yaml"
    file.write_text(out)
    code, again, _ = said(capsys, str(file), "--print-config")
    assert (code, again) == (0, out)
    config = load_rounds(file)
    assert config.recipe["max_new_tokens"] == 9
    assert set(RECIPES.get(name).options.__dataclass_fields__) == set(config.recipe) - {"name"}
    assert len(plan_of(config)) > 5


def test_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "spa", "--status", "--output", str(tmp_path / "none"))
    assert code == 0
    assert "0 of 14 stages are finished" in out and "round-2/measure" in out
    assert not (tmp_path / "none").exists()


def test_typos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("recipe: {name: spa}\nbase: {train: {learning_rat: 1}}\n")
    wrong: list[tuple[list[str], str]] = [
        (["spaa"], "neither a file nor an example. Did you mean 'spa'?"),
        ([str(tmp_path / "ownn.yaml")], "Did you mean"),
        ([str(file)], "base: Unknown key 'train.learning_rat'. Did you mean 'learning_rate'"),
        (["spa", "--recipe.round", "1"], "Did you mean 'rounds'?"),
        (["spa", "--recipe.rounds", "two"], "recipe.rounds must be a whole number"),
        (["spa", "--until", "round-9", "--output", str(tmp_path / "x")], "no stage 'round-9'"),
        (["spa", "--statuss"], "--status"),
        (["spa", "--recipe.name", "spo"], "Unknown recipe 'spo'"),
    ]
    for words, sentence in wrong:
        code, out, err = said(capsys, *words)
        assert (code, out) == (2, ""), words
        assert err.startswith("error: ") and sentence in err, (words, err)
        assert not (tmp_path / "x").exists()


def test_a_folder_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    code, _, err = said(capsys, "spa", "--output", str(tmp_path))
    assert code == 2 and "not empty, and not a folder of rounds" in err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_schema_knows_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "rounds"]) == 0
    schema: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    rules = schema["properties"]["recipe"]["allOf"]
    names = [rule["if"]["properties"]["name"]["const"] for rule in rules]
    assert names == ["iterate", "ropo", "spa"]
    assert "judge_reference" in rules[2]["then"]["properties"]


def test_a_file_and_flags_together(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(dump_yaml(merge({"recipe": {"name": "ropo"}}, {"base": {"seed": 4}})))
    config = load_rounds(file, ["--recipe.noise_share", "0.25"], {"output": "elsewhere"})
    assert config.recipe == {"name": "ropo", "noise_share": 0.25} and config.output == "elsewhere"
    assert config.base_config().seed == 4
