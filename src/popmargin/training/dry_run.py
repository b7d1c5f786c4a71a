"""What a training would do and need, said before it starts, without loading weights."""

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from popmargin.config import ModelConfig
from popmargin.engine.saved_activations import count_activations
from popmargin.engine.trial import ERRORS
from popmargin.errors import counted
from popmargin.models.policies import device, process_count
from popmargin.safe_reading import read_object
from popmargin.training.arguments import micro_batch_size
from popmargin.training.build import Run, training_rows
from popmargin.training.memory_plan import NF4_BYTES, RowSizes, Setting, Shapes, forward_passes, plan, told_bytes
from popmargin.training.workspace import Workspace

_ADAPTER_RANK = 16  # of the adapter in the advice
_NOT_QUANTIZED = ("embed", "lm_head", "wte", "wpe")


def shapes_of(run: Run, workspace: Workspace, model: ModelConfig) -> Shapes | None:
    """The shapes of the model that a run would train with these settings; None where only loading tells."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        sketch = workspace.task.sketch(model)
        if sketch is None:
            return None
        weights = dict(sketch.named_parameters())
        activations, unknown = None, "activations depend on more than tokens, and are not estimated"
        if not workspace.task.encodes_with_weights and hasattr(sketch, "get_input_embeddings"):
            try:
                activations, unknown = count_activations(sketch, model.precision), ""
            except (*ERRORS, AssertionError) as error:
                unknown = f"activations are not estimated: {str(error).strip().partition(chr(10))[0][:120]}"
        config: Any = getattr(sketch, "config", None)
        text = config.get_text_config() if hasattr(config, "get_text_config") else None
        blocks = [sum(p.numel() for p in block.parameters()) for module in sketch.modules()
                  if isinstance(module, nn.ModuleList) for block in module]  # fmt: skip
        return Shapes(
            parameters=sum(value.numel() for value in weights.values()),
            trained=sum(value.numel() for value in weights.values() if value.requires_grad),
            weight_bytes=sum(_bytes_of(name, value, model) for name, value in weights.items()),
            tied_bytes=_tied_bytes(sketch),
            layer_bytes=4 * max(blocks, default=0),
            vocabulary=int(text.vocab_size) if text is not None and run.task.name == "policy" else 0,
            hidden=int(text.hidden_size) if text is not None else 0,
            activations=activations,
            unknown=unknown,
        )


def _tied_bytes(model: Any) -> int:
    if not hasattr(model, "get_output_embeddings"):
        return 0
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is not embeddings.weight or not head.weight.requires_grad:
        return 0
    return 4 * head.weight.numel()


def _bytes_of(name: str, value: Tensor, model: ModelConfig) -> int:
    quantized = model.quantization != "none" and value.ndim == 2 and not value.requires_grad
    if quantized and not any(part in name for part in _NOT_QUANTIZED):
        return round(NF4_BYTES * value.numel())
    return value.nbytes


def sizes_of(run: Run, workspace: Workspace) -> RowSizes:
    """What a run's rows demand; texts are tokenized for that, images are only counted."""
    if workspace.task.encodes_with_weights:
        return RowSizes(rows=len(workspace.train_rows))
    needs, data = run.loss.needs, workspace.train
    edges = workspace.edges(run.pop, run.loss.signals.get("order")) if needs.edges else None
    rows = training_rows(run.loss, workspace, edges)
    tokens = data.encoded
    if not hasattr(tokens, "prompt"):
        return RowSizes(rows=len(rows))
    completions = tokens.chosen.lengths + tokens.rejected.lengths
    costs = tokens.prompt.lengths + completions
    of_weaker = np.where(rows.weaker >= 0, costs[np.maximum(rows.weaker, 0)], 0)
    of_rows = costs[rows.stronger] + (of_weaker if needs.weaker == "gradient" else 0)
    return RowSizes(len(rows), of_rows, int(completions.sum()), 2 * len(tokens))


def setting_of(run: Run) -> Setting:
    """How a run trains, in these processes."""
    loss, train = run.loss, run.train
    given = train.trainer_arguments
    zero = _zero_stage(given.get("deepspeed"))
    sharded = bool(given.get("fsdp") or os.environ.get("ACCELERATE_USE_FSDP") == "true" or zero == 3)
    target = loss.needs.weaker == "target" and run.target.kind == "ema"
    return Setting(
        model=run.model,
        train=train,
        processes=process_count(),
        sharded=sharded and process_count() > 1,
        zero=zero,
        averages=sum((target, train.average is not None, train.stop_on is not None)),
        live_reference=bool(loss.decoupling),
        cached=loss.uses_reference and "tokens" in loss.provides,
    )


def _zero_stage(given: Any) -> int:
    """The stage of ZeRO that `train.trainer_arguments` or accelerate's configuration ask for; 0 for none."""
    if not given:
        launched = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
        given = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE") if launched else None
        if launched and not given:
            return int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"))
    settings = read_object(Path(given), "Name a DeepSpeed configuration.") if isinstance(given, str) else given or {}
    return int(settings.get("zero_optimization", {}).get("stage", 0))


