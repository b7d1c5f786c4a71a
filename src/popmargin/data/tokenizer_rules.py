"""Everything in a tokenizer that decides how texts become token ids."""

import json
from typing import Any

from popmargin.files import digest


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Fingerprint of everything in a tokenizer that decides how texts and conversations become ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules: Any = sorted(tokenizer.get_vocab().items())
    if backend is not None:
        rules = json.loads(backend.to_str())
        rules = {
            key: value for key, value in rules.items() if key not in ("truncation", "padding")
        }  # left from the last call
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    parts = [rules, special, tokenizer.chat_template]
    return digest(*(json.dumps(part, sort_keys=True, default=str).encode() for part in parts))
