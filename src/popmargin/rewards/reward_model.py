"""A reward model: a sequence classifier with one output."""

import warnings
from pathlib import Path
from typing import Any

import torch

from popmargin.data.cut_tokens import cut_to_length, split_sequences
from popmargin.data.encode import Encoder, make_encoder, write_chat
from popmargin.errors import ConfigError, RunError, counted
from popmargin.models.loading import load_tokenizer_files
from popmargin.models.path import resolve_path
from popmargin.models.reward_models import FORMAT_FILE, RewardFormat, load_classifier
from popmargin.rewards.base import Prompt, check_rows, checked_rewards


class ModelReward:
    """Scores a prompt and its completion with AutoModelForSequenceClassification.

    Conversations are formatted with the tokenizer's chat template, the completion as the assistant's turn; plain
    prompts are followed by the completion. Texts over `max_length` lose tokens at the start of the prompt, and are
    counted.

    A model made by `popmargin train` (task: reward) reads exactly the tokens it was trained on: the completion up to
    its end token, nothing after it. Longer texts are cut as in training (`data.truncation`; rows dropped there as too
    long are cut as by keep_prompt_end), each by its own completion.

    Args:
        path: folder (or hub id) of the model and its tokenizer, weights in safetensors.
        batch_size: texts in one forward pass; the rewards do not depend on it. 1 if the model has no padding token.
        max_length: tokens; None for the tokenizer's own limit, or the limit with which popmargin trained the model.
        device: of the model.
        dtype: of the weights.

    Raises:
        ConfigError: nothing can be loaded from the path, the model has several outputs, or its head is untrained.
    """

    def __init__(
        self,
        path: str,
        *,
        batch_size: int = 16,
        max_length: int | None = None,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        if (Path(path) / "model" / FORMAT_FILE).is_file():
            raise ConfigError(f"{path} is a run directory; its reward model is model:{Path(path) / 'model'}.")
        if batch_size < 1:
            raise ConfigError(f"batch_size of reward model {path} is {batch_size}; give at least 1.")
        try:
            place = resolve_path(path)
            tokenizer = load_tokenizer_files(path)
            model, info = load_classifier(path, getattr(torch, dtype), "a sequence classifier")
        except RunError as error:
            raise ConfigError(f"Reward model {path} does not load as a sequence classifier: {error}") from error
        if info["missing_keys"]:
            missing = ", ".join(sorted(info["missing_keys"])[:3])
            raise ConfigError(
                f"Reward model {path} has no weights for {missing}: it is not a trained reward model, and its scores "
                f"would be random. Use a model trained for sequence classification."
            )
        if model.config.num_labels != 1:
            raise ConfigError(
                f"Reward model {path} has {model.config.num_labels} outputs; a reward model must have one."
            )
        # The classifier reads its score at the last token that is not padding. A made-up padding token (such as the
        # end token) would move that position in texts that end with it: without one, texts are scored one at a time.
        if tokenizer.pad_token_id is not None:
            model.config.pad_token_id = tokenizer.pad_token_id
        self._padding: int | None = model.config.pad_token_id
        self._path = path
        self._tokenizer = tokenizer
        self._model = model.to(device).eval()
        self._batch_size = batch_size if self._padding is not None else 1
        known = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or 10**9)
        self._format = RewardFormat.load(Path(place))
        trained = known if self._format is None else min(known, self._format.max_length)
        self._max_length = trained if max_length is None else max_length
        self._encoders: dict[bool, Encoder] = {}
        self.truncated = 0
        self._scored = self._cut = 0

    def score(self, prompts: list[Prompt], completions: list[str]) -> list[float]:
        """One reward per completion.

        Raises:
            RunError: a reward is not finite.
        """
        check_rows(prompts, completions)
        read = self._foreign if self._format is None else self._own
        fitted = [read(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]
        rows, cut = [row for row, _ in fitted], sum(shorter for _, shorter in fitted)
        self._scored, self._cut = self._scored + len(rows), self._cut + cut
        if cut:
            self.truncated += cut
            warnings.warn(
                f"{cut} of {counted(len(rows), 'text')} are longer than the reward model's "
                f"{counted(self._max_length, 'token')}; they {self._how_cut}.",
                stacklevel=2,
            )
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        rewards = [0.0] * len(rows)
        for start in range(0, len(order), self._batch_size):
            chunk = order[start : start + self._batch_size]
            width = len(rows[chunk[-1]])
            tokens = torch.full((len(chunk), width), self._padding or 0)
            mask = torch.zeros((len(chunk), width), dtype=torch.long)
            for place, i in enumerate(chunk):
                tokens[place, : len(rows[i])] = torch.tensor(rows[i])
                mask[place, : len(rows[i])] = 1
            with torch.no_grad():
                device = self._model.device
                logits = self._model(input_ids=tokens.to(device), attention_mask=mask.to(device)).logits
            for i, value in zip(chunk, logits[:, 0].float().tolist(), strict=True):
                rewards[i] = value
        return checked_rewards(rewards, len(rows), f"model:{self._path}")

    @property
    def _how_cut(self) -> str:
        return "lost tokens at the start" if self._format is None else "were truncated as in training"

    def take_notes(self) -> list[str]:
        """Number of texts cut since the last call."""
        scored, cut = self._scored, self._cut
        self._scored = self._cut = 0
        what = (
            f"texts over the {counted(self._max_length, 'token')} of reward model {self._path}, which {self._how_cut}"
        )
        return [f"{what}: {cut} of {scored}"] if cut else []

    def _own(self, prompt: Prompt, completion: str) -> tuple[list[int], bool]:
        """The tokens that our own model reads of a text, as in its training, and whether some were cut."""
        assert self._format is not None
        chat = not isinstance(prompt, str)
        if chat not in self._encoders:
            self._encoders[chat] = make_encoder(self._tokenizer, conversational=chat, writing=self._format.writing)
        encoder, written = self._encoders[chat], [{"role": "assistant", "content": completion}] if chat else completion
        alone, wholes = encoder.prompts([prompt], 0)[0], encoder.wholes([prompt], [written], 0)
        before, (after,), _ = split_sequences(alone, wholes, encoder)
        keep_end = self._format.truncation != "keep_prompt_start"
        kept, (ending,) = cut_to_length(before, [after], self._max_length, keep_end, encoder.bos)
        return [*kept, *ending], len(kept) + len(ending) < len(before) + len(after)

    def _foreign(self, prompt: Prompt, completion: str) -> tuple[list[int], bool]:
        """The tokens that another model reads: the end of the text, and whether some were cut."""
        row = self._tokens(prompt, completion)
        return row[-self._max_length :], len(row) > self._max_length

    def _tokens(self, prompt: Prompt, completion: str) -> list[int]:
        if isinstance(prompt, str):
            return list(self._tokenizer(prompt + completion)["input_ids"])
        if self._tokenizer.chat_template is None:
            raise ConfigError(
                f"The prompts are conversations, but the tokenizer of reward model {self._path} has no chat template. "
                "Add one, or use plain prompts."
            )
        turns: list[Any] = [*prompt, {"role": "assistant", "content": completion}]
        text = write_chat(self._tokenizer, turns)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
