"""torch.compile for the parts of a model that are made of element-wise passes: norms and feed-forward blocks.

The model as a whole is not compiled: packed rows have other segments in every step, and each would be compiled anew.
These parts see a row only as its number of tokens, so that they are compiled once.
"""

from torch import nn

from popmargin.errors import ConfigError

_PARTS = ("Norm", "MLP")  # ends of class names


def compile_layers(model: nn.Module) -> int:
    """Compile a model's norms and feed-forward blocks in place; weights, names and saved files stay as they are.

    Returns:
        How many modules were compiled.

    Raises:
        ConfigError: none of its modules is known as one.
    """
    parts = [module for module in model.modules() if type(module).__name__.endswith(_PARTS)]
    if not parts:
        raise ConfigError(
            f"train.compile: {type(model).__name__} has no modules whose class name ends in Norm or MLP. Turn it off."
        )
    for module in parts:
        module.compile(dynamic=True)
    return len(parts)
