"""Registries of components (objectives, margin sources, regularizers …): one file each, with no list to edit."""

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, get_type_hints

from popmargin.errors import ConfigError, a_kind, did_you_mean
from popmargin.user_code import FORMS, home, load_object


class Component(Protocol):
    """The attributes of every registered component."""

    @property
    def name(self) -> str: ...
    @property
    def function(self) -> Callable[..., Any]: ...


ComponentT = TypeVar("ComponentT", bound=Component)
DeclaredP = ParamSpec("DeclaredP")
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class Registry(Generic[ComponentT]):
    """Components by name: the package's own modules, entry points of other packages, and `module:name` paths.

    Args:
        kind: what the entries are, and their decorator ("objective", "token_selector").
        package: the package whose modules register the built-in ones when imported; also the entry-point group.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.title = kind.replace("_", " ")
        self.package = package
        self._entries: dict[str, ComponentT] = {}
        self._builtin_loaded = False

    def add(self, component: ComponentT) -> None:
        """Register a component. A function from the same file or notebook is replaced by its new version, one from a
        deleted file by anything with its name.

        Raises:
            ConfigError: the name is built in, or another function has it.
        """
        if not self._is_builtin(component):
            self._load_builtin()  # so that their names are known, whatever the order of imports
        known = self._entries.get(component.name)
        if known is not None and not self._is_newer(component, known):
            taken = "built in" if self._is_builtin(known) else f"already taken, by '{_title(known)}' in {_place(known)}"
            raise ConfigError(
                f"The {self.title} name '{component.name}' is {taken}, and '{_title(component)}' in "
                f"{_place(component)} would replace it: give yours another name, "
                f'@{self.kind}("my_{component.name}", ...).'
            )
        self._entries[component.name] = component

    def _is_builtin(self, component: ComponentT) -> bool:
        return str(getattr(component.function, "__module__", "")).startswith(f"{self.package}.")

    def _is_newer(self, component: ComponentT, known: ComponentT) -> bool:
        """Whether it comes from the same place as the known one: the same function, or another version of the file."""
        place = _place(known)
        if place.endswith(".py") and not Path(place).is_file() and not self._is_builtin(known):
            return True
        if self._is_builtin(component) != self._is_builtin(known) or _place(component) != _place(known):
            return False
        return _title(component) == _title(known) or _globals(component) is not _globals(known)

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._load_builtin()
        return sorted(self._entries)

    def get(self, name: str) -> ComponentT:
        """The component of that name, `module:function` or `file.py:function`.

        Raises:
            ConfigError: it is unknown; the message names the nearest known one.
        """
        self._load_builtin()
        if name in self._entries:
            return self._entries[name]
        if ":" in name:
            return self._registered(load_object(name, self.title), name)
        offered = [entry for entry in entry_points(group=self.package) if entry.name == name]
        if len({entry.value for entry in offered}) > 1:
            raise ConfigError(
                f"Several installed packages offer the {self.title} '{name}': choose one: "
                f"{' or '.join(entry.value for entry in offered)}."
            )
        if offered:
            return self._registered(load_object(offered[0].value, self.title), name)
        place = f" For something in this file: '{name}:NAME'." if name.endswith(".py") else ""
        raise ConfigError(
            f"Unknown {self.title} '{name}'. {did_you_mean(name, self._entries)} Your own: {FORMS}.{place}"
        )

    def _load_builtin(self) -> None:
        if not self._builtin_loaded:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
            self._builtin_loaded = True

    def _registered(self, function: Any, path: str) -> ComponentT:
        for component in self._entries.values():
            if component.function is function:
                return component
        what = "not registered" if callable(function) else f"{a_kind(function)}, not a registered function"
        raise ConfigError(f"'{path}' is {what}: decorate the function with @{self.kind}(...).")


class Register(Protocol):
    """Registers a function and returns it."""

    def __call__(self, function: FunctionT, /) -> FunctionT: ...


def decorator(
    registry: Registry[ComponentT], kind: Callable[Concatenate[str, Callable[..., Any], DeclaredP], ComponentT]
) -> Callable[Concatenate[str, DeclaredP], Register]:
    """The decorator that registers functions as components.

    Args:
        registry: where they are registered.
        kind: the component's class: name and function, then keywords, which are those of the decorator.
    """

    def declare(name: str, *args: DeclaredP.args, **declared: DeclaredP.kwargs) -> Register:
        def register(function: FunctionT) -> FunctionT:
            registry.add(kind(name, function, *args, **declared))
            return function

        return register

    signature = inspect.signature(kind)
    parameters = [parameter for name, parameter in signature.parameters.items() if name != "function"]
    declare.__signature__ = signature.replace(parameters=parameters, return_annotation=Register)  # pyright: ignore[reportFunctionMemberAccess]
    declare.__doc__ = f"Register the decorated function: {registry.title} `name`, with the fields of `{kind.__name__}`."
    declare.__name__ = declare.__qualname__ = registry.kind
    return declare


def _title(component: Component) -> str:
    return str(getattr(component.function, "__qualname__", component.function))


def _globals(component: Component) -> Any:
    """A function's globals; every version of a file has its own, all cells of a notebook share one."""
    return getattr(inspect.unwrap(component.function), "__globals__", None)


def _place(component: Component) -> str:
    return home(component.function)


def make_options(options: type[Any], values: Mapping[str, Any], owner: str) -> Any:
    """Build an options dataclass from plain values.

    Raises:
        ConfigError: an unknown or invalid option; the message names the owner and the nearest known option.
    """
    from popmargin.config import build, coerce

    fields = {field.name: field for field in dataclasses.fields(options)}
    unknown = [name for name in values if name not in fields]
    if unknown:
        raise ConfigError(f"{owner} has no option '{unknown[0]}'. {did_you_mean(unknown[0], fields)}")
    types = get_type_hints(options, include_extras=True)  # a user's file may have annotations as strings
    place = _section(owner)
    return build(options, {name: coerce(types[name], value, f"{place}.{name}") for name, value in values.items()})


def _section(owner: str) -> str:
    """Where a configuration has the options of an owner.

    Example:
        >>> _section("task 'images'"), _section("token selector 'selective'"), _section("signals.weight")
        ('task', 'tokens', 'signals.weight')
    """
    kind, named, _ = owner.partition(" '")
    return {"token selector": "tokens", "regularizer": "regularizers"}.get(kind, kind) if named else owner
