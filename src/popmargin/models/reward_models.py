"""Reward models as transformers' sequence classifiers: starting them, training part of them, and saving them."""

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from popmargin.config import ModelConfig
from popmargin.data.encode import Writing
from popmargin.data.tokenize import TRUNCATIONS, Truncation
from popmargin.engine.rewards import HEAD
from popmargin.errors import RunError
from popmargin.models.loading import load_pretrained
from popmargin.models.lora import add_adapter
from popmargin.models.policies import device, lora_config
from popmargin.models.refusals import reason
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
    """

    max_length: int
    truncation: Truncation = "keep_prompt_end"
    prompt: Literal["template", "sampling"] = "template"
    reasoning: Literal["template", "keep"] = "template"

    @property
    def writing(self) -> Writing:
        """How conversations become prompt and completion."""
        return Writing(self.prompt, self.reasoning)

    def save(self, folder: Path) -> None:
        """Write this into a model folder."""
        (folder / FORMAT_FILE).write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

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
            return RewardFormat(**saved | {"max_length": int(saved["max_length"])})
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
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    shown = logging.get_verbosity()
    logging.set_verbosity_error()  # the run's summary reports the untrained head
    try:
        model, info = load_pretrained(
            AutoModelForSequenceClassification, path, "a reward model", dtype=dtype, dropout=dropout, num_labels=1,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    finally:
        logging.set_verbosity(shown)
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
    """A reward model to train: all weights of a copy of the start model, or a LoRA adapter around them, and the head.

    An untrained head is drawn from torch's random numbers, like the model's own linear layers.

    Args:
        start: the start model, whose weights stay as they are; those under an adapter are not copied.
        config: whether it gets an adapter, and which one.
        own: as in `make_policy`.

    Raises:
        ConfigError: adapter settings that do not fit the model.
    """
    model: Any = own
    if own is None:
        model = shared_copy(start, apart=start.get_submodule(HEAD)) if config.lora_rank else copy.deepcopy(start)
    head = model.get_submodule(HEAD)
    if not head.weight.any():
        # OPT and others have another name for the deviation; most use 0.02.
        nn.init.normal_(head.weight, std=getattr(model.config.get_text_config(), "initializer_range", 0.02))
    if not config.lora_rank:
        return model.requires_grad_(True)
    return add_adapter(model, lora_config(model, config, head=head, task_type="SEQ_CLS"))
