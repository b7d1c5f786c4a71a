"""torch.compile for the parts of a model that are made of element-wise passes: norms and feed-forward blocks.

The model as a whole is not compiled: packed rows have different segments in every step, and each would be recompiled.
These parts depend only on a row's number of tokens, so they are compiled once.
"""

from torch import nn

from popmargin.errors import ConfigError

_PARTS = ("Norm", "MLP")  # ends of class names


def compile_layers(model: nn.Module) -> int:
    """Compile a model's norms and feed-forward blocks in place; weights, names and saved files stay as they are.

    Returns:
        How many modules were compiled.

    Raises:
        ConfigError: it has no modules of a known kind.
    """
    parts = [module for module in model.modules() if type(module).__name__.endswith(_PARTS)]
    if not parts:
        raise ConfigError(
            f"train.compile: {type(model).__name__} has no modules whose class name ends in Norm or MLP. Turn it off."
        )
    for module in parts:
        module.compile(dynamic=True)
    return len(parts)
