"""A trainer with TRL's calling convention, on popmargin's objectives and its forward pass."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import TrainOutput, get_last_checkpoint

from popmargin.api.runs import refuse_no_model
from popmargin.api.scoring import as_preferences
from popmargin.api.table import Table
from popmargin.api.trl_arguments import check_sections, read_arguments
from popmargin.config import RunConfig, from_dict, merge
from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError, RunError
from popmargin.evaluation.run import held_out_margins, margin_metrics
from popmargin.models.policies import with_padding
from popmargin.pop.edges import PopEdges
from popmargin.tasks.language import LanguageTask
from popmargin.tasks.text import cache_folder
from popmargin.training import trainer as loop
from popmargin.training.account import memory_steps
from popmargin.training.build import Run, make_parts
from popmargin.training.final import save_trained
from popmargin.training.run_account import training_steps
from popmargin.training.sides import Split
from popmargin.training.workspace import Workspace

_LOG = logging.getLogger(__name__)
_IN_MEMORY = "model-in-memory"


class PreferenceTrainer(loop.PreferenceTrainer):
    """Trains a policy with any objective; called as TRL's `DPOTrainer`, whose script changes two lines.

    A `transformers.Trainer`: callbacks, checkpoints, schedulers, logging and several processes are its own. The same
    settings lead to the same weights as with `popmargin train`. What of TRL's arguments has no meaning here is refused
    with a sentence; see docs/trl.md.

    Args:
        model: a folder or hub id, or a causal language model in memory, which is trained in place.
        ref_model: another reference than the start model, in the same forms.
        args: TRL's `DPOConfig`, or transformers' `TrainingArguments`.
        data_collator: not taken.
        train_dataset: `Preferences`, or what `load_preferences` reads, TRL's data sets among them.
        eval_dataset: held-out preferences in the same forms, or several by name.
        processing_class: the tokenizer; None takes the one that lies beside a model on disk.
        compute_metrics: not taken: `evaluate` measures accuracy and margins.
        callbacks: of transformers.
        optimizers: an optimizer and a scheduler in the place of those that `args` name.
        quantization_config: not taken.
        peft_config: peft's `LoraConfig` of the adapter to train; None trains all weights.
        edges: PoP edges between the training preferences, or their file or label store; None samples them from
            strengths where the objective needs them.
        objective: a name, or a mapping with `name` and options; None takes `pop` with edges, else `args.loss_type`.
        config: further settings by section, as in a configuration file: {"target": {"kind": "bank"}}.

    Raises:
        ConfigError, DataError, RunError: with what to do about it.

    Example:
        >>> from transformers import TrainingArguments  # or trl.DPOConfig
        >>> args = TrainingArguments(output, max_steps=1, report_to="none", save_strategy="no", disable_tqdm=True)
        >>> trainer = PreferenceTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)
        >>> result = trainer.train()  # doctest: +ELLIPSIS
        {'train_runtime': ...}
        >>> result.global_step
        1
    """

    def __init__(
        self,
        model: str | Path | nn.Module,
        ref_model: str | Path | nn.Module | None = None,
        args: TrainingArguments | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_metrics: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        quantization_config: Any = None,
        peft_config: Any = None,
        *,
        edges: PopEdges | str | Path | None = None,
        objective: str | Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        _refuse(data_collator=data_collator, compute_metrics=compute_metrics, quantization_config=quantization_config)
        if train_dataset is None:
            raise ConfigError("train_dataset is missing: preferences, or what load_preferences reads.")
        read = read_arguments(args or _usual_arguments(model), objective, edges=edges is not None)
        check_sections(config or {})
        values = merge(merge(read.config, _model(model, ref_model, peft_config, edges, config or {})), config or {})
        self._run = Run.read(from_dict(RunConfig, values))
        self._task = _task(self._run.config, model, ref_model, processing_class, peft_config)
        train, self._held_out = as_preferences(train_dataset), _by_name(eval_dataset)
        self._train_preferences = train
        self._workspace = self._with(next(iter(self._held_out.values()), None), "train_dataset")
        first = read.arguments.process_index == 0
        account = self._workspace.account[: None if self._held_out else -1]
        self._workspace.tell(account if first else ())
        parts = make_parts(self._run, self._workspace)
        self._workspace.tell(training_steps(self._run.config, self._workspace, parts) if first else ())
        read.arguments.use_cache = getattr(parts.policy.config, "use_cache", False)
        super().__init__(
            model=parts.policy,
            args=read.arguments,
            loss=parts.loss,
            collator=parts.collator,
            scorer=parts.scorer,
            write=self._task.checkpoint,
            clustered=self._run.config.train.edge_batching == "clustered",
            callbacks=callbacks,
            eval_dataset=self._held_out or None,
            optimizers=optimizers,
            processing_class=self._task.tokenizer,
        )
        self._writes_run = False

    def train(
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, ignore_keys_for_eval: Any = None
    ) -> TrainOutput:
        """Train; `resume_from_checkpoint` is a checkpoint's folder, or True for the last one in `args.output_dir`.

        Raises:
            RunError: there is no checkpoint, or none of this trainer; or a loss or gradient is not finite.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(str(self.args.output_dir))
            if resume_from_checkpoint is None:
                raise RunError(f"{self.args.output_dir} holds no checkpoint to go on from. Train without resuming.")
        if resume_from_checkpoint:
            self.load_state(Path(resume_from_checkpoint))
        try:
            return super().train(resume_from_checkpoint or None, trial, ignore_keys_for_eval)  # pyright: ignore[reportArgumentType]
        except loop.NothingLeftError as error:
            raise RunError(f"{resume_from_checkpoint} is of the last step: nothing is left to train.") from error

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Measure how the model orders held-out preferences; numbers do not depend on the batch size.

        Args:
            eval_dataset: other held-out preferences, by name or not; None takes the trainer's.
            ignore_keys: has no effect.
            metric_key_prefix: begins every name.

        Returns:
            The estimates of `popmargin eval`: `eval_accuracy`, `eval_reward_margin` (reward units) and those that the
            data allow (by strength, correlations, PoP accuracy); with several data sets, `eval_NAME_accuracy`.

        Raises:
            ConfigError: there are no held-out preferences.
        """
        metrics: dict[str, float] = {}
        for name, workspace in self._sides(eval_dataset).items():
            settings = self._run.config.evaluation
            margins = held_out_margins(self.accelerator.unwrap_model(self.model), self._run, workspace)
            found = margin_metrics(margins, workspace.test_edges(settings.pop_k, settings.seed))
            start = f"{metric_key_prefix}_{name}_" if name else f"{metric_key_prefix}_"
            finite = {key: interval.estimate for key, interval in found.intervals.items()}
            metrics |= {f"{start}{key}": float(value) for key, value in finite.items() if value == value}
            metrics[f"{start}rows"] = float(len(margins.ids))
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def margins(self, preferences: Any = None) -> Table:
        """Margins of held-out preferences under the model as it is now.

        Args:
            preferences: others than the trainer's; its own must be a single data set.

        Returns:
            One row per preference: `id`, `margin` (chosen − rejected in the objective's own score, nats) and
            `reward_margin` (β times that).
        """
        sides = self._sides(preferences)
        if len(sides) > 1:
            raise ConfigError(f"There are several held-out data sets ({', '.join(sides)}): pass one of them.")
        workspace = next(iter(sides.values()))
        found = held_out_margins(self.accelerator.unwrap_model(self.model), self._run, workspace)
        columns = {
            "id": found.ids,
            "margin": found.reward_margin / self.loss.beta,
            "reward_margin": found.reward_margin,
        }
        return Table(columns, left_out=tuple(workspace.test.encoded.report.dropped))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model with its tokenizer, as `popmargin train` does; a checkpoint when transformers calls it."""
        if _internal_call or self._writes_run:
            super().save_model(output_dir, _internal_call)
            return
        folder, write = Path(output_dir or str(self.args.output_dir)), self.write
        self._writes_run = True
        try:
            sides = (self._workspace.train.encoded, self._workspace.test.encoded)
            part = folder / ".popmargin-model"  # the folder itself may hold checkpoints, which stay
            save_trained(self, self._task, self._run.config.model, part, sides)
            for file in sorted(part.iterdir()) if self.is_world_process_zero() else ():
                file.replace(folder / file.name)
            if self.is_world_process_zero():
                part.rmdir()
        finally:
            self._writes_run, self.write = False, write

    def _sides(self, given: Any) -> dict[str, Workspace]:
        """Held-out preferences by name, as the task takes them."""
        held_out = self._held_out if given is None else _by_name(given)
        if not held_out:
            raise ConfigError(
                "There are no held-out preferences: pass eval_dataset=… to the trainer, or to evaluate()."
            )
        own = given is None and len(held_out) == 1
        return {
            name: self._workspace if own else self._with(side, name or "eval_dataset")
            for name, side in held_out.items()
        }

    def _with(self, test: Preferences | None, name: str) -> Workspace:
        """Training preferences with held-out ones; without any, those of the training take their place."""
        train = self._train_preferences
        steps = memory_steps(train, "train_dataset") + ([] if test is None else memory_steps(test, "eval_dataset"))
        split = Split(train, train if test is None else test, train.select([]), frozenset(), tuple(steps))
        return Workspace(self._run.config, split=split, task=self._task)


def _refuse(**given: Any) -> None:
    instead = {
        "data_collator": "batches are the task's own",
        "compute_metrics": "evaluate() measures accuracy, margins and correlations; a callback's on_evaluate gets them",
        "quantization_config": "weights are not quantized. With a LoRA adapter, load the model in bf16 to save memory",
    }
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"PreferenceTrainer does not take {name}: {instead[name]}.")


