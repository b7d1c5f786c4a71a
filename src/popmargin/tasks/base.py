"""Tasks: how preferences are encoded, batched and scored by a model, and what kind of scores these are.

Training, evaluation and studies know nothing about kinds of model. They ask a task for preferences in its own form
(`Encoded`), for batches of them (`Inputs`), for a model, and for a `Scorer` that scores a batch with it. A new kind of
model is a new file that registers a class with `@task`.

Axis suffix P: the distinct preferences of a batch.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from popmargin.config import DataConfig, EvaluationConfig, ModelConfig, ReferenceConfig, TaskChoice, TrainConfig, opened
from popmargin.data.schema import Preferences
from popmargin.engine.scores import PairScores
from popmargin.models.saved import write_state
from popmargin.models.sharding import Sharding
from popmargin.objectives.base import ScoreKind
from popmargin.registry import Registry, make_options

if TYPE_CHECKING:
    from popmargin.generate.samples import Samples
    from popmargin.tokens.base import TokenSelector


@runtime_checkable
class EncodingReport(Protocol):
    """How preferences were encoded."""

    @property
    def rows_in(self) -> int: ...
    @property
    def rows_kept(self) -> int: ...
    @property
    def dropped(self) -> Sequence[tuple[str, str]]:
        """Id and reason of every dropped preference."""
        ...

    def notes(self) -> Sequence[str]:
        """Further notes, as sentences."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """For run.json."""
        ...


@runtime_checkable
class Encoded(Protocol):
    """Preferences in a task's own form; those it cannot use are dropped, with the reason."""

    @property
    def ids(self) -> list[str]:
        """Ids of the kept preferences (N,)."""
        ...

    @property
    def index(self) -> Sequence[int] | np.ndarray:
        """Row number of each among the input preferences (N,)."""
        ...

    @property
    def report(self) -> EncodingReport:
        """What was dropped, and why."""
        ...

    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Lengths of the chosen and of the rejected responses (N,), for `the longer one wins`; zeros without any."""
        ...

    def __len__(self) -> int: ...


@runtime_checkable
class Inputs(Protocol):
    """Encoded preferences as model inputs; it is sent to the workers of a data loader."""

    @property
    def ids(self) -> list[str]:
        """Ids of the preferences (N,)."""
        ...

    def costs(self) -> np.ndarray:
        """Size of each preference in one forward pass (N,), in the unit of `train.tokens_per_batch`."""
        ...

    def work(self) -> np.ndarray:
        """Tokens of each preference for tokens per second (N,); images where responses are images."""
        ...

    def collate(self, preferences: np.ndarray) -> dict[str, Any]:
        """The tensors of some preferences, by name, for `Scorer.score`."""
        ...

    def __len__(self) -> int: ...


@runtime_checkable
class Scorer(Protocol):
    """Scores preferences with one model; created before the model is wrapped for distributed training."""

    @property
    def alone(self) -> bool:
        """Whether the model takes one response at a time, which several processes cannot do in lockstep."""
        ...

    def score(
        self, model: nn.Module, batch: Mapping[str, Any], generator: torch.Generator | None, *, log: bool = False
    ) -> PairScores:
        """Scores of a batch's preferences.

        Args:
            model: the scorer's own, wrapped or not, possibly with the target's weights.
            batch: from `Inputs.collate`, on the model's device.
            generator: seeded alike in all parts and processes of an optimizer step, for policy and target. What is
                drawn for a row should depend only on `generator.initial_seed()` and on the row: then it is the same
                however rows are batched, and for all models that score it.
            log: also return values to log that are costly to compute.

        Returns:
            Scores of the P chosen and rejected responses, of the requested kind.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """The options of a task without any."""


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What a task is opened with; runs whose tasks have the same settings can share one.

    Attributes:
        name: of the task in configurations.
        options: its own options, of the class that it was registered with.
        data: how preferences become what the model takes, such as its longest row.
        model: the start model.
        reference: the reference model and its cache.
    """

    name: str = "policy"
    options: Any = field(default_factory=NoOptions)
    data: DataConfig
    model: ModelConfig
    reference: ReferenceConfig


class Task(ABC):
    """A kind of model on one start model; runs that differ in objective, adapter or seed share it.

    Abstract methods define a task; the others have defaults for tasks without a reference or generation.

    Attributes:
        provides: the kind of its scores and what else it provides, matched with what components require: the score
            kinds `log_ratio`, `mean_log_ratio`, `logp` and `mean_logp`; `reward`: scores are rewards; `reference`:
            there is a reference model, so single scores have a zero; `tokens`: responses have token log-probs;
            `decoupled`: gaps with de-coupled log-probs; `generation`: it can sample; `images`: responses are images.
        noun: the kind of model, for messages.
        beta: the default β of objectives; None for the objective's own default.
        columns: other columns of the data that `encode` reads, such as features.
        use: a sentence about how to use a trained model, after a space; `{model}` is its folder.
        encodes_with_weights: whether `encode` needs the model, as where images become latents.
        stops_on: metrics that `held_out` gives, on which training can stop.
        no_tokens: why settings of texts have no meaning, and what has; empty for a task of texts.
        sharding: how processes divide the models that are loaded from now on, set before a training; None for whole
            ones. Tasks that do not look at it load whole models, which are divided only where the policy is wrapped.
        settings: what it was opened with.
    """

    provides: ClassVar[frozenset[str]]
    noun: ClassVar[str] = "a model"
    beta: ClassVar[float | None] = None
    columns: ClassVar[tuple[str, ...]] = ()
    use: ClassVar[str] = ""
    encodes_with_weights: ClassVar[bool] = False
    stops_on: ClassVar[tuple[str, ...]] = ()
    no_tokens: ClassVar[str] = ""
    sharding: Sharding | None = None

    def __init__(self, settings: TaskSettings) -> None:
        self.settings = settings

    def check_scoring(  # noqa: B027
        self, encoded: Any, model: Any
    ) -> None:
        """Check that a trained model can score rows, which may differ from those it was trained on.

        Raises:
            DataError: it cannot; the message names the rows.
        """

    def fits(self, settings: TaskSettings) -> bool:
        """Whether a run with these settings can share this task."""
        return settings == self.settings

    def samples_like(self, other: Any) -> bool:
        """Whether another task's reference samples the same from the same prompts; by default, with equal settings."""
        return self.settings == other.settings

    @abstractmethod
    def encode(self, preferences: Preferences) -> Encoded:
        """Preferences in this task's form."""

    def check(  # noqa: B027
        self, sides: Sequence[Any], evaluation: EvaluationConfig
    ) -> None:
        """Check before training that the models can score all rows and sample the requested completions.

        Raises:
            ConfigError, DataError, RunError: they cannot; the message names rows or fields.
        """

    @abstractmethod
    def make_model(self, settings: ModelConfig) -> Any:
        """A model to train, from the start model; random weights use torch's random numbers.

        It may be the start model itself: whoever needs that too loads it again. Reference scores should be asked for
        before, while it is there anyway.
        """

    def sketch(self, settings: ModelConfig) -> Any | None:
        """The model to train with the right shapes, and without loading weights; None where only loading tells.

        Args:
            settings: of the model.
        """
        return None

    def release(self) -> None:  # noqa: B027
        """Let go of models in memory that are not trained; they are loaded again when they are needed."""

    def prepare(self, model: Any, scorer: Any, training: TrainConfig) -> Any:
        """The scorer, with anything that speeds up training this model applied."""
        return scorer

    @abstractmethod
    def scorer(
        self,
        model: Any,
        kind: ScoreKind,
        *,
        precision: str,
        wide: bool = False,
        tokens: "tuple[TokenSelector, Any] | None" = None,
        statistics: bool = False,
    ) -> Scorer:
        """The scorer of a model.

        Args:
            model: not yet wrapped for distributed training.
            kind: the objective's score kind.
            precision: fp32 or bf16.
            wide: sum in double precision, for evaluation.
            tokens: a token selector and its options.
            statistics: also return entropy and top-1 agreement of every token, to log.
        """

    def watch(self, beta: float) -> Sequence[TrainerCallback]:
        """What looks at the log of a training and warns.

        Args:
            beta: of the objective, reward units per nat.
        """
        return ()

    def held_out(self, model: Any, encoded: Any) -> Mapping[str, float]:
        """Metrics of held-out preferences by name, larger is better, for `train.stop_on`; those of `stops_on`.

        Args:
            model: in evaluation mode; it is not changed, and nothing is drawn from PyTorch's own random numbers.
            encoded: the held-out preferences.
        """
        raise NotImplementedError(f"{self.noun} has no metrics to stop on")

    def decoupled(self, scorer: Any, weight: float) -> Scorer:
        """A scorer that also gives `PairScores.decoupled`; of tasks that provide `decoupled`.

        Args:
            scorer: as `prepare` gave it.
            weight: λ; log-probs are those of the logits (1 + λ)·policy − λ·reference.
        """
        raise NotImplementedError(f"{self.noun} has no de-coupled log-probs")

    @abstractmethod
    def inputs(self, encoded: Any, scorer: Any, *, reference: Any = None, scoring: Any = None) -> Inputs:
        """Batches of encoded preferences.

        Args:
            encoded: the preferences.
            scorer: the one that takes the batches.
            reference: the result of `reference`; None for scores without one.
            scoring: the same for a token selector's own reference.
        """

    def reference(self, encoded: Any, model: str | None = None) -> Any:
        """The reference's scores of every preference, cached on disk; None if there is none, or it scores live.

        Args:
            encoded: the preferences.
            model: another reference, by its folder or hub id: a token selector's own.
        """
        return None

    def start_gaps(self, encoded: Any, kind: ScoreKind, reference: Callable[[], Any]) -> Tensor:
        """Gaps of all preferences under the start model (N,), nats; a margin bank starts from them.

        By default zeros, as for log-ratios to itself, or for an untrained head, whose rewards are meaningless.

        Args:
            encoded: the preferences.
            kind: the score kind.
            reference: returns the result of `reference` for them.
        """
        return torch.zeros(len(encoded))

    def fingerprints(self, sides: Mapping[str, Any], scoring: str | None = None) -> dict[str, str]:
        """Inputs of the scores (models, tokenizer, encoded rows) -> their fingerprints.

        Args:
            sides: encoded preferences by name of the side.
            scoring: a token selector's own reference.
        """
        return {}

    def merges(self, settings: ModelConfig) -> bool:
        """Whether an adapter is merged into the saved weights."""
        return False

    def checkpoint(self, model: Any, folder: Path, state: Mapping[str, Tensor] | None) -> None:
        """Write a model's weights in the form that resuming reads.

        Args:
            model: not wrapped for distributed training.
            folder: created if missing.
            state: its gathered weights by name, if they are sharded in the model.

        Raises:
            RunError: the files differ from the weights in memory.
        """
        write_state(model, folder, state)

    def save(
        self, model: Any, folder: Path, state: Mapping[str, Tensor] | None, settings: ModelConfig
    ) -> dict[str, Any]:
        """Write a trained model in the form that other programs load; arguments and errors as in `checkpoint`.

        Returns:
            For run.json: `dtype` of the saved weights, and `kept`, the share of the training kept in it.
        """
        self.checkpoint(model, folder, state)
        return {"dtype": "float32", "kept": 1.0}

    def finish(  # noqa: B027 (most tasks have nothing more to write)
        self, model: Any, folder: Path, saved: Mapping[str, Any], settings: ModelConfig, sides: Sequence[Any]
    ) -> None:
        """Write the files that belong to saved weights, such as a tokenizer.

        Args:
            model: in memory; None if it is sharded, or copied by several processes.
            folder: of the weights.
            saved: the result of `save`.
            settings: of the trained model.
            sides: encoded training and held-out preferences.
        """

    def whole(self, model: Any) -> Any:
        """A trained model as others take it, where only a part of it was trained in memory."""
        return model

    @abstractmethod
    def load(self, folder: Path) -> Any:
        """The trained model of a run.

        Raises:
            RunError: the folder contains no trained model.
        """

    def sample(
        self,
        model: Any,
        prompts: Sequence[Any],
        encoded: Any,
        settings: EvaluationConfig,
        *,
        progress: bool,
        keys: Sequence[str] | None = None,
        log_ratio: bool = True,
    ) -> "Samples":
        """Completions of prompts, with their log-ratio to the reference; for tasks that provide `generation`.

        Args:
            model: the one that samples; None for the reference.
            prompts: as in the data.
            encoded: the preferences they belong to.
            settings: how to sample.
            progress: show a progress bar.
            keys: what says which prompt is which, where each completion is to have random numbers of its own, the same
                whatever else the prompt says; given only by a sweep over goals.
            log_ratio: whether to measure the log-ratio, which takes two forward passes; nan without.
        """
        raise NotImplementedError(f"{self.noun} does not generate")


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """A registered task.

    Attributes:
        name: its name in configurations.
        function: the class, called with the settings of the task.
        options: its frozen options dataclass, whose docstring describes them.
    """

    name: str
    function: type[Task]
    options: type[Any] = NoOptions

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def provides(self) -> frozenset[str]:
        """What the task provides."""
        return self.function.provides

    @property
    def noun(self) -> str:
        """The kind of model, for messages."""
        return self.function.noun

    @property
    def use(self) -> str:
        """How to use a trained model; `{model}` is its folder."""
        return self.function.use

    @property
    def no_tokens(self) -> str:
        """Why settings of texts have no meaning; empty for a task of texts."""
        return self.function.no_tokens

    @property
    def stops_on(self) -> tuple[str, ...]:
        """Metrics on which training can stop."""
        return self.function.stops_on

    @property
    def beta(self) -> float | None:
        """The default β of objectives; None for the objective's own default."""
        return self.function.beta


TASKS: Registry[TaskEntry] = Registry("task", "popmargin.tasks")

ClassT = TypeVar("ClassT", bound=type[Task])


def task(name: str, *, options: type[Any] = NoOptions) -> Callable[[ClassT], ClassT]:
    """Register the decorated class as a task, with the frozen dataclass of its options, if it has some."""

    def register(kind: ClassT) -> ClassT:
        TASKS.add(TaskEntry(name=name, function=kind, options=options))
        return kind

    return register


def read_task(choice: TaskChoice) -> tuple[TaskEntry, Any]:
    """A task and its options from the run's `task`.

    Raises:
        ConfigError: an unknown task, or an unknown or invalid option.
    """
    values = dict(opened("task", choice))
    entry = TASKS.get(str(values.pop("name")))
    return entry, make_options(entry.options, values, f"task '{entry.name}'")


def open_task(settings: TaskSettings) -> Task:
    """The task of some settings, on its start model.

    Raises:
        ConfigError: it is unknown.
    """
    return TASKS.get(settings.name).function(settings)
