"""The kind of model in a folder or hub id, from its configuration only, without reading weights."""

from typing import Any

from popmargin.errors import RunError
from popmargin.models.adapter_files import ADAPTER_CONFIG, find_adapter
from popmargin.models.path import resolve_path
from popmargin.models.refusals import FAILURES, reason
from popmargin.safe_reading import read_json


def is_classifier(path: str) -> bool:
    """Whether a model was saved as a sequence classifier, as reward models are; otherwise it is a language model.

    Args:
        path: folder, hub id or `demo`; for an adapter, what it was trained as.

    Raises:
        RunError: there is no such model.
    """
    from transformers import AutoConfig

    adapter = find_adapter(path)
    if adapter is not None:
        settings = read_json(adapter.weights.parent / ADAPTER_CONFIG)
        return settings.get("task_type") == "SEQ_CLS"
    try:
        config: Any = AutoConfig.from_pretrained(resolve_path(path), trust_remote_code=False)
    except FAILURES as error:
        raise RunError(f"Cannot read the configuration of '{path}': {reason(error)}") from error
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
