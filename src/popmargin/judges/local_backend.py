"""The backend of a local judge: a language model's next-token probabilities.

Axis suffixes: B prompts of a batch, T tokens.
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from popmargin.engine.reference import model_fingerprint
from popmargin.errors import ConfigError, RunError, counted
from popmargin.generate.answer_cache import AnswerCache, cache_file, request_key
from popmargin.judges.backends import LETTERS
from popmargin.judges.comparing import Reply
from popmargin.judges.labeller import Account


class LocalBackend:
    """A causal language model of transformers: the probabilities of the letters A and B as the answer's first token.

    Only the letters count as answers, so every question gets a verdict. Prompts are right-padded and read at their last
    token, so no prompt sees padding: verdicts do not depend on the batch.

    Args:
        path: folder or hub id of the model and its tokenizer.
        cache: JSONL file of answers, keyed by weights, tokens and parameters; None for one in the user's cache folder.
        batch_size: prompts in one forward pass.
        dtype: of the weights.

    Raises:
        RunError: the model cannot be loaded.
        ConfigError: the tokenizer does not encode A and B as two tokens.
    """

    def __init__(
        self, path: str, *, cache: str | Path | None = None, batch_size: int = 8, dtype: str = "float32"
    ) -> None:
        from popmargin.models.policies import load_model, load_tokenizer

        if batch_size < 1:
            raise ConfigError(f"batch_size of judge {path} is {batch_size}; give at least 1.")
        if dtype not in ("float32", "bfloat16", "float16"):
            raise ConfigError(f"dtype of judge {path} is {dtype!r}; choose float32, bfloat16 or float16.")
        self._path = path
        self._tokenizer = load_tokenizer(path)
        self._letters = [self._tokens_of(letter) for letter in LETTERS]
        self._model = load_model(path, getattr(torch, dtype)).eval()
        self._batch_size = batch_size
        self._cache = AnswerCache(cache_file("verdicts.jsonl") if cache is None else Path(cache))
        self._settings = {"model": model_fingerprint(self._model), "dtype": dtype, "letters": self._letters}
        self._keep = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        limit = getattr(self._model.config, "max_position_embeddings", None) or 10**9
        self._longest = min(limit, self._tokenizer.model_max_length)

    @property
    def name(self) -> str:
        """The last part of the model's path."""
        return Path(self._path).name

    def reply(self, prompts: Sequence[str], account: Account, *, progress: bool = False) -> list[Reply]:
        """Replies to prompts, shortest first to reduce padding.

        Raises:
            RunError: a prompt is longer than the model's context, or probabilities are not finite.
        """
        rows = [self._tokens(prompt) for prompt in prompts]
        keys = [request_key({**self._settings, "tokens": row}) for row in rows]
        wanted = {key: row for key, row in zip(keys, rows, strict=True) if key not in self._cache.answers}
        order = sorted(wanted, key=lambda key: (len(wanted[key]), key))
        for start in tqdm(range(0, len(order), self._batch_size), desc="judge", disable=not progress or not order):
            batch = order[start : start + self._batch_size]
            replies = self._batch([wanted[key] for key in batch])
            self._cache.add_many(zip(batch, replies, strict=True))
        account.asked += len(wanted)
        account.cached += len(rows) - len(wanted)
        account.prompt_tokens += sum(map(len, wanted.values()))
        return [Reply(**self._cache.answers[key]) for key in keys]

    @torch.no_grad()
    def _batch(self, rows: Sequence[list[int]]) -> list[dict[str, Any]]:
        width = max(map(len, rows))
        device = next(self._model.parameters()).device
        tokens_BT = torch.full((len(rows), width), self._tokenizer.pad_token_id or 0)
        mask_BT = torch.zeros_like(tokens_BT)
        for number, row in enumerate(rows):
            tokens_BT[number, : len(row)] = torch.tensor(row)
            mask_BT[number, : len(row)] = 1
        last_B = mask_BT.sum(dim=1) - 1
        kept, place_B = torch.unique(last_B, return_inverse=True)  # logits of whole prompts would fill memory
        options: dict[str, Any] = {"logits_to_keep": kept.to(device)} if self._keep else {}
        logits = self._model(tokens_BT.to(device), attention_mask=mask_BT.to(device), **options).logits
        at_B = (place_B if self._keep else last_B).to(device)
        logps = logits[torch.arange(len(rows), device=device), at_B].double().log_softmax(-1)
        masses = torch.stack([logps[:, letters].logsumexp(-1) for letters in self._letters], dim=1)
        if not torch.isfinite(masses).all():
            raise RunError(f"Judge {self._path} returns non-finite probabilities. Try another dtype.")
        chances = (masses[:, 0] - masses[:, 1]).sigmoid().tolist()
        return [
            {"text": "A" if p > 0.5 else "B", "p": p, "prompt_tokens": len(row), "completion_tokens": 0}
            for p, row in zip(chances, rows, strict=True)
        ]

    def _tokens(self, prompt: str) -> list[int]:
        if self._tokenizer.chat_template is None:
            row = list(self._tokenizer(prompt)["input_ids"])
        else:
            chat = [{"role": "user", "content": prompt}]
            text = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            row = list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        if len(row) > self._longest:
            raise RunError(
                f"A prompt of {counted(len(row), 'token')} exceeds the context of judge {self._path} "
                f"({self._longest}). Use a judge with a longer context, or remove long preferences."
            )
        return row

    def _tokens_of(self, letter: str) -> list[int]:
        """The single tokens that write a letter, with and without a space before it."""
        written = [self._tokenizer.encode(text, add_special_tokens=False) for text in (letter, f" {letter}")]
        single = sorted({tokens[0] for tokens in written if len(tokens) == 1})
        if not single:
            raise ConfigError(f"The tokenizer of judge {self._path} has no single token for '{letter}'.")
        return single
