"""Writing trained weights and reading them back: a run whose saved weights differ from memory has failed."""

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from popmargin.engine.dropout import own_dropout
from popmargin.errors import RunError
from popmargin.models.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from popmargin.models.adapters import START, as_one_adapter, is_stacked
from popmargin.models.quiet import quiet_loading

_LOG = logging.getLogger(__name__)
_INDEX = "model.safetensors.index.json"
_KEPT = 0.9  # share of the training kept: below this, the start model's dtype is too coarse


def write_model(
    model: Any,
    folder: Path,
    state: Mapping[str, Tensor] | None = None,
    *,
    dtype: torch.dtype | None = None,
    own_names: bool = False,
) -> None:
    """Save a model or its adapter with its configuration, and read the weights back.

    Args:
        model: not wrapped for distributed training.
        folder: created if missing.
        state: its gathered weights by name, if they are sharded in the model.
        dtype: of whole models' weights on disk; None keeps that in memory.
        own_names: save weights under their names in memory, which resuming reads, not under those with which such
            models are published.

    Raises:
        RunError: the files differ from the weights in memory.
    """
    if is_stacked(model) and not own_names:
        tensors, config = as_one_adapter(model, model.state_dict() if state is None else state)
        config.save_pretrained(folder)
        save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        _refuse(folder, _difference(tensors, _tensors([folder / ADAPTER_WEIGHTS])))
        return
    if _is_adapter(model):  # `auto` would query the hub
        model.save_pretrained(folder, state_dict=state, selected_adapters=["default"], save_embedding_layers=False)
        refuse_difference(model, folder, state)
        return
    weights = _all_as_saved(model, model.state_dict() if state is None else _tied_again(model, state), dtype)
    with own_dropout(model), quiet_loading():
        model.save_pretrained(folder, state_dict=weights, save_original_format=not own_names)
    if dtype is not None:
        _say_dtype(folder / "config.json", dtype)
    refuse_difference(model, folder, state, dtype=dtype)