def device_bytes() -> tuple[int, str]:
    """Memory of the device that would train, and its name."""
    if torch.cuda.is_available():
        properties: Any = torch.cuda.get_device_properties(device())
        return int(properties.total_memory), str(properties.name)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text(encoding="ascii").strip()).isdigit():
        total = min(total, int(text))
    return total, "main memory"


def dry_run(run: Run, workspace: Workspace) -> list[str]:
    """Lines that say what a run would do, what memory it needs, and what would make it fit."""
    setting, sizes = setting_of(run), sizes_of(run, workspace)
    lines = _work_lines(setting, sizes, workspace)
    shapes = shapes_of(run, workspace, run.model)
    if shapes is None:
        return [*lines, f"The memory of {run.task.name} is not estimated: only loading the model tells its size."]
    found = plan(shapes, sizes, setting)
    room, where = device_bytes()
    lines.append("memory of each process, estimated, without evaluation:")
    lines += [f"  {name:<12}{told_bytes(size):>10}  {how}" for name, (size, how) in found.parts.items()]
    lines += [f"  {shapes.unknown}"] if shapes.unknown else []
    fits = found.peak <= room
    lines.append(f"  {'at its peak':<12}{told_bytes(found.peak):>10}  of {told_bytes(room)} ({where})")
    if fits:
        return [*lines, "It fits."]
    lines.append("It does not fit. What changes that:")
    return lines + _advice(run, workspace, shapes, sizes, setting, room)


def _work_lines(setting: Setting, sizes: RowSizes, workspace: Workspace) -> list[str]:
    train = setting.train
    micro = micro_batch_size(train, setting.processes)
    accumulated = max(train.batch_size // (micro * setting.processes), 1)
    a_epoch = max(math.ceil(math.ceil(sizes.rows / (micro * setting.processes)) / accumulated), 1)
    steps = train.max_steps or math.ceil(train.epochs * a_epoch)
    lines = [f"{sizes.rows:,} rows an epoch, {steps:,} steps of {train.batch_size} rows ({steps / a_epoch:.3g} epochs)"]
    if sizes.costs is not None and len(sizes.costs):
        passes, tokens = forward_passes(sizes, setting)
        lines.append(
            f"longest row: {int(sizes.costs.max()):,} tokens; {float(sizes.costs.mean()) * train.batch_size:,.0f} a "
            f"step; at most {counted(passes, 'forward pass', 'forward passes')} of up to {tokens:,}"
        )
    if workspace.task.encodes_with_weights:
        lines.append("images are counted, and not looked at")
    return lines


Change = Callable[[Setting], Setting]


def _advice(run: Run, workspace: Workspace, shapes: Shapes, sizes: RowSizes, setting: Setting, room: int) -> list[str]:
    """What each change alone would need, then the first ones together that fit."""
    longest = 0 if sizes.costs is None else int(sizes.costs.max())

    def training(**changes: Any) -> Change:
        return lambda old: replace(old, train=replace(old.train, **changes))

    changes: dict[str, Change] = {}
    if longest and setting.train.tokens_per_batch != longest:
        changes[f"train.tokens_per_batch: {longest}"] = training(tokens_per_batch=longest)
    if longest and not setting.train.gradient_checkpointing:
        changes["train.gradient_checkpointing: true"] = training(gradient_checkpointing=True)
    if not setting.model.lora_rank:
        words = f"model.lora_rank: {_ADAPTER_RANK}, model.precision: bf16"
        adapter = {"train": "lora", "lora_rank": _ADAPTER_RANK, "precision": "bf16"}
        changes[words] = lambda old: replace(old, model=replace(old.model.start, **adapter))
    for count in (8, 64):
        if setting.processes < count:
            changes[f"sharding over {count} processes (FSDP or DeepSpeed, docs/scaling.md)"] = (
                lambda old, n=count: replace(old, processes=n, sharded=True,
                                             train=replace(old.train, batch_size=max(old.train.batch_size, n)))
            )  # fmt: skip
    known = {setting.model: shapes}

    def needed(new: Setting) -> int:
        if new.model not in known:
            known[new.model] = shapes_of(run, workspace, new.model) or shapes
        return plan(known[new.model], sizes, new).peak

    lines: list[str] = []
    for words, change in changes.items():
        peak = needed(change(setting))
        lines.append(f"  {words}: {told_bytes(peak)}{', which fits' if peak <= room else ''}")
    together, so_far, peak = list[str](), setting, 0
    for words, change in changes.items():
        so_far = change(so_far)
        together.append(words)
        peak = needed(so_far)
        if peak <= room:
            return [*lines, f"  together, {'; '.join(together)}: {told_bytes(peak)}, which fits"]
    return [*lines, f"  all of it together: {told_bytes(peak)}, which does not fit"] if changes else lines