def _usual_arguments(model: Any) -> TrainingArguments:
    name = str(model) if isinstance(model, (str, Path)) else str(getattr(model, "name_or_path", "") or "model")
    return TrainingArguments(output_dir=f"{Path(name).name}-preferences", learning_rate=1e-6)


def _by_name(data: Any) -> dict[str, Preferences]:
    """Held-out preferences by name; a single data set has the empty name."""
    if data is None:
        return {}
    named = isinstance(data, Mapping) and not {"prompt", "chosen"} <= set(data)
    return {str(name): as_preferences(side) for name, side in data.items()} if named else {"": as_preferences(data)}


def _path(model: Any) -> str:
    return str(model) if isinstance(model, (str, Path)) else str(getattr(model, "name_or_path", "") or _IN_MEMORY)


def _model(model: Any, ref_model: Any, peft_config: Any, edges: Any, further: Mapping[str, Any]) -> dict[str, Any]:
    """What model, reference, adapter and edges say of the configuration, which further settings may not say too."""
    values: dict[str, Any] = {"model": {"path": _path(model)}}
    if ref_model is not None:
        values["reference"] = {"model": _path(ref_model)}
    if peft_config is not None:
        _check_adapter(peft_config)
        alpha, dropout = float(peft_config.lora_alpha), float(peft_config.lora_dropout)
        values["model"] |= {"lora_rank": int(peft_config.r), "lora_alpha": alpha, "lora_dropout": dropout}
    if isinstance(edges, PopEdges):
        file = cache_folder(None).parent / "data" / f"edges-{edges.fingerprint()[:24]}.parquet"
        edges.save(file)
        values["pop"] = {"edges": str(file)}
    elif edges is not None:
        values["pop"] = {"edges": str(edges)}
    for name, section in values.items():
        also = further.get(name)
        for key in section if isinstance(also, Mapping) else ():
            if key in also:
                raise ConfigError(f"config={{…}} says {name}.{key}, and so does another argument. Say it there alone.")
    return values