def write_state(model: nn.Module, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Save the weights of any module by their names in memory, and read them back.

    Args:
        model: not wrapped for distributed training.
        folder: created if missing.
        state: its gathered weights by name, if they are sharded in the model.

    Raises:
        RunError: the file differs from the weights in memory.
    """
    write_tensors(model.state_dict() if state is None else state, folder / "model.safetensors")


def write_tensors(tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Save tensors in one file, and read them back.

    Args:
        tensors: by name.
        file: its folder is created if missing.
        metadata: of the file.

    Raises:
        RunError: the file differs from them.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, file, {"format": "pt", **(metadata or {})})
    _refuse(file.parent, _difference(tensors, _tensors([file])))


def read_adapter(model: Any, folder: Path) -> None:
    """Load a trained adapter's weights from a checkpoint.

    Raises:
        RunError: the checkpoint has none.
    """
    from peft import set_peft_model_state_dict

    try:
        set_peft_model_state_dict(model, load_file(folder / ADAPTER_WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise RunError(f"{folder} cannot be read ({error}). Delete it to use an earlier one.") from error


def refuse_difference(
    model: Any, folder: Path, state: Mapping[str, Tensor] | None = None, *, dtype: torch.dtype | None = None
) -> None:
    """Check that a folder holds a model's weights: for an adapter the trained ones, otherwise all.

    Raises:
        RunError: a weight is missing, has another value, or is not finite; the message names it.
    """
    try:
        if _is_adapter(model):
            wrong = _difference(_trained(model, state), _tensors([folder / ADAPTER_WEIGHTS]))
        else:
            wrong = _difference_of_whole(model, folder, model.state_dict() if state is None else state, dtype)
    except (OSError, SafetensorError, ValueError) as error:
        wrong = f"its weights cannot be read ({error})"
    _refuse(folder, wrong)


def _refuse(folder: Path, wrong: str | None) -> None:
    if wrong is not None:
        raise RunError(
            f"{folder} differs from the weights in memory: {wrong}. The run does not count as finished. Is the disk "
            "full? If not, please report the start model and the configuration. The run's checkpoints are unchanged."
        )


def refuse_other_base(policy: Any, start: nn.Module, folder: Path, path: str) -> None:
    """Check that an adapter's frozen weights are still the start model's, and that its folder names that model.

    Args:
        policy: an adapter around the weights of the start model, or around a copy of them.
        start: the start model.
        folder: where the adapter was saved.
        path: of the start model, as the user gave it.

    Raises:
        RunError: the adapter would be put on a different model from the one it was trained on.
    """
    if is_stacked(policy):
        path = policy.peft_config[START].base_model_name_or_path
    named = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    if named != path:
        raise RunError(f"{folder / ADAPTER_CONFIG} names the base '{named}', but the adapter was trained on '{path}'.")
    own = {_plain(name): value for name, value in policy.named_parameters()}
    for name, value in start.named_parameters():
        mine = own.get(_plain(name))
        if not isinstance(mine, DTensor) and (mine is None or not _same(mine, value)):
            raise RunError(
                f"'{name}' of the policy has changed from '{path}', and an adapter does not save it. Train all "
                "weights (model.lora_rank: 0)."
            )


def _plain(name: str) -> str:
    return re.sub(r"\.(base_layer\.)+", ".", name.removeprefix("base_model.model."))  # several around packed experts


def dtype_to_save(
    weights: Mapping[str, Tensor], start: nn.Module, stored: torch.dtype, wanted: torch.dtype | None
) -> tuple[torch.dtype, float]:
    """In which dtype trained weights are saved, and how much of the training it keeps.

    If training changed a bf16 start model only a little, rounding may restore it: near 0.1, bf16 cannot represent
    differences below 0.0005.

    Args:
        weights: trained, by name.
        start: the start model, before training.
        stored: the dtype of its files.
        wanted: the user's choice; None for the start model's, or fp32 if that would undo a tenth of the training.

    Returns:
        The dtype, and ⟨saved − start, trained − start⟩ / ‖trained − start‖²: 1 keeps all, 0 saves the start model.
    """
    dtype = wanted or stored
    if dtype == torch.float32:
        return dtype, 1.0
    kept = total = 0.0
    for name, before in start.state_dict().items():
        after = weights.get(name)
        if after is None or not after.is_floating_point() or not before.any():  # nothing to lose, or an untrained head
            continue
        old, new = before.float(), after.to(before.device).float()
        change, saved = new - old, _as_saved(start, name, new, dtype).to(before.device).float()
        total += float(change.square().sum(dtype=torch.float64))
        kept += float(((saved - old) * change).sum(dtype=torch.float64))
    share = kept / total if total else 1.0
    return (dtype, share) if wanted is not None or share >= _KEPT else (torch.float32, 1.0)


def choose_dtype(
    weights: Mapping[str, Tensor], start: Callable[[], nn.Module], stored: torch.dtype, wanted: str
) -> tuple[torch.dtype, float]:
    """As `dtype_to_save`, for a run's `model.save_dtype`; the log says where it keeps more or less than expected.

    The start model is asked for only where fp32 is not certain.
    """
    choice = {"start": None, "fp32": torch.float32, "bf16": torch.bfloat16}[wanted]
    if (choice or stored) == torch.float32:
        return torch.float32, 1.0
    dtype, kept = dtype_to_save(weights, start(), stored, choice)
    if choice is None and dtype != stored:
        _LOG.warning(
            "The weights are saved in fp32: %s, the start model's dtype, would round much of the training away. "
            "To use it anyway, set model.save_dtype.",
            str(stored).removeprefix("torch."),
        )
    elif kept < _KEPT:
        _LOG.warning("Rounding to model.save_dtype keeps %.0f%% of the training.", 100 * kept)
    return dtype, kept


def round_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Round weights in memory to another dtype, so that evaluation measures what was saved."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_as_saved(model, name, parameter, dtype))


def _is_adapter(model: Any) -> bool:
    from peft import PeftModel

    return isinstance(model, PeftModel)


def _as_saved(model: Any, name: str, value: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A weight as it is saved: in this dtype, unless the model always keeps it in fp32."""
    if dtype is None or not value.is_floating_point() or value.dtype == dtype or _keeps_fp32(model, name, dtype):
        return value
    return value.to("cpu", dtype)


def _keeps_fp32(model: Any, name: str, dtype: torch.dtype) -> bool:
    kinds = {torch.float16: ("", "_strict"), torch.bfloat16: ("_strict",)}.get(dtype, ())
    parts = [part for kind in kinds for part in getattr(model, f"_keep_in_fp32_modules{kind}", None) or ()]
    return any(re.search(part, name) for part in parts)  # as transformers does


def _all_as_saved(model: Any, state: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Weights as they are saved; tied ones stay one tensor, saved once."""
    done: dict[tuple[int, torch.Size], Tensor] = {}
    return {n: done.setdefault((v.data_ptr(), v.shape), _as_saved(model, n, v, dtype)) for n, v in state.items()}


def _tied_again(model: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gathered weights, of which those that are tied in the model are one tensor: they were gathered one by one."""
    names: dict[int, str] = {}
    first = {name: names.setdefault(id(value), name) for name, value in model.named_parameters(remove_duplicate=False)}
    return {name: state[first.get(name, name)] for name in state}


def _say_dtype(file: Path, dtype: torch.dtype) -> None:
    """transformers writes the dtype in memory into the configuration, whatever dtype it saves."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["dtype"] = str(dtype).removeprefix("torch.")
    file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _trained(model: Any, state: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """All trained weights, by their names in an adapter's file."""
    values = {name: value for name, value in model.named_parameters() if value.requires_grad}
    found = {name: value if state is None else state[name] for name, value in values.items()}
    return {re.sub(r"\.(modules_to_save\.)?default(?=\.|$)", "", name): value for name, value in found.items()}


def _difference_of_whole(
    model: Any, folder: Path, expected: Mapping[str, Tensor], dtype: torch.dtype | None
) -> str | None:
    index = folder / _INDEX
    names = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    files = [folder / name for name in sorted(names)]
    tied: dict[str, str] = dict(getattr(model, "all_tied_weights_keys", None) or {})
    ignored: list[str] = list(getattr(model, "_keys_to_ignore_on_save", None) or [])
    unsaved = set(ignored) - dict(model.named_parameters()).keys()
    expected = {name: value for name, value in expected.items() if name not in unsaved}
    written = {name for file in files for name in _names(file)}

    def as_saved(name: str, value: Tensor) -> Tensor:
        return _as_saved(model, name, value, dtype)

    if written <= expected.keys():
        return _difference(expected, _tensors(files), tied, as_saved)
    # Published under other names: only the code that reads them knows.
    with quiet_loading():
        again = type(model).from_pretrained(folder, dtype=dtype or model.dtype, use_safetensors=True)
    return _difference(expected, again.state_dict().items(), {}, as_saved)


def _difference(
    expected: Mapping[str, Tensor],
    saved: Iterable[tuple[str, Tensor]],
    tied: Mapping[str, str] = {},
    as_saved: Callable[[str, Tensor], Tensor] = lambda _, value: value,
) -> str | None:
    """What is wrong with saved weights; None if they are the expected ones. A tied weight may replace its twin."""
    seen: set[str] = set()
    for name, value in saved:
        seen.add(name)
        if name not in expected:
            return f"'{name}' is in the file but not in the model"
        mine = as_saved(name, expected[name].detach())
        if not _same(mine, value):
            finite = not value.is_floating_point() or bool(torch.isfinite(value).all())
            return f"'{name}' has a different value in the file" if finite else f"'{name}' has non-finite values"
    twins = {**{source: name for name, source in tied.items()}, **tied}
    for name in sorted(set(expected) - seen):
        twin = twins.get(name)
        if twin is None or twin not in seen:
            return f"'{name}' is missing in the file"
        if not _same(expected[name], expected[twin]):
            return f"'{name}' is tied to '{twin}' in the configuration but has different values"
    return None


def _same(one: Tensor, other: Tensor) -> bool:
    one, other = one.detach(), other.detach()
    return one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())


def _names(file: Path) -> list[str]:
    with safe_open(file, "pt") as tensors:
        return list(tensors.keys())


def _tensors(files: Iterable[Path]) -> Iterator[tuple[str, Tensor]]:
    for file in files:
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                yield name, tensors.get_tensor(name)
