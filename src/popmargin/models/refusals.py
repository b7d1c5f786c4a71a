"""Why a model is not loaded: it fails, or is refused because it could run code."""

from pathlib import Path

from safetensors import SafetensorError

from popmargin.errors import RunError

FAILURES = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError)
"""What transformers and safetensors raise for files that they cannot load."""

_PICKLES = (
    "pytorch_model*.bin",
    "adapter_model.bin",
    "model*.bin",
    "diffusion_pytorch_model*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
)


def reason(error: Exception) -> str:
    """The first line of an error's message, or a remedy for deliberate refusals."""
    text = str(error).strip()
    if "trust_remote_code" in text:
        return (
            "it needs its own code (auto_map), which popmargin never runs. Use a model that transformers has a class "
            "for"
        )
    if "safetensors" in text and "does not appear to have a file" in text:
        return f"it has no safetensors weights, and pickled ones can run code. {_REMEDY}"
    return text.partition("\n")[0]


_REMEDY = (
    "Convert them once in a safe place, with transformers: AutoModelForCausalLM.from_pretrained(OLD)"
    ".save_pretrained(NEW)"
)


def refuse_pickles(folder: str, path: str) -> None:
    """Refuse a folder whose only weights are pickles.

    Raises:
        RunError: they are.
    """
    found = [file.name for pattern in _PICKLES for file in sorted(Path(folder).glob(pattern))]
    if found and not any(Path(folder).glob("*.safetensors")):
        raise RunError(f"The weights of '{path}' are a pickle ({found[0]}), which can run code when read. {_REMEDY}.")
