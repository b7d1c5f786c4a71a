"""Registries of components (objectives, regularizers, token selectors): one file each, found without a list to edit."""

import dataclasses
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, get_type_hints

from popmargin.errors import ConfigError, did_you_mean


class Component(Protocol):
    """What every registered component tells of itself."""

    @property
    def name(self) -> str: ...
    @property
    def function(self) -> Callable[..., Any]: ...
    @property
    def options(self) -> type[Any]: ...


ComponentT = TypeVar("ComponentT", bound=Component)


class Registry(Generic[ComponentT]):
    """Components by name: the package's own modules, entry points of other packages, and `module:name` paths.

    Args:
        kind: what the entries are, for messages ("objective").
        package: the package whose modules register the built-in ones when imported; also the entry-point group.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._entries: dict[str, ComponentT] = {}
        self._builtin_loaded = False

    def add(self, component: ComponentT) -> None:
        """Register a component.

        Raises:
            ConfigError: another function already has this name.
        """
        known = self._entries.get(component.name)
        if known is not None and known.function.__qualname__ != component.function.__qualname__:
            raise ConfigError(f"The {self.kind} name '{component.name}' is already taken: choose another.")
        self._entries[component.name] = component

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
            return self._from_path(name)
        for entry in entry_points(group=self.package):
            if entry.name == name:
                return self._registered(entry.load(), name)
        raise ConfigError(
            f"Unknown {self.kind} '{name}'. {did_you_mean(name, self._entries)} "
            f"Your own: 'package.module:function' or 'path/to/file.py:function'."
        )

    def _load_builtin(self) -> None:
        if not self._builtin_loaded:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
            self._builtin_loaded = True

    def _from_path(self, path: str) -> ComponentT:
        place, _, attribute = path.rpartition(":")
        module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place, self.kind)
        if attribute not in vars(module):
            raise ConfigError(f"{place} has no '{attribute}'. {did_you_mean(attribute, vars(module))}")
        return self._registered(vars(module)[attribute], path)

    def _registered(self, function: Callable[..., Any], path: str) -> ComponentT:
        for component in self._entries.values():
            if component.function is function:
                return component
        raise ConfigError(f"'{path}' is not registered: decorate the function with popmargin's @{self.kind}(...).")


def _import_module(name: str, kind: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"Cannot import the module '{name}' of your {kind}: {error}. Is it on PYTHONPATH?") from error


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"No such file: {path}")
    name = f"popmargin_user_{path.stem}"
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(path.resolve()):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it is executed
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


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
    types = get_type_hints(options)  # a user's file may have its annotations as text
    return build(options, {name: coerce(types[name], value, f"{owner}.{name}") for name, value in values.items()})
