"""Help, printed configurations, schema and completion: what a user learns of the fields without reading the docs."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from popmargin.cli.main import VERBS, main
from popmargin.config import RunConfig, from_dict
from popmargin.config.described import Setting, choices_of, settings_of
from popmargin.study.config import StudyConfig
from popmargin.study.recommenders.recommend_config import RecommendConfig, load_recommend_config
from popmargin.yaml_file import parse_yaml

ROOT = Path(__file__).parents[2]


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command that goes well prints."""
    capsys.readouterr()
    try:
        assert main(words) == 0
    except SystemExit as end:  # argparse ends its help so
        assert end.code == 0
    return capsys.readouterr().out


def one_line(text: str) -> str:
    """Without blanks, which depend on where lines are broken."""
    return "".join(text.split())


def in_help(setting: Setting) -> str:
    """Its sentence, without the choices: argparse lists them before it."""
    return (replace(setting, schema={}) if choices_of(setting.schema) else setting).sentence


def test_help_lists_every_field_with_description_and_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    for verb, kind in (("train", RunConfig), ("compare", StudyConfig)):
        text = printed(capsys, verb, "--help")
        assert max(map(len, text.splitlines()[1:])) < 90
        for setting in settings_of(kind):
            if setting.section is not None:
                assert one_line(f"fields of {setting.name}: {setting.sentence}") in one_line(text)
            elif setting.name != "output" or verb == "train":
                assert f"  --{setting.name} " in text and one_line(in_help(setting)) in one_line(text), setting.name
    samples = one_line("--evaluation.samples INTEGER Completions per prompt. (default 1; at least 1)")
    assert samples in one_line(printed(capsys, "eval", "--help"))
    text = printed(capsys, "train", "--help")
    assert "{fp32,bf16}" in text and "(default fp32)" in text and "or bf16)" not in text


