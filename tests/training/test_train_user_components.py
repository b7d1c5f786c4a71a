"""A user's own objective, regularizer and token selector, in their own file: nothing in the package is touched."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popmargin.cli.main import main
from popmargin.config import RunConfig, dump_yaml
from popmargin.errors import ConfigError, RunError
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory

Configure = Callable[..., RunConfig]
Metrics = Callable[[RunDirectory], list[dict[str, Any]]]

OBJECTIVE = '''
from __future__ import annotations

from dataclasses import dataclass

from popmargin import Rows, objective


@dataclass(frozen=True, kw_only=True)
class HingeOptions:
    beta: float = 0.1
    margin: float | None = None


@objective("{name}", options=HingeOptions, score="log_ratio", origin="ours")
def hinge(rows: Rows, options: HingeOptions):
    """Hinge loss on the reward margin."""
    return ((options.margin or 1.0) - options.beta * rows.gap).clamp(min=0)


def not_registered(rows, options):
    return rows.gap
'''

OUTLINE = '''
from dataclasses import dataclass

import torch

from popmargin import Rows, objective


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    pass


@objective("{name}", options=NoOptions, score="log_ratio", origin="ours", diagnostics=lambda rows, options: {noted})
def outline(rows: Rows, options: NoOptions):
    """A loss on the gap."""
    return {loss}
'''

TOKENS = '''
from dataclasses import dataclass

from popmargin import token_selector


@dataclass(frozen=True, kw_only=True)
class FirstOptions:
    count: int = 2


@token_selector("first_tokens", options=FirstOptions)
def first(tokens, options):
    """Keep the first tokens of every response."""
    response = tokens.response
    place = (response[:, None] == response[None, :]).tril().sum(1)
    return (place <= options.count).to(tokens.logps.dtype)
'''

REGULARIZER = '''
from dataclasses import dataclass

from popmargin import regularizer


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    pass


@regularizer("drift", options=NoOptions, reference=True)
def drift(logps, options):
    """Squared drift of the chosen response."""
    return (logps.chosen - logps.chosen_reference).square()
'''


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_an_objective_in_a_users_file(tmp_path: Path, configure: Configure, metrics: Metrics) -> None:
    file = write(tmp_path, "my_objective.py", OBJECTIVE.format(name="toy_hinge"))
    run, _ = train(configure({"objective": {"name": f"{file}:hinge", "margin": 2}}))
    lines = metrics(run)
    assert lines[0]["loss"] == pytest.approx(2.0, abs=1e-5) and lines[-1]["loss"] < lines[0]["loss"]


def test_through_the_command_line(
    tmp_path: Path, base_run: dict[str, Any], metrics: Metrics, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, "cli_objective.py", OBJECTIVE.format(name="cli_hinge"))
    config = write(tmp_path, "run.yaml", dump_yaml(base_run))
    assert main(["train", str(config), "--objective.name", f"{file}:hinge", "--objective.margin", "0.5"]) == 0
    run = RunDirectory(Path(base_run["output"]))
    assert metrics(run)[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    capsys.readouterr()
    assert main(["objectives", "--json", f"{file}:hinge"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["name"] == "cli_hinge" and entry["options"] == {"beta": 0.1, "margin": None}


def test_mistakes_in_a_users_file(tmp_path: Path, configure: Configure) -> None:
    file = write(tmp_path, "wrong_objective.py", OBJECTIVE.format(name="wrong_hinge"))
    cases = [
        ({"name": f"{file}:hing"}, "has no 'hing'. Did you mean 'hinge'"),
        ({"name": f"{file}:not_registered"}, "is not registered: decorate the function with @objective"),
        ({"name": f"{file}:hinge", "margni": 1}, "no option 'margni'. Did you mean 'margin'"),
        ({"name": f"{tmp_path}/none.py:hinge"}, "No such file"),
        ({"name": "no_such_module:hinge"}, "Is it on PYTHONPATH"),
        ({"name": "dpoo"}, "Unknown objective 'dpoo'. Did you mean 'dpo'"),
        ({"name": f"{write(tmp_path, 'broken.py', 'def (')}:x"}, "is not Python"),
        ({"name": f"{write(tmp_path, 'taken.py', OBJECTIVE.format(name='dpo'))}:hinge"}, "name 'dpo' is built in"),
    ]
    for values, message in cases:
        with pytest.raises(ConfigError) as info:
            train(configure({"objective": values}))
        assert message in str(info.value)


@pytest.mark.parametrize(
    ("name", "loss", "shape"),
    [
        ("scalar", "-rows.gap.mean()", r"\(\)"),
        ("matrix", "-(rows.gap[:, None] - rows.gap[None, :])", r"\(8, 8\)"),
        ("column", "-rows.gap[:, None]", r"\(8, 1\)"),
    ],
)
def test_a_loss_that_is_not_one_number_a_row(
    tmp_path: Path, configure: Configure, name: str, loss: str, shape: str
) -> None:
    file = write(tmp_path, f"{name}.py", OUTLINE.format(name=f"own_{name}", loss=loss, noted="{}"))
    config = configure({"objective": {"name": f"{file}:outline"}}, {"train": {"batch_size": 8}})
    with pytest.raises(RunError, match=rf"'own_{name}' returned a loss of shape {shape}, but must .* \(8,\)"):
        train(config)


@pytest.mark.parametrize("taken", ["accuracy", "reward_margin", "chosen_logps", "kl_estimate", "loss", "grad_norm"])
def test_diagnostics_cannot_take_the_place_of_others(tmp_path: Path, configure: Configure, taken: str) -> None:
    noted = f"{{'fine': rows.gap, '{taken}': rows.gap}}"
    file = write(tmp_path, f"{taken}.py", OUTLINE.format(name=f"own_{taken}", loss="-rows.gap", noted=noted))
    with pytest.raises(
        RunError,
        match=rf"'own_{taken}' has diagnostics .* already used in the log: {taken}\. .* "
        rf"my_{taken}",
    ):
        train(configure({"objective": {"name": f"{file}:outline"}}))


def test_a_lone_square_is_logged_as_it_is(tmp_path: Path, configure: Configure, metrics: Metrics) -> None:
    noted = "{'own_square': 0 * rows.gap + 4, 'both_mean': 0 * rows.gap + 1, 'both_square': 0 * rows.gap + 5}"
    file = write(tmp_path, "square.py", OUTLINE.format(name="own_squares", loss="-rows.gap", noted=noted))
    run, _ = train(configure({"objective": {"name": f"{file}:outline"}}, {"train": {"max_steps": 1}}))
    (line,) = metrics(run)
    assert line["own_square"] == 4 and line["both_std"] == 2 and "both_square" not in line


def test_a_token_selector_in_a_users_file(tmp_path: Path, configure: Configure, metrics: Metrics) -> None:
    file = write(tmp_path, "my_tokens.py", TOKENS)
    selector = {"tokens": {"name": f"{file}:first", "count": 1}, "objective": {"name": "simpo_pop"}}
    run, _ = train(configure(selector, {"target": {"kind": "policy"}, "train": {"max_steps": 2}}))
    plain, _ = train(configure({"output": str(tmp_path / "plain")}))
    lines = metrics(run)
    assert 0 < lines[0]["tokens_kept"] < 0.2 and "tokens_kept" not in metrics(plain)[0]
    # One token is kept of every response for the margin; what else is logged is of all of them.
    assert lines[0]["chosen_logps"] == pytest.approx(metrics(plain)[0]["chosen_logps"], rel=1e-5)
    assert abs(lines[0]["reward_margin"] - lines[0]["reward_margin_all_tokens"]) > 1e-4


def test_a_regularizer_in_a_users_file(tmp_path: Path, configure: Configure, metrics: Metrics) -> None:
    file = write(tmp_path, "my_regularizer.py", REGULARIZER)
    strong = {"regularizers": [{"name": f"{file}:drift", "weight": 10}], "objective": {"name": "simpo"}}
    run, _ = train(configure(strong, {"train": {"max_steps": 4}}))
    free, _ = train(
        configure({"objective": {"name": "simpo"}, "output": str(tmp_path / "free")}, {"train": {"max_steps": 4}})
    )
    assert metrics(run)[0]["loss"] == pytest.approx(metrics(free)[0]["loss"], abs=1e-4)
    assert abs(metrics(run)[-1]["chosen_logratio"]) < 10
    with pytest.raises(ConfigError, match=r"weight of regularizer 'drift'.*'much'"):
        train(configure({"regularizers": [{"name": "drift", "weight": "much"}]}))
    with pytest.raises(ConfigError, match=r"Unknown regularizer 'sftt'\. Did you mean 'sft'"):
        train(configure({"regularizers": [{"name": "sftt"}]}))


def test_whatever_fails_is_told_with_its_line(tmp_path: Path, configure: Configure) -> None:
    """As an objective's failure is: token selectors, regularizers and diagnostics."""
    broken = TOKENS.replace("tokens.logps.dtype", "tokens.nothing").replace("first_tokens", "broken_tokens")
    tokens = write(tmp_path, "tokens.py", broken)
    drift = write(tmp_path, "drift.py", REGULARIZER.replace(".square()", ".nothing()").replace("drift", "broken_drift"))
    noted = write(tmp_path, "noted.py", OUTLINE.format(name="noted", loss="-rows.gap", noted="rows.nothing"))
    values: list[tuple[dict[str, Any], str]] = [
        ({"tokens": {"name": f"{tokens}:first"}, "objective": {"name": "dpo"}}, "token selector 'broken_tokens'"),
        ({"regularizers": [{"name": f"{drift}:broken_drift", "weight": 1}]}, "regularizer 'broken_drift'"),
        ({"objective": {"name": f"{noted}:outline"}}, "diagnostics"),
    ]
    for number, (change, what) in enumerate(values):
        with pytest.raises(RunError, match=rf"The {what} failed: .*\.py, line \d+: AttributeError"):
            train(configure({"output": str(tmp_path / f"run-{number}")}, change))


def test_an_objective_that_fails_is_told_with_its_line(tmp_path: Path, configure: Configure) -> None:
    file = write(tmp_path, "mine.py", OUTLINE.format(name="failing", loss="rows.gap.nothing()", noted="{}"))
    with pytest.raises(RunError, match=r"objective 'failing' failed: .*mine\.py, line \d+: AttributeError"):
        train(configure({"objective": {"name": f"{file}:outline"}}))
