"""Which model a user names: the demo's, a folder, or one on the hub, where paths are not looked up."""

import importlib
import re
from pathlib import Path

from popmargin.config_names import EMBEDDED, nearly_embedded
from popmargin.errors import RunError
from popmargin.files import no_such_file
from popmargin.listed_files import refuse_changed
from popmargin.models.demo_model import demo_model_path

_BASES = {
    "demo-digits": ("popmargin.demo.images.digit_base", "digits_base_path"),
    "demo-emoji": ("popmargin.demo.images.emoji_base", "emoji_base_path"),
}
_NAMES = "demo, demo-digits or demo-emoji"
LORA_WEIGHTS = "pytorch_lora_weights.safetensors"
"""The name under which diffusers looks for LoRA weights."""
HUB = "https://huggingface.co/"
_SUFFIXES = re.compile(
    r"\.(safetensors|bin|gguf|pt|pth|ckpt|onnx|h5|jsonl?|ya?ml|csv|tsv|parquet|txt|zip|tar|gz|xlsx|py)", re.IGNORECASE
)
_FOLDERS = re.compile(
    r"(saved_)?models?|checkpoints?|ckpts?|runs?|outputs?|out|results?|data|datasets|spaces|weights|saved|trained|tmp|home|"
    r"mnt|workspace",
    re.IGNORECASE,
)
"""First parts of a path that are unlikely to be an owner on the hub."""


_MODEL_FILES = ("config.json", "model_index.json", "adapter_config.json", "tokenizer_config.json", "tokenizer.json",
                "items.json")  # fmt: skip


def looks_like_path(name: str) -> bool:
    """Whether a name can only mean a file or folder: hub ids are `name` or `owner/name`.

    Example:
        >>> [looks_like_path(name) for name in ("./nomodel", "models/foo", "model.safetensors", "Qwen/Qwen2.5-0.5B")]
        [True, True, True, False]
    """
    parts = name.split("/")
    return (
        name.startswith((".", "/", "~"))
        or "\\" in name
        or name.endswith("/")
        or len(parts) > 2
        or (len(parts) == 2 and _FOLDERS.fullmatch(parts[0]) is not None)
        or _SUFFIXES.fullmatch(Path(name).suffix) is not None
    )


def resolve_path(path: str) -> str:
    """What transformers should load: a folder, or the id of a model on the hub.

    Args:
        path: an embedded model (`demo`, `demo-digits`, `demo-emoji`), a folder (`~` is the home folder), a hub id, or
            its address on the hub, which cannot mean a folder.

    Raises:
        RunError: it looks like a path or a misspelt embedded model, or its first part is a folder here, but there is no
            model folder; the hub is not queried. Or the folder lists its files, and one is not as it was written.
    """
    if path == "demo":
        return str(demo_model_path())
    if path in EMBEDDED:  # made by the demo, which lies above
        module, function = _BASES[path]
        return str(getattr(importlib.import_module(module), function)())
    if path.startswith(HUB):
        return "/".join(path.removeprefix(HUB).strip("/").split("/")[:2])
    if not path.strip():
        raise RunError(f"The model is empty. Give a folder, a hub id, {_NAMES}.")
    folder = Path(path).expanduser()
    if folder.is_dir():
        _refuse_a_folder_without_model(path, folder)
        refuse_changed(folder, remedy="Copy the folder again, or train again.")
        return str(folder)
    if folder.is_file():
        raise RunError(f"{path} is a file. Give the folder that contains the model: {folder.parent}")
    if looks_like_path(path) or ("/" in path and Path(Path(path).parts[0]).is_dir()):
        hub = f" (For a model on the hub: {HUB}{path})" if path.count("/") == 1 and path[0].isalnum() else ""
        raise RunError(f"{no_such_file(path, what='folder or model')} Give a model folder, a hub id, {_NAMES}.{hub}")
    if near := nearly_embedded(path):
        raise RunError(f"There is no model '{path}'. Did you mean '{near}'? (For a model on the hub: {HUB}{path})")
    return path


def _refuse_a_folder_without_model(path: str, folder: Path) -> None:
    if any((folder / name).is_file() for name in _MODEL_FILES):
        return
    if any((place / LORA_WEIGHTS).is_file() for place in (folder, folder / "model")):
        raise RunError(
            f"{path} has the LoRA weights of a text-to-image model, without the model. Merge them into the model that "
            "they were trained on, and start from that folder: pipe = DiffusionPipeline.from_pretrained(MODEL); "
            "pipe.load_lora_weights(FOLDER); pipe.fuse_lora(); pipe.unload_lora_weights(); pipe.save_pretrained(NEW)"
        )
    kinds = ("config.json", "model_index.json", "adapter_config.json")
    inside = [config.parent for kind in kinds for config in sorted(folder.glob(f"*/{kind}"))]
    hint = f" Did you mean {inside[0]}?" if inside else " Give the folder that save_pretrained wrote."
    raise RunError(f"{path} does not contain a model: it has no config.json or model_index.json.{hint}")


def check_models(*names: str | None) -> None:
    """Refuse mistyped folders of models before anything else takes time; None passes.

    Args:
        names: as `resolve_path` takes them.

    Raises:
        RunError: one looks like a path, but there is no model folder.
    """
    for name in names:
        if name is not None and name not in EMBEDDED:
            resolve_path(name)
