"""The configuration of a run: frozen dataclasses, read from YAML and overridden by dotted flags."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from popmargin.bounds import (
    Bounds,
    Count,
    NotNegative,
    PartialShare,
    Positive,
    Seed,
    ShareOrCount,
    Size,
    check_bounds,
)
from popmargin.config_names import suggestion
from popmargin.errors import ConfigError, did_you_mean
from popmargin.yaml_file import parse_yaml, read_mapping


def check_writing(prompt: str, reasoning: str) -> None:
    """Check how conversations become prompt and completion.

    Raises:
        ConfigError: a combination without meaning.
    """
    if reasoning == "keep" and prompt != "sampling":
        raise ConfigError(
            "data.reasoning: keep puts a completion's full text after the sampling prompt, so it needs data.prompt: "
            "sampling. Set both, or neither."
        )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The start model, which is also the reference unless another is named.

    Attributes:
        path: a folder, a hub id, or `demo` for the embedded SmolLM2-135M-Instruct; a LoRA adapter is merged into its
            base first (see `start_adapter`).
        precision: `fp32`, or `bf16`: bf16 matmuls; trained weights stay in fp32, frozen ones are kept in bf16.
        lora_rank: rank of a LoRA adapter on all linear layers; 0 trains all weights.
        lora_alpha: LoRA scaling; null means twice the rank.
        lora_dropout: dropout inside the adapter.
        lora_last_layers: adapt only the last layers, this many; null adapts all.
        start_adapter: a start model that is a LoRA adapter is merged into its base's weights (`merge`), or kept frozen
            under the trained adapter (`stack`, with `lora_rank`); both are then saved as one adapter on the same base.
        dropout: keep the start model's own dropout on, in the policy only; without it the policy's log-ratios are 0 at
            the first step. `lora_dropout` is separate.
        save_dtype: dtype of the saved weights: `fp32`, `bf16`, or `start`: the start model's, or fp32 if rounding
            would undo more than a tenth of the training. Adapters are saved in fp32.
    """

    path: str = "demo"
    precision: Literal["fp32", "bf16"] = "fp32"
    lora_rank: Count = 0
    lora_alpha: Positive | None = None
    lora_dropout: PartialShare = 0.0
    lora_last_layers: Size | None = None
    start_adapter: Literal["merge", "stack"] = "merge"
    dropout: bool = False
    save_dtype: Literal["start", "fp32", "bf16"] = "start"

    def __post_init__(self) -> None:
        check_bounds(self, "model")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The preferences.

    Attributes:
        train: a file, a glob, a folder of files, a saved data set, a hub id (each of these also as a list), or `demo`.
        test: held-out preferences, in the same forms; null splits `test_size` off `train`, by prompt.
        split: the split of `train`, if it has several; `name:split` works too, also for `test`.
        format: the layout of the rows; `auto` detects it.
        pairs: how several rated responses per prompt become pairs: best_vs_worst, best_vs_random, all.
        min_gap: minimum rating gap of a pair made from rated responses.
        test_size: share (below 1) or number of preferences held out.
        split_seed: seed of the split and of the pairing.
        validation_size: share (below 1) or number of training prompts used instead of the held-out ones, to tune
            without them; 0 for none.
        max_length: maximum length of prompt + completion, tokens.
        truncation: what to do with longer rows: keep_prompt_end, keep_prompt_start, drop, error.
        prompt: `template` trains on the prompt as the chat template writes it in the whole conversation; `sampling` on
            the prompt that sampling starts from, which can differ at its end.
        reasoning: `template` trains on a completion as the chat template writes it; `keep` (with prompt `sampling`) on
            its full text if the template drops part of it, such as reasoning.
        bad_rows: `error` stops at unusable rows, `drop` leaves them out and reports them.
        columns: maps popmargin's column names to the file's.
        soft_label_temperature: soft labels of training preferences from their ratings, σ(gap / temperature), in rating
            points; replaces the `soft_label` column. null reads that column, the probability that chosen is better;
            below ½, chosen and rejected are swapped.
        flip: share of training preferences whose label is flipped, to study noise.
        limit: maximum number of training preferences.
    """

    train: str = "demo"
    test: str | None = None
    split: str | None = None
    format: str = "auto"
    pairs: Literal["best_vs_worst", "best_vs_random", "all"] = "best_vs_worst"
    min_gap: NotNegative = 0.0
    test_size: ShareOrCount = 0.2
    split_seed: Seed = 0
    validation_size: ShareOrCount = 0.0
    max_length: Annotated[int, Bounds(least=2)] = 1024
    truncation: Literal["keep_prompt_end", "keep_prompt_start", "drop", "error"] = "keep_prompt_end"
    prompt: Literal["template", "sampling"] = "template"
    reasoning: Literal["template", "keep"] = "template"
    bad_rows: Literal["error", "drop"] = "error"
    columns: dict[str, str] = field(default_factory=dict[str, str])
    soft_label_temperature: Positive | None = None
    flip: PartialShare = 0.0
    limit: Size | None = None

    def __post_init__(self) -> None:
        check_bounds(self, "data")
        check_writing(self.prompt, self.reasoning)


@dataclass(frozen=True, kw_only=True)
class PopConfig:
    """Where PoP edges come from, and the strength scale fitted from them, for objectives that need them.

    Attributes:
        edges: a file of edges (Parquet, JSONL or CSV), or a label store (`labels.db`, a project of it as
            `labels.db#name`, or a database's URL); null samples them from the strengths in the data.
        sampling: `iterative` (every preference is the stronger side of k edges), `random` (k·N random pairs) or
            `active` (ours: as many pairs, chosen to be informative about the strength scale).
        k: edges per preference.
        seed: seed of the sampling and its noise.
        flip: probability that a label is flipped.
        temperature: Bradley–Terry temperature of the label noise, in units of strength; 0 is exact.
        budget: maximum comparisons per preference in iterative sampling (null: all others), or total comparisons in
            active sampling (null: k·N).
        unmatched: preferences without a weaker partner: `keep` (margin 0) or `drop`.
        scale: a Parquet file of strengths from `popmargin pop scale`; null fits them from the edges.
        ridge: precision of the prior on fitted strengths.
    """

    edges: str | None = None
    sampling: Literal["iterative", "random", "active"] = "iterative"
    k: Size = 1
    seed: Seed = 0
    flip: Annotated[float, Bounds(least=0, most=1)] = 0.0
    temperature: NotNegative = 0.0
    budget: Size | None = None
    unmatched: Literal["keep", "drop"] = "keep"
    scale: str | None = None
    ridge: NotNegative = 0.1

    def __post_init__(self) -> None:
        check_bounds(self, "pop")


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """What scores the weaker side of an edge.

    Attributes:
        kind: `ema` (Polyak-averaged policy, as published), `policy` (the detached policy), or `bank` (ours: a running
            average of each preference's own gap, updated whenever it is scored; no second network).
        tau: decay of the average, once per optimizer step for `ema`, once per scoring for `bank` (use 0.5 or less
            there, since a preference is rarely scored).
    """

    kind: Literal["ema", "policy", "bank"] = "ema"
    tau: PartialShare | None = None

    @property
    def decay(self) -> float:
        """`tau`, or the kind's default: 0.99 for the network, 0 (the latest gap) for the bank."""
        return self.tau if self.tau is not None else (0.99 if self.kind == "ema" else 0.0)

    def __post_init__(self) -> None:
        check_bounds(self, "target")


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """The reference model.

    Attributes:
        model: null uses the start model.
        cache: folder of cached reference log-probs; null uses the user's cache folder.
        tokens_per_batch: maximum tokens per forward pass when filling the cache.
    """

    model: str | None = None
    cache: str | None = None
    tokens_per_batch: Size = 4096

    def __post_init__(self) -> None:
        check_bounds(self, "reference")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The optimisation. The defaults are the recipe of the DPO-PoP authors' code.

    Attributes:
        epochs: passes over the rows (preferences, or PoP edges).
        max_steps: optimizer steps; overrides `epochs` when set.
        learning_rate: peak learning rate; with LoRA, 10 to 100 times larger values are usual.
        batch_size: rows per optimizer step, over all processes.
        micro_batch_size: rows per forward pass and process; null uses the whole batch.
        tokens_per_batch: maximum tokens per forward pass, prompts counted once; rows are packed into as few passes as
            possible. The rows of an optimizer step stay the same; lower values need less memory. null for no limit.
        warmup_ratio: share of steps with a rising learning rate.
        scheduler: name of a transformers scheduler.
        weight_decay: AdamW's weight decay.
        betas: AdamW's betas.
        max_grad_norm: gradient clipping.
        edge_batching: `random` edges in a batch, or `clustered`: edges that share preferences, so fewer preferences
            are scored twice per epoch.
        gradient_checkpointing: recompute activations in the backward pass.
        frozen_cache_gb: memory (on the training device) to cache the outputs of the layers below an adapter
            (`model.lora_last_layers`), so that they are computed once for all epochs, and in a study for all arms and
            seeds; 0 for none. It pays off from the second epoch or arm on; the first is a little slower.
        compile: compile norms and feed-forward blocks: faster steps after up to a minute of compiling (on the CPU it
            needs a C++ compiler).
        logging_steps: optimizer steps between metric lines.
        token_statistics: also log the policy's entropy and top-1 agreement on completion tokens.
        save_steps: optimizer steps between checkpoints; 0 saves only the final model.
        save_total_limit: checkpoints kept.
        report_to: trackers in addition to the JSONL metrics, e.g. [tensorboard].
        trainer_arguments: more arguments for transformers.TrainingArguments (fsdp, deepspeed …), passed through.
    """

    epochs: Positive = 1.0
    max_steps: Size | None = None
    learning_rate: NotNegative = 1e-6
    batch_size: Size = 32
    micro_batch_size: Size | None = None
    tokens_per_batch: Size | None = None
    warmup_ratio: PartialShare = 0.03
    scheduler: str = "cosine"
    weight_decay: NotNegative = 0.05
    betas: list[PartialShare] = field(default_factory=lambda: [0.9, 0.95])
    max_grad_norm: NotNegative = 1.0
    edge_batching: Literal["random", "clustered"] = "random"
    gradient_checkpointing: bool = False
    frozen_cache_gb: NotNegative = 0.0
    compile: bool = False
    logging_steps: Size = 1
    token_statistics: bool = False
    save_steps: Count = 0
    save_total_limit: Size = 2
    report_to: list[str] = field(default_factory=list[str])
    trainer_arguments: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        check_bounds(self, "train")
        if len(self.betas) != 2:
            raise ConfigError(f"train.betas must be two numbers, not {self.betas}.")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is measured on held-out preferences and on generations.

    Attributes:
        reward: scores generations: `module:function`, `model:PATH` or `judge:URL`; null generates nothing.
        reward_options: more arguments for the reward (for a judge: model, api_key_env, cache).
        prompts: held-out prompts to generate for; null uses all.
        samples: completions per prompt.
        max_new_tokens: maximum completion length, tokens.
        temperature: sampling temperature. Only samples at 1 with all tokens come from the policy itself and give a KL.
        top_k: sample among the k most likely tokens; 0 means all.
        generation_config: `ignore` ignores and reports what the model's own generation_config.json would change
            (penalties, cuts, beams …); `model` follows that file, and temperature and top_k have no effect.
        generation_batch_size: completions generated at once (does not change the metrics' weights).
        tokens_per_batch: maximum tokens per forward pass when scoring responses.
        seed: seed of sampling.
        pop_k: held-out PoP edges per preference, for the PoP accuracy.
        curve_points: points of the curves over training, evenly spaced; the last is the final evaluation, so n points
            cost n − 1 extra evaluations. 0 or 1 for none.
        curve_prompts: prompts for each point, at most `prompts`.
    """

    reward: str | None = None
    reward_options: dict[str, Any] = field(default_factory=dict[str, Any])
    prompts: Size | None = None
    samples: Size = 1
    max_new_tokens: Size = 256
    temperature: NotNegative = 1.0
    top_k: Count = 0
    generation_config: Literal["ignore", "model"] = "ignore"
    generation_batch_size: Size = 64
    tokens_per_batch: Size = 4096
    seed: Seed = 0
    pop_k: Count = 2
    curve_points: Count = 0
    curve_prompts: Size = 32

    def __post_init__(self) -> None:
        check_bounds(self, "evaluation")
        if self.generation_config == "model" and (self.temperature, self.top_k) != (1.0, 0):
            raise ConfigError(
                "evaluation.generation_config: model uses the model's own settings, so evaluation.temperature and "
                "evaluation.top_k have no effect: remove them, or set generation_config to ignore."
            )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run.

    Attributes:
        name: shown in reports.
        output: the run directory.
        seed: seed for initialisation, order and dropout.
        task: train a `policy`, or a `reward` model: a head on the start model whose reward replaces the log-ratio in
            the objective, in reward units (so `objective.beta` is 1 unless set).
        model: the start model.
        data: the preferences.
        objective: `name` and its options.
        regularizers: terms added to the loss: `name`, `weight`, and their options.
        tokens: a token selector: `name`, its options, and `reference`, a separate model that scores tokens (a folder
            or hub id with the same tokenizer; default: the run's reference); null uses every token.
        margin: margin subtracted from each preference's reward margin before the objective:
            `source` (`fixed`, `ratings` or `pop`) and its options, e.g. {source: fixed, value: 1.0},
            {source: ratings, scale: 1.0} or {source: pop, margin_min: 0.0, margin_max: 10.0}; null for none.
        pop: PoP edges.
        target: what scores the weaker sides of edges.
        reference: the reference model and its cache.
        train: optimization.
        evaluation: what is measured.
    """

    name: str = "run"
    output: str = "runs/run"
    seed: Seed = 0
    task: str = "policy"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: dict[str, Any] = field(default_factory=lambda: {"name": "pop"})
    regularizers: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    tokens: dict[str, Any] | None = None
    margin: dict[str, Any] | None = None
    pop: PopConfig = field(default_factory=PopConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        check_bounds(self)


_PARTS = {"objective": "name", "regularizers": "name", "tokens": "name", "margin": "source"}
"""The keys of a run that name a part, and the key in them that holds the name."""
_SOURCES = ("data.train", "data.test")
"""Keys that name a source of rows, or a list of them."""


def coerce(annotation: Any, value: Any, where: str) -> Any:
    """A plain value from YAML or the command line as the annotated type.

    Raises:
        ConfigError: it does not fit; the message names the place and what was expected.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return coerce(arguments[0], value, where)  # the dataclass looks at its bounds
    if dataclasses.is_dataclass(annotation):
        return from_dict(typing.cast("type[Any]", annotation), value, where)
    if origin is Literal:
        if value in arguments:
            return value
        raise ConfigError(f"{where} is {value!r}. {did_you_mean(str(value), [str(a) for a in arguments])}")
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return coerce(next(a for a in arguments if a is not type(None)), value, where)
    if origin is list and isinstance(value, Sequence) and not isinstance(value, str):
        return [coerce(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    if annotation is float and not isinstance(value, bool):
        try:
            number = float(value)  # YAML 1.1 reads 1e-6 as text
        except (TypeError, ValueError):
            number = math.nan
        if math.isfinite(number):
            return number
    elif annotation is str and where.endswith(_SOURCES) and isinstance(value, list) and value:
        return ",".join(coerce(str, item, where) for item in typing.cast("list[Any]", value))
    elif annotation is Any or (isinstance(annotation, type) and type(value) is annotation):
        return value
    expected = getattr(annotation, "__name__", str(annotation)).replace("float", "a finite number")
    key = _PARTS.get(where.partition("[")[0]) if isinstance(value, str) else None
    hint = f" Write {{{key}: {value}}}." if key else ""
    raise ConfigError(f"{where} is {value!r}, which is not {expected}.{hint}")


ConfigT = typing.TypeVar("ConfigT")

GONE = {"evaluation.bootstrap": "intervals now come from formulas, not from resampling."}
"""Keys of earlier versions, and why there is nothing to set."""


def from_dict(kind: type[ConfigT], values: Any, where: str = "") -> ConfigT:
    """Build a config dataclass from nested plain values.

    Raises:
        ConfigError: an unknown key (the nearest known one is named) or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'The configuration'} must be a mapping of keys to values, not {values!r}.")
    known = {f.name: f for f in dataclasses.fields(typing.cast("Any", kind))}
    prefix = f"{where}." if where else ""
    for key in values:
        if f"{prefix}{key}" in GONE:
            raise ConfigError(f"'{prefix}{key}' was removed: {GONE[f'{prefix}{key}']} Remove it.")
        if key not in known:
            raise ConfigError(f"Unknown key '{prefix}{key}'. {suggestion(str(key), known, prefix, settings(kind))}")
    return build(kind, {key: coerce(known[key].type, value, f"{prefix}{key}") for key, value in values.items()})


def settings(kind: Any) -> list[str]:
    """Dotted names of the settings of a run, for a study with their place in it."""
    front = "" if "base" not in {f.name for f in dataclasses.fields(kind)} else "base."
    names: list[str] = []
    for f in dataclasses.fields(RunConfig):
        parts = dataclasses.fields(typing.cast("Any", f.type)) if dataclasses.is_dataclass(f.type) else ()
        names += [f"{front}{f.name}", *(f"{front}{f.name}.{part.name}" for part in parts)]
    return names


def build(kind: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """A config dataclass of checked values.

    Raises:
        ConfigError: the dataclass itself refuses them.
    """
    try:
        return kind(**values)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested values, the inverse of `from_dict`."""
    return dataclasses.asdict(config)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: no such file, or not a YAML mapping; the message names file and line.
    """
    return read_mapping(Path(path))


def read_saved(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file that a run or a study saved, perhaps in an earlier version: without keys now gone."""

    def kept(values: Mapping[str, Any], section: str) -> dict[str, Any]:
        return {
            key: kept(typing.cast("Mapping[str, Any]", value), key) if isinstance(value, Mapping) else value
            for key, value in values.items()
            if f"{section}.{key}" not in GONE
        }

    return kept(read_yaml(path), "")


def apply_overrides(values: dict[str, Any], flags: Sequence[str]) -> dict[str, Any]:
    """A copy of nested values with `--any.field value` (or `--any.field=value`) flags put in; values are YAML.

    Example:
        >>> apply_overrides({"train": {"epochs": 1}}, ["--train.epochs", "2", "--objective.name=dpo"])
        {'train': {'epochs': 2}, 'objective': {'name': 'dpo'}}

    Raises:
        ConfigError: a flag without a value, or one that goes through a value that is not a mapping.
    """
    result = merge({}, values)
    rest = list(flags)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--"):
            raise ConfigError(f"Expected a flag such as --train.learning_rate before '{flag}'.")
        key, equals, text = flag[2:].partition("=")
        if not equals:
            if not rest:
                raise ConfigError(f"{flag} needs a value.")
            text = rest.pop(0)
        node = result
        *parents, last = key.split(".")
        for parent in parents:
            if node.get(parent) is None:
                node[parent] = {}
            node = node[parent]
            if not isinstance(node, dict):
                raise ConfigError(f"{flag}: '{parent}' is not a mapping.")
        try:
            node[last] = parse_yaml(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{flag}: '{text}' is not YAML. Quote it, as in \"{flag} '[0, 1]'\".") from error
    return result


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested values with others put over them; a changed `name` or `source` drops the old one's options.

    Example:
        >>> merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}})
        {'a': {'b': 3, 'c': 2}}
    """
    result: dict[str, Any] = {k: merge({}, v) if isinstance(v, Mapping) else v for k, v in base.items()}
    for key, value in changes.items():
        old = result.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and not _renamed(old, value):
            result[key] = merge(typing.cast("Mapping[str, Any]", old), typing.cast("Mapping[str, Any]", value))
        else:
            result[key] = merge({}, typing.cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else value
    return result


def _renamed(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> bool:
    return any(new.get(part) not in (None, old.get(part)) for part in ("name", "source"))


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Nested values as YAML, in their own order."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
