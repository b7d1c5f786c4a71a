"""Train and evaluate from Python in a few lines: a run directory on disk, and the trained model in memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from popmargin.api.scoring import as_preferences
from popmargin.api.table import Table
from popmargin.code_permission import allow_code as allow
from popmargin.code_permission import note_named
from popmargin.config import RunConfig, from_dict, merge, to_dict
from popmargin.data.load import load_preferences
from popmargin.data.schema import Preferences
from popmargin.data.tokenizer_rules import tokenizer_fingerprint
from popmargin.engine.reference import model_fingerprint
from popmargin.errors import ConfigError
from popmargin.evaluation.held_out import held_out
from popmargin.evaluation.run import evaluate_run, held_out_margins
from popmargin.files import digest, whole_folder
from popmargin.models.saved import write_model
from popmargin.pop.edges import PopEdges
from popmargin.rewards.configured import AnyReward
from popmargin.tasks.text import cache_folder
from popmargin.training.account import memory_steps
from popmargin.training.build import Run
from popmargin.training.run import train as train_run
from popmargin.training.run_directory import RunDirectory

_READING = ("format", "split", "pairs", "min_gap", "bad_rows", "contradictions", "columns")
"""The fields of a configuration about reading data."""


@dataclass(frozen=True)
class TrainedRun:
    """The result of `train`.

    Attributes:
        directory: the run's files: configuration, metrics, fingerprints, weights (`directory.model` is their folder).
        model: the trained model, in memory, in evaluation mode.

    Example:
        >>> type(run.model).__name__, run.metrics[0]["step"], run.directory.finished
        ('LlamaForCausalLM', 1, True)
    """

    directory: RunDirectory
    model: Any = field(repr=False)

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.directory.path

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The training log, a dict per logged step."""
        return self.directory.metrics()

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.directory.checkpoints

    @property
    def evaluation(self) -> Path:
        """Folder of the results of `evaluate`."""
        return self.directory.evaluation

    @property
    def started(self) -> bool:
        """Whether the run was started."""
        return self.directory.started

    @property
    def finished(self) -> bool:
        """Whether training ended."""
        return self.directory.finished

    def config(self) -> RunConfig:
        """The configuration of the run."""
        return self.directory.config()

    def facts(self) -> dict[str, Any]:
        """The contents of run.json: versions, fingerprints, the account of the data, seconds, memory."""
        return self.directory.facts()

    def checkpoint(self) -> Path | None:
        """The last checkpoint, if any."""
        return self.directory.checkpoint()

    def margins(self) -> Table:
        """Margins of the held-out preferences under the trained model.

        Returns:
            One row per held-out preference: `id`, `margin` (chosen − rejected in the objective's own score, nats;
            reward units of a reward model), `reward_margin` (β times that), and `strength` (nan where unknown).

        Raises:
            RunError: the held-out preferences or the start model have changed.
        """
        run = Run.opened(self.path)
        workspace = run.workspace(held_out(run).preferences)
        found = held_out_margins(self.model, run, workspace)
        return Table(
            {
                "id": found.ids,
                "margin": found.reward_margin / run.loss.beta,
                "reward_margin": found.reward_margin,
                "strength": found.strength,
            },
            left_out=tuple(workspace.test.encoded.report.dropped),
        )


def train(
    data: Any,
    *,
    model: Any,
    tokenizer: Any = None,
    objective: str | Mapping[str, Any] = "pop",
    edges: PopEdges | str | Path | None = None,
    test: Any = None,
    output: str | Path = "runs/run",
    overwrite: bool = False,
    resume: bool = False,
    config: Mapping[str, Any] | None = None,
) -> TrainedRun:
    """Train a policy on preferences, or a reward model with config={"task": "reward"}.

    Args:
        data: `Preferences`, or anything that `load_preferences` reads: a path, a `datasets.Dataset` (TRL's formats
            work unchanged), a list of dicts.
        model: the start model: a folder, a hub id or "demo"; or a causal language model in memory, which stays
            unchanged. So that the run can be resumed and evaluated later, a copy of it is kept on disk, in the cache
            folder (POPMARGIN_CACHE).
        tokenizer: of a model in memory.
        objective: a name, or a mapping with `name` and options.
        edges: PoP edges between the training preferences, their file or a label store; None samples them if the
            objective needs them.
        test: held-out preferences, as `data`; None splits some off `data` by prompt.
        output: the run directory.
        overwrite: delete an existing run in the folder.
        resume: continue from the last checkpoint.
        config: further settings by section, as in a configuration file: {"train": {"learning_rate": 1e-5}}.

    Returns:
        The run: `model` in memory, `metrics`, `margins()` of the held-out preferences, and the run directory.

    Raises:
        ConfigError, DataError, RunError: with the remedy.

    Example:
        >>> run = train(rows, model=model, tokenizer=tokenizer, objective="dpo", output=output,
        ...             config={"train": {"max_steps": 1, "batch_size": 8}})
        >>> run.metrics[0]["step"], sorted(run.margins())
        (1, ['id', 'margin', 'reward_margin', 'strength'])
    """
    folder = cache_folder(None).parent / "data"
    data, test, config = _read(data, test, config or {})
    named = {"preferences": data, "held-out preferences": test}
    memory = {what: given for what, given in named.items() if isinstance(given, Preferences)}
    earlier = [step for what, given in memory.items() for step in memory_steps(given, what)]
    values: dict[str, Any] = {
        "name": Path(output).name,
        "output": str(output),
        "model": {"path": _start_model(model, tokenizer, folder)},
        "objective": {"name": objective} if isinstance(objective, str) else dict(objective),
        "data": {"train": _stored(data, folder)},
    }
    if test is not None:
        values["data"]["test"] = _stored(test, folder)
    if isinstance(edges, (str, Path)):
        values["pop"] = {"edges": str(edges)}
    elif edges is not None:
        file = folder / f"edges-{edges.fingerprint()[:24]}.parquet"
        edges.save(file)
        values["pop"] = {"edges": str(file)}
    made = from_dict(RunConfig, merge(values, config))
    note_named(to_dict(made))
    directory, trained = train_run(made, resume=resume, overwrite=overwrite, earlier=earlier, keep_model=True)
    return TrainedRun(directory, trained.eval())


