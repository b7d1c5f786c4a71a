"""The library's front door: train and evaluate from Python in a few lines."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from popmargin.config import RunConfig, from_dict, merge
from popmargin.data.load import load_preferences
from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError
from popmargin.evaluation.run import evaluate_run
from popmargin.pop.edges import PopEdges
from popmargin.rewards.base import Reward
from popmargin.rewards.load import load_reward
from popmargin.tasks.text import cache_folder
from popmargin.training.account import memory_steps
from popmargin.training.run import train as train_run
from popmargin.training.run_directory import RunDirectory


def train(
    data: Any,
    *,
    model: str,
    objective: str | Mapping[str, Any] = "pop",
    edges: PopEdges | None = None,
    test: Any = None,
    output: str | Path = "runs/run",
    overwrite: bool = False,
    resume: bool = False,
    config: Mapping[str, Any] | None = None,
) -> RunDirectory:
    """Train a policy on preferences, or a reward model with config={"task": "reward"}.

    Args:
        data: `Preferences`, or anything that `load_preferences` reads: a path, a `datasets.Dataset` (TRL's formats
            work unchanged), a list of dicts.
        model: folder or hub id of the start model, or "demo".
        objective: a name, or a mapping with `name` and options.
        edges: PoP edges between the training preferences; None samples them when the objective needs them.
        test: held-out preferences, as `data`; None splits some off `data` by prompt.
        output: the run directory.
        overwrite: delete a run that is in the way.
        resume: go on from the last checkpoint.
        config: further settings by section, as in a configuration file: {"train": {"learning_rate": 1e-5}}.

    Returns:
        The run directory.

    Raises:
        ConfigError, DataError, RunError: with what to do about it.
    """
    folder = cache_folder(None).parent / "data"
    data, test = _loaded(data), _loaded(test)
    named = {"preferences": data, "held-out preferences": test}
    memory = {what: given for what, given in named.items() if isinstance(given, Preferences)}
    earlier = [step for what, given in memory.items() for step in memory_steps(given, what)]
    values: dict[str, Any] = {
        "name": Path(output).name,
        "output": str(output),
        "model": {"path": model},
        "objective": {"name": objective} if isinstance(objective, str) else dict(objective),
        "data": {"train": _stored(data, folder)},
    }
    if test is not None:
        values["data"]["test"] = _stored(test, folder)
    if edges is not None:
        file = folder / f"edges-{edges.fingerprint()[:24]}.parquet"
        edges.save(file)
        values["pop"] = {"edges": str(file)}
    made = from_dict(RunConfig, merge(values, config or {}))
    directory, _ = train_run(made, resume=resume, overwrite=overwrite, earlier=earlier)
    return directory


def evaluate(
    run: RunDirectory | str | Path,
    *,
    reward: str | Callable[..., Any] | Reward | None = None,
    config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluate a finished run on what was held out when it was trained, and on generations when there is a reward.

    Args:
        run: a run directory.
        reward: a function of (prompts, completions) → list of floats, or a specification as in `load_reward`; None
            takes the run's own.
        config: other evaluation settings: {"prompts": 100, "max_new_tokens": 64}.

    Returns:
        `intervals` (name → estimate, low, high), `reliability`, `counts`, and `account`: what was measured on, what was
        left out and why.

    Raises:
        RunError: the run has not finished, or its held-out preferences, models or code are not what they were.
    """
    directory = run if isinstance(run, RunDirectory) else RunDirectory(Path(run))
    own = directory.config()
    if config:
        settings = from_dict(type(own.evaluation), merge(vars(own.evaluation), config), "evaluation")
        own = replace(own, evaluation=settings)
    return evaluate_run(directory.path, config=own, reward=None if reward is None else load_reward(reward))


def _loaded(data: Any) -> Any:
    """What is in memory as preferences; a path, or nothing, as it is."""
    return data if data is None or isinstance(data, (str, Path, Preferences)) else load_preferences(data)


def _stored(preferences: str | Path | Preferences, folder: Path) -> str:
    """The path of the data: its own, or a copy of what is in memory, so that the run can be resumed."""
    if isinstance(preferences, (str, Path)):
        return str(preferences)
    if not len(preferences):
        raise ConfigError("There are no preferences to train on.")
    file = folder / f"preferences-{preferences.fingerprint()[:24]}.parquet"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        preferences.save(file)
    return str(file)
