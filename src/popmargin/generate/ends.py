"""The tokens that end a completion: one rule for training, sampling and saving."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from popmargin.data.template import template_ends


def end_tokens(tokenizer: Any, generation_config: Any, trained: Iterable[int] = ()) -> list[int]:
    """Ids of the tokens that end a completion, in ascending order; empty if nothing does.

    These are EOS, the token with which the chat template closes an assistant turn, those with which training
    completions end, and those in the start model's own generation config.

    Args:
        tokenizer: of the start model.
        generation_config: the start model's.
        trained: ids of the last tokens of trained completions.
    """
    configured = getattr(generation_config, "eos_token_id", None)
    named = configured if isinstance(configured, list) else [configured]
    found = {tokenizer.eos_token_id, *named, *template_ends(tokenizer), *trained}
    return sorted(int(token) for token in found if token is not None)


def save_ends(folder: Path, model: Any, ends: list[int], pad_id: int) -> None:
    """Write the end tokens into a saved model's generation_config.json, so that other programs stop where training did.

    Args:
        folder: of the saved model, or of its adapter.
        model: its own generation config supplies the rest of the file if saving has not written one, as for adapters.
        ends: as `end_tokens` gives them.
        pad_id: id of the padding token.
    """
    file = folder / "generation_config.json"
    text = file.read_text(encoding="utf-8") if file.is_file() else model.generation_config.to_json_string()
    settings = json.loads(text)
    settings.pop("_from_model_config", None)  # it is no longer a copy of config.json
    settings |= {"pad_token_id": pad_id, **({"eos_token_id": ends} if ends else {})}
    file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