def evaluate(
    run: TrainedRun | RunDirectory | str | Path,
    *,
    reward: str | Callable[..., Any] | AnyReward | None = None,
    config: Mapping[str, Any] | None = None,
    allow_code: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """Evaluate a finished run on the preferences held out in training, and on generations if there is a reward.

    Args:
        run: the result of `train`, or a run directory.
        reward: a function of (prompts, completions) → list of floats, of images (prompts, images) → list of floats, or
            a specification as in `load_reward`; None for the run's own.
        config: other evaluation settings: {"prompts": 100, "max_new_tokens": 64}.
        allow_code: files of Python code (or modules) that may run although only the run's stored configuration names
            them. Code that was named in this process, such as for `train`, needs no permission.

    Returns:
        `intervals` (name → estimate, low, high), `reliability`, `counts`, and `account`: which data was used, and
        what was dropped and why.

    Raises:
        RunError: the run has not finished, its held-out preferences, models or code have changed, or its configuration
            names code that is not allowed.

    Example:
        >>> result = evaluate(run)
        >>> 0 <= result["intervals"]["accuracy"]["estimate"] <= 1
        True
    """
    allow(allow_code)
    note_named(reward, config or {})
    run = run.directory if isinstance(run, TrainedRun) else run
    directory = run if isinstance(run, RunDirectory) else RunDirectory(Path(run))
    own = directory.config()
    if config:
        settings = from_dict(type(own.evaluation), merge(vars(own.evaluation), config), "evaluation")
        own = replace(own, evaluation=settings)
    return evaluate_run(Run.opened(directory.path, own), reward=reward)


def _read(data: Any, test: Any, config: Mapping[str, Any]) -> tuple[Any, Any, Mapping[str, Any]]:
    """Data in memory as preferences, read as `config["data"]` says, and the configuration without the settings used.

    Paths are unchanged, unless the other side is in memory and the configuration says how to read both.

    Raises:
        ConfigError: it says how to read preferences that are already loaded.
    """
    section = dict(config.get("data") or {})
    how = {name: section[name] for name in _READING if name in section}
    memory = [side for side in (data, test) if not isinstance(side, (str, Path, type(None)))]
    if not how or not memory:
        return _loaded(data), _loaded(test), config
    if any(isinstance(side, Preferences) for side in memory):
        raise ConfigError(
            f"config={{…}} sets data.{next(iter(how))}, but the preferences are already loaded. Pass it to "
            "load_preferences."
        )
    split, seed = how.pop("split", None), section.get("split_seed", 0)
    read = (
        load_preferences(data, split=split, seed=seed, **how),
        None if test is None else load_preferences(test, seed=seed, **how),
    )
    return *read, {**config, "data": {name: value for name, value in section.items() if name not in _READING}}


def _loaded(data: Any) -> Any:
    """Data in memory as preferences; a path or None unchanged."""
    return data if data is None or isinstance(data, (str, Path)) else as_preferences(data)


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


def _start_model(model: Any, tokenizer: Any, folder: Path) -> str:
    """The path of the start model: its own, or a copy of what is in memory, named by its content."""
    if isinstance(model, (str, Path)):
        if tokenizer is not None:
            raise ConfigError(f"The tokenizer of '{model}' is the one in that folder. Omit tokenizer=…")
        return str(model)
    refuse_no_model(model, tokenizer)
    content = digest(model_fingerprint(model).encode(), tokenizer_fingerprint(tokenizer).encode())
    place = folder.parent / "models" / content
    if not place.is_dir():
        with whole_folder(place, replace=True) as partial:  # another process is writing the same
            write_model(model, partial)
            tokenizer.save_pretrained(partial)
    return str(place)


def refuse_no_model(model: Any, tokenizer: Any) -> None:
    """Check that a model in memory can be trained.

    Raises:
        ConfigError: it is not a whole transformers model, or has no tokenizer.
    """
    if hasattr(model, "peft_config"):
        raise ConfigError(
            "The model already has an adapter. Pass model.merge_and_unload(), or the folder that the adapter was "
            "saved in; a new adapter is made by model.lora_rank, or by peft_config."
        )
    if not isinstance(model, torch.nn.Module) or getattr(model, "config", None) is None:
        raise ConfigError(f"model must be a transformers model, a folder or a hub id, not {type(model).__name__}.")
    if tokenizer is None:
        raise ConfigError(f"A model in memory ({type(model).__name__}) comes without its tokenizer: pass it too.")