def _check_adapter(peft_config: Any) -> None:
    from peft import LoraConfig

    kind = type(peft_config).__name__
    if not isinstance(peft_config, LoraConfig):
        raise ConfigError(f"peft_config is a {kind}; adapters are trained with a LoraConfig.")
    if peft_config.modules_to_save:
        raise ConfigError("peft_config.modules_to_save trains whole modules beside the adapter. Leave it out.")


def _task(config: RunConfig, model: Any, ref_model: Any, tokenizer: Any, peft_config: Any) -> LanguageTask:
    task = LanguageTask(config)
    task.adapter = peft_config
    if isinstance(model, (str, Path)):
        if tokenizer is not None:
            task.tokenizer = with_padding(tokenizer, str(model))
    else:
        refuse_no_model(model, tokenizer)
        if peft_config is not None and _path(model) == _IN_MEMORY:
            raise ConfigError(
                "The model was not loaded from a folder or the hub, so its adapter could name no base. Save it with "
                "save_pretrained, and load it from there."
            )
        if peft_config is None and next(model.parameters()).dtype != torch.float32:
            _LOG.warning(
                "The weights of the model are in %s, in which small steps are rounded away: load it with "
                "dtype=torch.float32, and set bf16=True for fast matmuls.",
                str(next(model.parameters()).dtype).removeprefix("torch."),
            )
        task.take(model, with_padding(tokenizer, _path(model)))
    if ref_model is not None and not isinstance(ref_model, (str, Path)):
        if ref_model is model:
            raise ConfigError("model and ref_model are one object. Leave ref_model out: the reference is a copy.")
        task.take_reference(ref_model)
    return task
