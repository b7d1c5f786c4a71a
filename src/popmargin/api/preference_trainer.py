"""A trainer with TRL's calling convention, on popmargin's objectives and its forward pass."""

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import PredictionOutput, TrainOutput

from popmargin.api.checkpoint_record import CheckpointRecord
from popmargin.api.scoring import as_preferences
from popmargin.api.table import Table
from popmargin.api.trainer_inputs import make_task, refuse_arguments, said_by_objects
from popmargin.api.trl_arguments import check_sections, read_arguments
from popmargin.config import RunConfig, from_dict, merge
from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError, RunError
from popmargin.evaluation.held_out_scores import held_out_loss, held_out_scores, why_no_loss
from popmargin.evaluation.run import HeldOutMargins, held_out_margins, margin_metrics
from popmargin.files import digest
from popmargin.listed_files import LISTED, sync_folder
from popmargin.pop.edges import PopEdges
from popmargin.training import trainer as loop
from popmargin.training.account import encoding_step, memory_steps
from popmargin.training.build import Run, make_parts
from popmargin.training.checkpoints import newest_whole, refuse_broken
from popmargin.training.final import save_trained
from popmargin.training.run_account import training_steps
from popmargin.training.sides import Split
from popmargin.training.workspace import Workspace

_LOG = logging.getLogger(__name__)


