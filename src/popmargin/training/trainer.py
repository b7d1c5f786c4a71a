"""The training loop: `transformers.Trainer` with a forward pass over distinct preferences and any objective.

The loop knows nothing of objectives: it scores preferences, matches the scores to the batch's rows, and passes them on.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import RandomSampler, Sampler
from transformers import TrainerCallback, TrainingArguments

from popmargin.engine.processes import own_part
from popmargin.engine.scores import scores_of
from popmargin.engine.target import EMATarget
from popmargin.errors import RunError
from popmargin.models.adapters import is_stacked
from popmargin.models.saved import read_adapter, refuse_difference
from popmargin.objectives.base import Logps, Rows
from popmargin.tasks.base import Scorer
from popmargin.training.batches import ClusteredSampler, Collator, TrainingRows
from popmargin.training.checkpointing import CheckpointingTrainer
from popmargin.training.divided import divides_weights, prepared_once, refuse_other_division, refuse_undividable
from popmargin.training.finite import Checked, what_is_not
from popmargin.training.loss import Loss
from popmargin.training.step_metrics import MeanMetrics, RowValues, finish_means
from popmargin.training.stopping import Stopping
from popmargin.training.watch import Watch, watchers_of
from popmargin.training.zero_checkpoint import is_for_others, load_for_others
from popmargin.user_code import running

_LOG = logging.getLogger(__name__)
STATE_FILE = "popmargin_state.safetensors"
LOGGED = ("loss", "grad_norm", "learning_rate", "epoch", "step", "target_distance")
"""Log entries that are not means over rows."""


class PreferenceTrainer(CheckpointingTrainer):
    """Trains a model on preferences with any registered objective.

    Args:
        model: the policy.
        args: transformers' arguments; per_device_train_batch_size counts rows.
        loss: the objective and what belongs to it.
        collator: makes batches; it has the rows, and the preferences as model inputs.
        scorer: scores preferences with the model.
        write: writes weights into a folder; see `tasks.base.Task.checkpoint`.
        clustered: order edges so that a batch shares preferences.
        average: of the trained weights, which replaces them at the end; None for none.
        stopping: keeps the best weights by a metric of the held-out side, and stops; None for none.
        callbacks: further transformers callbacks.
        options: further options of transformers' trainer.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        args: TrainingArguments,
        loss: Loss,
        collator: Collator,
        scorer: Scorer,
        write: Callable[[Any, Path, Mapping[str, Tensor] | None], None],
        clustered: bool = False,
        average: EMATarget | None = None,
        stopping: Stopping | None = None,
        callbacks: list[TrainerCallback] | None = None,
        **options: Any,
    ) -> None:
        rows: Any = collator.rows
        super().__init__(
            model=model,  # pyright: ignore[reportArgumentType]
            args=args,
            data_collator=collator,
            train_dataset=rows,
            callbacks=[*(callbacks or []), _StepCallback(self)],
            **options,
        )
        refuse_undividable(self, stops=stopping is not None, by_tokens=collator.tokens_per_batch is not None)
        self.model_accepts_loss_kwargs = True  # the loss below is already a mean over the whole optimizer step
        self.loss = loss
        self.collator = collator
        self.scorer = scorer
        self.clustered = clustered
        self.average = average
        self.stopping = stopping
        averaged = loss.target is not None and loss.target.forward == "all"
        self.watch = Watch(watchers_of(loss))
        self.saved_copies = sum((averaged, average is not None, stopping is not None))
        self.metrics = MeanMetrics()
        self.step_metrics = MeanMetrics()
        self.step_rows = RowValues(loss.objective.every_row)
        self.tokens_seen = 0
        self.state_of_objective = loss.objective.init_state(loss.options) if loss.objective.init_state else {}
        self._checks: list[Checked] = []
        self.write = write

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None
    ) -> tuple[Any, Any]:
        checkpoint = None if resume_from_checkpoint is None else Path(resume_from_checkpoint)
        moved = checkpoint is not None and is_for_others(self, checkpoint)
        with prepared_once(self):
            prepared = super()._prepare_for_training(
                max_steps, train_dataloader, None if moved else resume_from_checkpoint
            )
        if checkpoint is not None and moved:  # all of it that transformers would load here
            load_for_others(self, self.model_wrapped, checkpoint)
            self._load_optimizer_and_scheduler(str(checkpoint))
            self._load_scaler(str(checkpoint))
        return prepared

    # -- data order ------------------------------------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        rows: TrainingRows = self.collator.rows
        if self.clustered:
            size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
            return ClusteredSampler(rows, size, self.args.seed)
        return RandomSampler(rows)  # pyright: ignore[reportArgumentType]

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The micro-batches of one optimizer step, and their number of rows (or total weight) over all processes."""
        batches: list[Any] = []
        for _ in range(num_batches):
            batch = next(epoch_iterator, None)
            if batch is None:
                break
            batches.append(batch)
        weighted = any("weight" in batch for batch in batches)
        rows = sum(batch["weight" if weighted else "row_count"] for batch in batches)
        if self.args.world_size == 1 and not weighted:
            return batches, rows  # a tensor would first have to be moved to the device
        total = torch.tensor(rows)
        if self.args.world_size > 1:
            total: Any = self.accelerator.gather(total.to(device))
            total = total.sum()
        return batches, total.clamp(min=torch.finfo(total.dtype).tiny) if total.is_floating_point() else total

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Forward and backward passes of a batch's parts; processes exchange gradients after the last one."""
        *before, last = inputs["parts"]
        losses: list[Tensor] = []
        for part in before:
            with self.accelerator.no_sync(model):
                losses.append(super().training_step(model, part, num_items_in_batch))
        losses.append(super().training_step(model, last, num_items_in_batch))
        return torch.stack(losses).sum()

    # -- loss ------------------------------------------------------------------------------------------------------

    def _seed_of_step(self) -> int:
        """Seed of the random numbers of an optimizer step: the same in all its parts, processes, and a resumed run."""
        step = (self.args.seed, self.state.global_step)
        return int(np.random.SeedSequence(step).generate_state(1, np.uint64)[0] >> 1)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Mean loss over the rows of the optimizer step; this part's share of it."""
        seed = self._seed_of_step()
        target_P = self._target_gaps(model, inputs, seed)
        scores = self.scorer.score(model, inputs["policy"], torch.Generator().manual_seed(seed), log=True)
        if self.loss.target is not None:
            self.loss.target.observe(inputs["preferences"][: len(scores.chosen)], scores.gap.detach())
            if self.loss.target.forward == "others" and target_P is not None:
                target_P[: len(scores.chosen)] = scores.gap.detach()
        rows = self.loss.rows(
            inputs,
            scores,
            target_P,
            progress=self.state.global_step / max(self.state.max_steps, 1),  # 0 before training
            state=self.state_of_objective,
            gather=self.accelerator.gather,  # pyright: ignore[reportArgumentType]
        )
        seen = self.loss.less_margin(rows)
        loss_R = self.loss.of_rows(rows, seen)
        self._checks.append(Checked.of(loss_R, rows, seen, inputs["preferences"][inputs["stronger"]]))
        self._note(inputs, rows, seen, scores.logged)
        weight_R = rows.columns.get("weight")
        count = len(loss_R) if num_items_in_batch is None else num_items_in_batch
        if weight_R is not None:
            loss_R = loss_R * weight_R
            count = weight_R.sum() if num_items_in_batch is None else num_items_in_batch
        return loss_R.sum() * self.accelerator.num_processes / count

    @torch.no_grad()
    def _target_gaps(self, model: nn.Module, inputs: dict[str, Any], seed: int) -> Tensor | None:
        """Target gaps of all preferences of the batch (P,), nats; None where the objective needs none.

        Scored before the policy, so that weights swapped for the target's are restored before its graph is built.
        """
        target = self.loss.target
        if target is None:
            return None
        preferences: Tensor = inputs["preferences"]
        remembered = target.recall(preferences)
        if remembered is not None:
            return remembered
        gaps_P = torch.zeros(len(preferences), device=preferences.device)
        # Processes that shard the weights gather them together: each makes a pass, even with nothing to score.
        if "target" in inputs or (target.forward != "none" and divides_weights(self)):
            side = "target" if "target" in inputs else "policy"
            was_training = model.training
            model.eval()  # no dropout in a target
            with target.scoring():
                inner: Any = self.accelerator.unwrap_model(model)
                scores = self.scorer.score(inner, inputs[side], torch.Generator().manual_seed(seed))
            model.train(was_training)
            if side == "target":
                gaps_P[inputs["target_place"]] = scores.gap.to(gaps_P.dtype)
        return gaps_P

    @torch.no_grad()
    def refuse_bad_step(self) -> None:
        """Stop before an optimizer step that would write NaN into the weights; the one device sync of a step.

        Raises:
            RunError: a loss, score, margin, target or gradient is not finite; the message names the preferences and
                the likely cause.
        """
        model: Any = self.model
        parts, self._checks = self._checks, []
        finite_R = torch.cat([part.finite for part in parts])
        gradients = (parameter.grad for parameter in model.parameters() if parameter.grad is not None)
        # For a sharded gradient, this process's part: a non-finite loss spoils the parts of all processes.
        sums = [own_part(grad).sum() for grad in gradients]
        finite = torch.isfinite(torch.stack(sums)).all() if sums else torch.ones_like(finite_R[0])
        losses_fine, gradients_fine = torch.stack([finite_R.all(), finite]).tolist()
        # DeepSpeed has gradients of its own; it has looked at them, and left out a step in which one is not finite.
        gradients_fine &= self.args.fp16 or not (
            self.is_deepspeed_enabled and self.accelerator.optimizer_step_was_skipped
        )
        if losses_fine and gradients_fine:
            return
        what, names, cause = what_is_not(parts, self.collator.inputs.ids, model, fp16=self.args.fp16)
        raise RunError(
            f"The {what} is not finite at step {self.state.global_step + 1} for the preferences {names}. No weights "
            f"were changed. {cause} Look at these rows, lower train.learning_rate, or resume from the last checkpoint."
        )

    # -- metrics ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _note(self, inputs: dict[str, Any], rows: Rows, seen: Rows, of_tokens: Mapping[str, Tensor]) -> None:
        """Log the rows' metrics; the objective's own diagnostics see the rows less the margin."""
        gap = rows.gap.detach()
        values: dict[str, Tensor] = {
            "accuracy": (gap > 0).double() + 0.5 * (gap == 0).double(),
            "reward_margin": self.loss.beta * gap,
        }
        if "weight" in rows.columns:
            weight = rows.columns["weight"]
            values |= {"weight_mean": weight, "weight_square": weight.square()}
        if rows.logps is None:
            values |= {"chosen_reward": rows.chosen, "rejected_reward": rows.rejected}
        else:
            values |= self._note_logps(rows.logps)
        with running("diagnostics"):
            for _, regularizer, options in self.loss.regularizers:
                if regularizer.diagnostics is not None:
                    values |= regularizer.diagnostics(regularizer.sees(rows), options)
            if self.loss.margin is not None:
                source, options = self.loss.margin
                values |= source.diagnostics(rows, options) if source.diagnostics else {}
            diagnostics = self.loss.objective.diagnostics
            noted = diagnostics(seen, self.loss.options) if diagnostics else {}
        self._refuse_taken(noted, {**values, **of_tokens})
        self.metrics.add({**values, **of_tokens, **noted})
        if self.loss.objective.update_state is not None:
            self.step_metrics.add(noted, rows.columns.get("weight"))
            self.step_rows.add(noted)
        self.tokens_seen += int(inputs["policy_tokens"])

    def _refuse_taken(self, noted: dict[str, Tensor], ours: dict[str, Tensor]) -> None:
        """An objective's diagnostics must not replace other entries of the log."""
        taken = [name for name in noted if name in ours or name in LOGGED]
        if taken:
            raise RunError(
                f"The objective '{self.loss.objective.name}' has diagnostics with names already used in the log: "
                f"{', '.join(taken)}. Rename them, e.g. my_{taken[0]}."
            )

    def _note_logps(self, logps: Logps) -> dict[str, Tensor]:
        values = {"chosen_logps": logps.chosen, "rejected_logps": logps.rejected}
        if logps.chosen_reference is not None and logps.rejected_reference is not None:
            values["chosen_logratio"] = logps.chosen - logps.chosen_reference
            values["rejected_logratio"] = logps.rejected - logps.rejected_reference
        if self.loss.tokens is not None:
            chosen, rejected = scores_of(self.loss.kind, logps)
            values["reward_margin_all_tokens"] = self.loss.beta * (chosen - rejected)
        return values

    def finish_step(self) -> None:
        """Update target and objective after an optimizer step."""
        if self.average is not None:
            self.average.step()
        if self.loss.target is not None:
            self.loss.target.step()
        if self.loss.objective.update_state is not None:
            means = {**self.step_metrics.read(), **self.step_rows.read()}
            self.state_of_objective = self.loss.objective.update_state(
                self.state_of_objective, means, self.loss.options
            )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the preference metrics to the log."""
        means = self.metrics.read()
        if means and "loss" in logs:
            logs = {**logs, **finish_means(means)}
            if self.loss.target is not None:
                logs["target_distance"] = self.loss.target.distance()
        super().log(logs, start_time)
        if "loss" in logs and self.is_world_process_zero():
            for sentence in self.watch.see({**logs, "step": self.state.global_step}):
                _LOG.warning("%s", sentence)

    # -- state -----------------------------------------------------------------------------------------------------

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Called by `save_model`, with gathered weights if they are sharded; without pickled arguments."""
        if self.args.should_save and state_dict != {}:  # DeepSpeed saves its own shards instead
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            self.write(model, Path(output_dir or str(self.args.output_dir)), state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if is_stacked(model or self.model):
            read_adapter(model or self.model, Path(resume_from_checkpoint))  # transformers would use the start adapter
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        if not self.is_fsdp_enabled:  # it reads its own shards
            refuse_difference(model or self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        """The weights of the best checkpoint, read and checked as by a run that goes on, with its target and state."""
        best = str(self.state.best_model_checkpoint)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            self._load_from_checkpoint(best)
        self.load_state(Path(best))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model; with a checkpoint, target and objective state too."""
        super().save_model(output_dir, _internal_call)
        if _internal_call and output_dir is not None:
            state = dict(self.loss.target.state()) if self.loss.target is not None else {}  # over all processes' shards
            state |= {f"average.{name}": value for name, value in self.average.state().items()} if self.average else {}
            state |= {f"stop.{name}": value for name, value in self.stopping.state().items()} if self.stopping else {}
            if not self.args.should_save:
                return
            state |= {f"objective.{name}": value for name, value in self.state_of_objective.items()}
            Path(output_dir).mkdir(parents=True, exist_ok=True)  # FSDP's sharded weights are written after this
            save_file({name: value.contiguous() for name, value in state.items()}, Path(output_dir) / STATE_FILE)

    def load_state(self, checkpoint: Path) -> None:
        """Restore target and objective state from a checkpoint.

        Raises:
            RunError: the checkpoint was not written by popmargin, or is from another target or kind of sharding.
        """
        file = checkpoint / STATE_FILE
        if not file.is_file():
            raise RunError(f"{checkpoint} has no {STATE_FILE}: it cannot be resumed. Delete it to use an earlier one.")
        refuse_other_division(self, checkpoint)
        state = load_file(file)
        if self.loss.target is not None:
            self.loss.target.load_state(state)
        if self.average is not None:
            self.average.load_state({name.removeprefix("average."): value for name, value in state.items()
                                     if name.startswith("average.")})  # fmt: skip
        if self.stopping is not None:
            self.stopping.load_state({name.removeprefix("stop."): value for name, value in state.items()
                                      if name.startswith("stop.")})  # fmt: skip
        self.state_of_objective = {name: state[f"objective.{name}"] for name in self.state_of_objective}


class NothingLeftError(Exception):
    """The checkpoint to resume from is that of the last step."""


class _StepCallback(TrainerCallback):
    """Notifies the trainer of every optimizer step."""

    def __init__(self, trainer: PreferenceTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        stopping = self._trainer.stopping
        if state.global_step >= state.max_steps or (stopping and stopping.over):  # transformers would do one more step
            raise NothingLeftError

    def on_pre_optimizer_step(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.refuse_bad_step()

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.finish_step()
