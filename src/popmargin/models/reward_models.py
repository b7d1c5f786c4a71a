"""Reward models as transformers' sequence classifiers: starting them, training part of them, and saving them."""

import contextlib
import copy
import json
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from popmargin.config import ModelConfig
from popmargin.data.encode import Writing
from popmargin.data.tokenize import TRUNCATIONS, Truncation
from popmargin.engine.frozen import decoder_layers
from popmargin.engine.rewards import HEAD
from popmargin.errors import ConfigError, RunError
from popmargin.models.loading import load_pretrained
from popmargin.models.lora import add_adapter
from popmargin.models.path import resolve_path
from popmargin.models.policies import device, lora_config
from popmargin.models.refusals import reason
from popmargin.models.reward_heads import initialise_head, read_head
from popmargin.models.shared_weights import shared_copy
from popmargin.safe_reading import read_json

FORMAT_FILE = "popmargin_reward.json"
_KNOWN = {"truncation": TRUNCATIONS, "prompt": ("template", "sampling"), "reasoning": ("template", "keep")}


@dataclass(frozen=True, kw_only=True)
class RewardFormat:
    """How a reward model's training texts were formatted; stored next to its weights.

    Attributes:
        max_length: longest prompt + completion in training, tokens.
        truncation: what was cut in longer ones; models saved without it have the default.
        prompt, reasoning: how conversations became prompt and completion (`Writing`); likewise.
        head_hidden: width of a hidden layer in its head; 0 for a linear head, as in models saved without it.
    """

    max_length: int
    truncation: Truncation = "keep_prompt_end"
    prompt: Literal["template", "sampling"] = "template"
    reasoning: Literal["template", "keep"] = "template"
    head_hidden: int = 0

    @property
    def writing(self) -> Writing:
        """How conversations become prompt and completion."""
        return Writing(self.prompt, self.reasoning)

    def save(self, folder: Path) -> None:
        """Write this into a model folder."""
        written = {name: value for name, value in asdict(self).items() if name != "head_hidden" or value}
        (folder / FORMAT_FILE).write_text(json.dumps(written) + "\n", encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> "RewardFormat | None":
        """Read it from a model folder; None for a model that was not trained here.

        Raises:
            RunError: the file is damaged.
        """
        file = folder / FORMAT_FILE
        if not file.is_file():
            return None
        try:
            saved = read_json(file)
            for name, known in _KNOWN.items():
                if name in saved and saved[name] not in known:
                    raise ValueError(f"{name} is {saved[name]!r}")
            numbers = {"max_length": int(saved["max_length"]), "head_hidden": int(saved.get("head_hidden", 0))}
            return RewardFormat(**saved | numbers)
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{file} is damaged ({reason(error)}). Copy the model folder again.") from error


def padding_apart(tokenizer: Any) -> Any:
    """The tokenizer with a padding token that does not end responses.

    A classifier reads its head at the last non-padding token. If the padding token is also the end token, that would be
    the token before the end; another special token is used instead, if there is one.
    """
    ends = {tokenizer.eos_token, tokenizer.bos_token, None}
    if tokenizer.pad_token in ends:
        special = [str(token) for _, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]
        spare = [token for token in (tokenizer.unk_token, *special) if token not in ends]
        padding = [token for token in spare if "pad" in token.lower()]
        tokenizer.pad_token = [*padding, *spare, tokenizer.pad_token][0]
    return tokenizer


@contextlib.contextmanager
def _no_loading_report() -> Generator[None]:
    """Without transformers' list of weights that were not found."""
    from transformers.utils import logging

    shown = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(shown)


def load_classifier(path: str, dtype: torch.dtype, what: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A sequence classifier from a folder or hub id, with the head that it was saved with.

    Args:
        path: of the model.
        dtype: of the weights.
        what: it should be, for messages.
        options: further ones of `load_pretrained`.

    Returns:
        The model and transformers' loading info, as `load_pretrained`.

    Raises:
        RunError: it cannot be loaded.
    """
    from transformers import AutoModelForSequenceClassification

    folder = Path(resolve_path(path))
    saved = RewardFormat.load(folder)
    if saved is None or not saved.head_hidden:
        return load_pretrained(AutoModelForSequenceClassification, path, what, dtype=dtype, **options)
    with _no_loading_report():  # transformers knows linear heads only
        model, info = load_pretrained(
            AutoModelForSequenceClassification, path, what, dtype=dtype, **options | {"ignore_mismatched_sizes": True}
        )
    read_head(model, folder, saved.head_hidden)
    model.get_submodule(HEAD).to(dtype)
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    return model, info | {kind: {entry for entry in info[kind] if not _of_head(entry)} for kind in kinds}


def _of_head(entry: str | tuple[Any, ...]) -> bool:
    """Whether an entry of the loading info, a name or a name with shapes, is about the head."""
    return str(entry if isinstance(entry, str) else entry[0]).startswith(f"{HEAD}.")


def load_reward_model(
    path: str, dtype: torch.dtype, pad_id: int, *, dropout: bool = False, place: torch.device | None = None
) -> Any:
    """A reward model from a folder or hub id; an untrained head is all zeros.

    Args:
        path: a causal language model, or a sequence classifier with one output.
        dtype: of the weights; the head is in fp32.
        pad_id: the tokenizer's padding token.
        dropout: keep the dropout of the model's own configuration on in training.
        place: where it is put; None for the default accelerator.

    Raises:
        RunError: it cannot be loaded, or transformers has no classifier of this kind that reads the last token.
    """
    with _no_loading_report():  # the run's summary reports the untrained head
        model, info = load_classifier(
            path, dtype, "a reward model", dropout=dropout, num_labels=1, ignore_mismatched_sizes=True
        )
    head = dict(model.named_children()).get(HEAD)
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(f"{HEAD}."))
    if missing or not isinstance(head, nn.Linear):
        what = f"no weights for {missing[0]}" if isinstance(head, nn.Linear) else f"no linear head '{HEAD}'"
        raise RunError(f"Cannot make a reward model from '{path}': {type(model).__name__} has {what}. Use a decoder.")
    if info["mismatched_keys"]:
        name, found, needed = min(info["mismatched_keys"])
        what = f"{name} of shape {tuple(found)} in its weights but {tuple(needed)} in its configuration"
        if name.startswith(f"{HEAD}."):
            what = f"{found[0]} outputs (num_labels), but a reward model has 1"
        raise RunError(f"Cannot make a reward model from '{path}': it has {what}. Use another model.")
    head.float()
    if info["missing_keys"]:
        nn.init.zeros_(head.weight)
    model.config.get_text_config().pad_token_id = model.config.pad_token_id = pad_id
    return model.to(place or device())


def make_reward_model(start: nn.Module, config: ModelConfig, *, own: Any = None) -> Any:
    """A reward model to train: all weights of a copy of the start model, its last layers, or a LoRA adapter around
    them, and the head.

    An untrained head is drawn from torch's random numbers, like the model's own linear layers.

    Args:
        start: the start model, whose weights stay as they are; those under an adapter are not copied.
        config: what of it is trained.
        own: as in `make_policy`.

    Raises:
        ConfigError: settings that do not fit the model.
    """
    model: Any = own
    if own is None:
        model = shared_copy(start, apart=start.get_submodule(HEAD)) if config.lora_rank else copy.deepcopy(start)
    initialise_head(model)
    if config.lora_rank:
        return add_adapter(model, lora_config(model, config, head=model.get_submodule(HEAD), task_type="SEQ_CLS"))
    model.requires_grad_(True)
    return model if config.last_layers is None else train_last(model, config.last_layers)


def train_last(model: Any, count: int) -> Any:
    """A reward model of which only the last layers, what is above them, and the head are trained.

    Raises:
        ConfigError: it has fewer layers, or they cannot be found.
    """
    layers = decoder_layers(model)
    if count > len(layers):
        found = f"the model has {len(layers)}" if layers else f"those of {type(model).__name__} cannot be found"
        raise ConfigError(f"model.last_layers is {count}, but {found}. Lower it, or set model.train to full or head.")
    parts = list(model.base_model.children())
    stack = next(place for place, part in enumerate(parts) if layers[0] in list(part.children()))
    model.requires_grad_(False)
    for part in (*layers[len(layers) - count :], *parts[stack + 1 :], model.get_submodule(HEAD)):
        part.requires_grad_(True)
    return model