def test_help_is_quick(popmargin_environment: dict[str, str]) -> None:
    """Neither help nor a mistake in a field waits for torch."""
    code = """
import sys
from popmargin.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
assert not {"torch", "transformers", "shtab"} & set(sys.modules)
"""
    for words in (["--help"], ["train", "--help"], ["eval", "--help"], ["compare", "--help"], ["train", "--lr", "1"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], env=popmargin_environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_a_printed_configuration_is_what_file_and_flags_say(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("train: {learning_rate: 1e-5}\nobjective: {name: simpo, gamma: 1}\ndata: {train: nowhere.jsonl}\n")
    flags = ["--train.epochs", "2", "--objective.beta=0.5", "--output", str(tmp_path / "out")]
    text = printed(capsys, "train", str(file), *flags, "--print-config")
    config = from_dict(RunConfig, parse_yaml(text))
    assert (config.train.learning_rate, config.train.epochs) == (1e-5, 2.0)
    assert config.objective == {"name": "simpo", "gamma": 1, "beta": 0.5}
    assert "# Peak learning rate; " in text and not (tmp_path / "out").exists()
    file.write_text(text)
    assert printed(capsys, "train", "--print-config", str(file)) == text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--overwrit"], "Unknown argument '--overwrit'. Did you mean --overwrite?"),
        (["train", "--print_config"], "Unknown argument '--print_config'. Did you mean --print-config?"),
        (["eval", "run", "--againts", "x"], "Unknown argument '--againts'. Did you mean --against?"),
        (["compare", "--rewrad", "a:b"], "Unknown argument '--rewrad'. Did you mean --reward?"),
        (["train", "--train.epoch", "1"], "Unknown key 'train.epoch'. Did you mean 'train.epochs'?"),
        (["train", "--model.lora_rank", "-1"], "model.lora_rank must be at least 0, not -1."),
        (["train", "--data.limit=-3"], "data.limit must be at least 1, not -3."),
        (["train", "--train.compile", "--resume"], "--train.compile needs a value."),
        (["train", "--name", "12"], "name must be text, not 12. Write it in quotes."),
        (
            ["train", "run.yaml", "more.yaml"],
            "Unexpected argument 'more.yaml'. popmargin train --help lists what it takes.",
        ),
    ],
)
def test_mistyped_flags(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    capsys.readouterr()
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["schema", "studdy"],
            "argument of: 'studdy' is unknown. Did you mean 'study'? Known: best-of-n, budget, recommend, rounds, run,",
        ),
        (["label", "jugde"], "'jugde' is unknown. Did you mean 'judge'?"),
        (["label", "judge", "--timeout", "-1"], "argument --timeout: must be above 0, not -1."),
        (["label", "judge", "--max-tokens", "0"], "argument --max-tokens: must be at least 1, not 0."),
        (["label", "judge", "--workers", "2.5"], "argument --workers: must be a whole number (at least 1), not 2.5."),
        (["label", "judge", "--price-in", "-1"], "argument --price-in: must be at least 0, not -1."),
        (["data", "check", "x", "--limit", "-1"], "argument --limit: must be at least 0, not -1."),
        (["pop", "scale", "e.parquet", "--slope", "-1"], "argument --slope: must be above 0, not -1."),
        (
            ["pop", "scale", "e.parquet", "--slope", ".nan"],
            "argument --slope: must be a finite number (above 0), not nan.",
        ),
    ],
)
def test_numbers_of_other_verbs_are_refused_by_the_name_of_their_flag(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    from popmargin.cli.schema import best_of_n_schema, budget_schema, rounds_schema, run_schema, study_schema

    made = {
        "run": run_schema, "study": study_schema, "rounds": rounds_schema, "budget": budget_schema,
        "best-of-n": best_of_n_schema,
    }  # fmt: skip
    return {name: jsonschema_rs.validator_for(schema()) for name, schema in made.items()}


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads(printed(capsys, "schema"))
    assert schema["$defs"]["TrainConfig"]["properties"]["epochs"]["description"].startswith("passes over the rows")
    assert json.loads(printed(capsys, "schema", "study"))["properties"]["seeds"]["items"]["minimum"] == 0


def test_editors_accept_every_study_of_ours_and_every_default(schemas: dict[str, Any]) -> None:
    of_rounds = [*ROOT.glob("src/popmargin/demo/rounds/*.yaml"), *ROOT.glob("docs/studies/rounds-*.yaml")]
    assert len(of_rounds) > 4
    for file in of_rounds:
        values = {
            key: value
            for key, value in parse_yaml(file.read_text()).items()
            if key not in ("arms", "seeds", "baseline")
        }
        assert [str(error) for error in schemas["rounds"].iter_errors(values)] == [], file
    of_drivers = [ROOT / "docs/studies" / name for name in ("goals.yaml", "ipr.yaml")]  # which have fields of their own
    for file in of_drivers:
        assert [str(error) for error in schemas["run"].iter_errors(parse_yaml(file.read_text())["base"])] == [], file
    of_recommenders = [*ROOT.glob("docs/studies/recommend-*.yaml")]
    assert len(of_recommenders) == 2
    for file in of_recommenders:
        load_recommend_config(RecommendConfig, file)  # every arm's options too
    of_budgets = [*ROOT.glob("docs/studies/budget-*.yaml")]
    assert len(of_budgets) == 4
    for file in of_budgets:
        assert [str(error) for error in schemas["budget"].iter_errors(parse_yaml(file.read_text()))] == [], file
    of_choices = [ROOT / "docs/studies" / f"best-of-n-{name}.yaml" for name in ("vader", "classifier")]
    for file in of_choices:
        assert [str(error) for error in schemas["best-of-n"].iter_errors(parse_yaml(file.read_text()))] == [], file
    known = {*of_rounds, *of_drivers, *of_recommenders, *of_budgets, *of_choices}
    others = set(ROOT.glob("docs/studies/*.yaml")) - known
    files = [*ROOT.glob("src/popmargin/*/*.yaml"), *others]
    assert len(files) > 8
    for file in files:
        assert [str(error) for error in schemas["study"].iter_errors(parse_yaml(file.read_text()))] == [], file
    config = RunConfig(objective={"name": "simpo", "gamma": 0.5}, regularizers=[{"name": "sft", "weight": 0.1}])
    from popmargin.config import to_dict

    assert [str(error) for error in schemas["run"].iter_errors(to_dict(config))] == []


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("train: {learning_rate: 1e-5}", True),
        ("data: {train: [a.jsonl, b.jsonl]}", True),
        ("train: {lr: 1e-5}", False),
        ("train: {batch_size: 0}", False),
        ("model: {precision: fp16}", False),
        ("objective: {name: dpo, beta: 0.2}", True),
        ("objective: {name: dpo, betta: 0.2}", False),
        ("objective: {name: dpo, beta: much}", False),
        ("objective: {name: 'mine.py:loss', any: 1}", True),
        ("regularizers: [{name: sft, weight: 1}]", True),
        ("regularizers: [{name: sft, wieght: 1}]", False),
        ("tokens: null", True),
        ("tokens: {name: selective, share: 0.5, reference: some-model}", True),
        ("tokens: {name: selective, shares: 0.5}", False),
        ("margin: {source: fixed, value: 1}", True),
        ("margin: {source: fixed, valeu: 1}", False),
    ],
)
def test_editors_refuse_what_is_refused_here(schemas: dict[str, Any], text: str, fine: bool) -> None:
    for kind, value in (("run", parse_yaml(text)), ("study", {"arms": {"dpo": parse_yaml(text) | {"label": "DPO"}}})):
        assert schemas[kind].is_valid(value) is fine


def test_bash_completes_verbs_flags_fields_and_choices(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, popmargin_environment: dict[str, str]
) -> None:
    script = tmp_path / "popmargin.bash"
    script.write_text(printed(capsys, "completion", "bash"))
    (tmp_path / "run.yaml").write_text("")

    def completed(*words: str) -> list[str]:
        code = """
source "$1"; shift
COMP_WORDS=(popmargin "$@"); COMP_CWORD=$#; COMPREPLY=()
"$(complete -p popmargin | sed 's/.*-F \\([^ ]*\\).*/\\1/')" 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""
        done = subprocess.run(
            ["bash", "-c", code, "bash", str(script), *words],
            env=popmargin_environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        return done.stdout.split()

    assert set(completed("")) >= set(VERBS)
    assert completed("tr") == ["train"]
    assert completed("train", "--train.le") == ["--train.learning_rate"]
    assert completed("train", "--model.precision", "") == ["fp32", "bf16"]
    assert completed("train", "--model.dropout", "") == ["true", "false"]
    assert completed("train", "--pr") == ["--print-config"]
    assert completed("train", "ru") == ["run.yaml"]
    assert "--tune.reuse" in completed("compare", "--tune")
    assert completed("data", "ins") == ["inspect"]
    assert os.linesep not in "".join(completed("schema", "st")) and completed("schema", "st") == ["study"]


def test_other_shells_get_all_fields(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("zsh", "tcsh"):
        text = printed(capsys, "completion", shell)
        assert all(setting.name in text for setting in settings_of(RunConfig) if setting.section is None)