class PreferenceTrainer(loop.PreferenceTrainer):
    """Trains a policy with any objective; called like TRL's `DPOTrainer`, with two lines of a script to change.

    A `transformers.Trainer`, with its callbacks, checkpoints, schedulers, logging and multi-process training. The same
    settings give the same weights as `popmargin train`. TRL arguments that are meaningless here are refused with an
    explanation; see docs/trl.md.

    Args:
        model: a folder or hub id, or a causal language model in memory, which is trained in place.
        ref_model: a reference other than the start model, in the same forms.
        args: TRL's `DPOConfig`, or transformers' `TrainingArguments`.
        data_collator: not accepted.
        train_dataset: `Preferences`, or anything that `load_preferences` reads, including TRL's data sets.
        eval_dataset: held-out preferences in the same forms, or several by name.
        processing_class: the tokenizer; None for the one next to a model on disk.
        compute_metrics: not accepted: `evaluate` measures accuracy and margins.
        callbacks: transformers callbacks.
        optimizers: an optimizer and a scheduler in place of those in `args`.
        quantization_config: not accepted.
        peft_config: peft's `LoraConfig` of the adapter to train; None trains all weights.
        edges: PoP edges between the training preferences, or their file or label store; None samples them from
            strengths if the objective needs them.
        objective: a name, or a mapping with `name` and options; None means `pop` with edges, otherwise
            `args.loss_type`.
        config: further settings by section, as in a configuration file: {"target": {"kind": "bank"}}.

    Raises:
        ConfigError, DataError, RunError: with the remedy.

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
        refuse_arguments(
            data_collator=data_collator, compute_metrics=compute_metrics, quantization_config=quantization_config
        )
        if train_dataset is None:
            raise ConfigError("train_dataset is missing: preferences, or what load_preferences reads.")
        args, config = args or _usual_arguments(model), config or {}
        read = read_arguments(args, objective, edges=edges is not None)
        check_sections(config, args)
        values = merge(merge(read.config, said_by_objects(model, ref_model, peft_config, edges, config)), config)
        self._run = Run.read(from_dict(RunConfig, values))
        self._code = self._run.code  # read at import
        self._task = make_task(self._run.task, model, ref_model, processing_class, peft_config)
        self._train_preferences = as_preferences(train_dataset)
        held_out = _by_name(eval_dataset)
        self._held_out = {name: self._with(side) for name, side in held_out.items()}
        self._workspace = next(iter(self._held_out.values()), None) or self._with(None)
        first = read.arguments.process_index == 0
        account = self._workspace.account[: None if self._held_out else -1]
        self._workspace.tell(account if first else ())
        parts = make_parts(self._run, self._workspace)
        self._workspace.tell(training_steps(self._run, self._workspace, parts) if first else ())
        read.arguments.use_cache = getattr(parts.policy.config, "use_cache", False)
        super().__init__(
            model=parts.policy,
            args=read.arguments,
            loss=parts.loss,
            collator=parts.collator,
            scorer=parts.scorer,
            write=self._task.checkpoint,
            clustered=self._run.train.edge_batching == "clustered",
            callbacks=callbacks,
            eval_dataset=held_out.get("", held_out or None),  # pyright: ignore[reportArgumentType]
            optimizers=optimizers,
            processing_class=self._task.tokenizer,
        )
        self._writes_run, self._said = False, set[str]()
        self._check_best_metric()

    def train(
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, ignore_keys_for_eval: Any = None
    ) -> TrainOutput:
        """Train; `resume_from_checkpoint` is a checkpoint's folder, or True for the last one in `args.output_dir`.

        Raises:
            RunError: there is no checkpoint, or it is from training with other data, models, settings or code; or a
                loss or gradient is not finite.
        """
        if resume_from_checkpoint is True:
            newest = newest_whole(Path(str(self.args.output_dir)), _LOG.warning)
            resume_from_checkpoint = None if newest is None else str(newest)
            if resume_from_checkpoint is None:
                raise RunError(f"{self.args.output_dir} has no checkpoint to resume from. Train without resuming.")
        if resume_from_checkpoint:
            self._refuse_other_training(Path(resume_from_checkpoint))
            self.load_state(Path(resume_from_checkpoint))
        try:
            return super().train(resume_from_checkpoint or None, trial, ignore_keys_for_eval)  # pyright: ignore[reportArgumentType]
        except loop.NothingLeftError as error:
            raise RunError(f"{resume_from_checkpoint} is from the last step: nothing is left to train.") from error

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Evaluate how the model orders held-out preferences; numbers do not depend on the batch size.

        Args:
            eval_dataset: other held-out preferences, possibly by name; None for the trainer's.
            ignore_keys: has no effect.
            metric_key_prefix: prefix of every name.

        Returns:
            The estimates of `popmargin eval`: `eval_accuracy`, `eval_reward_margin` (reward units) and those that the
            data allows (by strength, correlations, PoP accuracy); `eval_rows`; and `eval_loss`, the objective's mean
            loss over the held-out rows, where it has one: not with a strength scale, a bank of gaps, edges between
            preferences of unknown strength, or columns that the held-out preferences lack, which the log says. With
            several data sets they are `eval_NAME_accuracy`.

        Raises:
            ConfigError: there are no held-out preferences.
        """
        metrics: dict[str, float] = {}
        for name, workspace in self._sides(eval_dataset).items():
            start = f"{metric_key_prefix}_{name}_" if name else f"{metric_key_prefix}_"
            metrics |= self._measure(workspace, start)[1]
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Margins of preferences under the current model, and the metrics of `evaluate` on them.

        Args:
            test_dataset: preferences, in the forms of `eval_dataset`; a single data set.
            ignore_keys: has no effect.
            metric_key_prefix: prefix of every name.

        Returns:
            `predictions`: the reward margin (N,) of every preference that was passed, in order, reward units: above 0
            where the model prefers the chosen response, nan where tokenization left the preference out. `metrics`: as
            `evaluate` gives them. `label_ids` is None: the label is that chosen is better.

        Raises:
            ConfigError: there are no preferences, or several data sets.
        """
        workspace = self._single({} if test_dataset is None else test_dataset)
        found, metrics = self._measure(workspace, f"{metric_key_prefix}_")
        margins = np.full(len(workspace.test.preferences), np.nan)
        margins[workspace.test.encoded.index] = found.reward_margin
        self.control = self.callback_handler.on_predict(self.args, self.state, self.control, metrics)
        return PredictionOutput(predictions=margins, label_ids=None, metrics=metrics)

    def margins(self, preferences: Any = None) -> Table:
        """Margins of held-out preferences under the current model.

        Args:
            preferences: instead of the trainer's, which must be a single data set.

        Returns:
            One row per preference: `id`, `margin` (chosen − rejected in the objective's own score, nats) and
            `reward_margin` (β times that).
        """
        workspace = self._single(preferences)
        found = held_out_margins(self.accelerator.unwrap_model(self.model), self._run, workspace)
        columns = {
            "id": found.ids,
            "margin": found.reward_margin / self.loss.beta,
            "reward_margin": found.reward_margin,
        }
        return Table(columns, left_out=tuple(workspace.test.encoded.report.dropped))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model with its tokenizer, as `popmargin train` does; or a checkpoint, if transformers calls it."""
        if _internal_call or self._writes_run:
            super().save_model(output_dir, _internal_call)
            if output_dir is not None and not self._writes_run and self.args.should_save:
                self._record.save(Path(output_dir))
            return
        folder, write = Path(output_dir or str(self.args.output_dir)), self.write
        self._writes_run = True
        try:
            sides = (self._workspace.train.encoded, self._workspace.test.encoded)
            part = folder / ".popmargin-model"  # the folder itself may contain checkpoints, which are kept
            save_trained(self, self._task, self._run.model, part, sides)
            if self.is_world_process_zero():
                # Its list comes first, so that a folder of which some files are not there yet is refused.
                for file in (part / LISTED, *sorted(file for file in part.iterdir() if file.name != LISTED)):
                    file.replace(folder / file.name)
                part.rmdir()
                sync_folder(folder)
        finally:
            self._writes_run, self.write = False, write

    def _measure(self, workspace: Workspace, start: str) -> tuple[HeldOutMargins, dict[str, float]]:
        """Margins of held-out preferences, and their metrics, with names that begin with `start`."""
        model, settings = self.accelerator.unwrap_model(self.model), self._run.evaluation
        scores = held_out_scores(model, self._run, workspace)
        margins = held_out_margins(model, self._run, workspace, scores)
        edges = workspace.test_edges(settings.pop_k, settings.seed)
        found = {key: value.estimate for key, value in margin_metrics(margins, edges).intervals.items()}
        why = why_no_loss(self.loss, workspace, edges)
        if not why:
            found["loss"] = held_out_loss(
                model, self._run, workspace, loss=self.loss, scores=scores, edges=edges, state=self.state_of_objective
            )
        elif why not in self._said:
            self._said.add(why)
            _LOG.warning("There is no %sloss: %s.", start, why)
        metrics = {f"{start}{key}": float(value) for key, value in found.items() if value == value}
        return margins, metrics | {f"{start}rows": float(len(margins.ids))}

    def _check_best_metric(self) -> None:
        """Check before training that there is a loss if it chooses the best checkpoint."""
        wanted = (self.args.metric_for_best_model or "").removeprefix("eval_")
        settings = self._run.evaluation
        for name, workspace in self._held_out.items():
            if wanted != (f"{name}_loss" if name else "loss"):
                continue
            if why := why_no_loss(self.loss, workspace, workspace.test_edges(settings.pop_k, settings.seed)):
                raise ConfigError(
                    f"args.metric_for_best_model is {self.args.metric_for_best_model!r}, which is not measured: {why}. "
                    "Choose by another metric, e.g. metric_for_best_model='eval_accuracy'."
                )

    @cached_property
    def _record(self) -> CheckpointRecord:
        """The record of what this trainer is trained on."""
        record = self._workspace.record(self._run.pop, self._run.loss, self._code)
        adapter: Any = next(iter(getattr(self.accelerator.unwrap_model(self.model), "peft_config", {}).values()), None)
        held_out = None
        if self.args.load_best_model_at_end:
            sides = (workspace.test.preferences.fingerprint() for workspace in self._held_out.values())
            held_out = digest(*(side.encode() for side in sides))
        return CheckpointRecord.of(self._run, self.args, adapter, record, held_out)

    def _refuse_other_training(self, checkpoint: Path) -> None:
        """Check that a checkpoint is whole, and from training with the same data, models, settings and code.

        Raises:
            RunError: it is not; the message says what is broken or differs.
        """
        if not checkpoint.is_dir():
            raise RunError(f"There is no checkpoint {checkpoint}. Train without resuming, or give another folder.")
        refuse_broken(checkpoint)
        before = CheckpointRecord.load(checkpoint)
        if before is None:
            _LOG.warning("%s has no record of what it was trained on, so nothing can be checked.", checkpoint)
        elif changed := before.changes(self._record):
            raise RunError(
                f"{checkpoint} was trained on different inputs:\n"
                + "".join(f"  {sentence}\n" for sentence in changed)
                + "Give the trainer the same inputs, or train without resume_from_checkpoint."
            )

    def _sides(self, given: Any) -> dict[str, Workspace]:
        """Held-out preferences by name, in the task's form."""
        if given is None or given is self.eval_dataset:
            sides = self._held_out
        else:
            sides = {name: self._with(side) for name, side in _by_name(given).items()}
            reports = {name or "preferences passed": side.test.encoded.report for name, side in sides.items()}
            self._workspace.tell([encoding_step(report, name) for name, report in reports.items() if report.dropped])
        if not sides:
            raise ConfigError(
                "There are no held-out preferences: pass eval_dataset=… to the trainer, or to evaluate()."
            )
        return sides

    def _single(self, given: Any) -> Workspace:
        """The held-out preferences of a single data set."""
        sides = self._sides(given)
        if len(sides) > 1:
            raise ConfigError(f"There are several held-out data sets ({', '.join(sides)}): pass one of them.")
        return next(iter(sides.values()))

    def _with(self, test: Preferences | None) -> Workspace:
        """Training preferences with held-out ones; without any, the training ones are used for both."""
        train = self._train_preferences
        steps = memory_steps(train, "train_dataset") + ([] if test is None else memory_steps(test, "eval_dataset"))
        split = Split(train, train if test is None else test, train.select([]), frozenset(), tuple(steps))
        return Workspace(self._task, self._run.data, split=split)


def _usual_arguments(model: Any) -> TrainingArguments:
    name = str(model) if isinstance(model, (str, Path)) else str(getattr(model, "name_or_path", "") or "model")
    return TrainingArguments(output_dir=f"{Path(name).name}-preferences", learning_rate=1e-6)


def _by_name(data: Any) -> dict[str, Preferences]:
    """Held-out preferences by name; a single data set has the empty name."""
    if data is None:
        return {}
    named = isinstance(data, Mapping) and not {"prompt", "chosen"} <= set(data)
    return {str(name): as_preferences(side) for name, side in data.items()} if named else {"": as_preferences(data)}
