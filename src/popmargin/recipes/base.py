"""What a recipe is, and the registry of recipes."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from popmargin.code_permission import note_named
from popmargin.errors import ConfigError
from popmargin.registry import Registry, decorator, make_options
from popmargin.rounds.plan import Plan
from popmargin.rounds.rounds_config import RoundsConfig
from popmargin.user_code import running


@dataclass(frozen=True)
class Recipe:
    """A registered recipe.

    Attributes:
        name: its name in configurations.
        function: puts its stages into a plan: `(plan, config, options) -> None`.
        options: frozen dataclass of its options.
    """

    name: str
    function: Callable[..., None]
    options: type[Any]

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


RECIPES: Registry[Recipe] = Registry("recipe", "popmargin.recipes")
recipe = decorator(RECIPES, Recipe)


def options_of(config: RoundsConfig) -> tuple[Recipe, Any]:
    """The recipe that a configuration names, and its options.

    Raises:
        ConfigError: an unknown recipe or option, or values that do not fit together.
    """
    values = dict(config.recipe)
    if "name" not in values:
        raise ConfigError(f"recipe.name is missing, e.g. {{name: spa}}. There are: {', '.join(RECIPES.names())}.")
    chosen = RECIPES.get(str(values.pop("name")))
    return chosen, make_options(chosen.options, values, f"recipe '{chosen.name}'")


def plan_of(config: RoundsConfig) -> Plan:
    """The stages of the recipe that a configuration names.

    Raises:
        ConfigError: as for `options_of`.
        RunError: a user's own recipe fails.
    """
    note_named(config.recipe, config.base)
    chosen, options = options_of(config)
    plan = Plan()
    with running(f"recipe '{chosen.name}'"):
        chosen.function(plan, config, options)
    return plan
