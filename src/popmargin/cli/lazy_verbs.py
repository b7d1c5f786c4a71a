"""Verbs whose modules are imported when they are named: a list of them, and the help above it, costs nothing."""

import argparse
import importlib
from collections.abc import Mapping
from typing import Any


class LazyVerbs(argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage, reportMissingTypeArgument]
    """The verbs of a parser, for `add_subparsers(action=LazyVerbs)`; see `promise`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loaded = _Loaded(self)
        self.choices = self._name_parser_map = self._loaded

    def promise(self, summaries: Mapping[str, str], module: str) -> None:
        """List verbs; the module `module.format(verb)`, dashes as underscores, adds the parser of one when it is named.

        Args:
            summaries: verb -> what it does.
            module: such as "popmargin.cli.label_{}".
        """
        for name, summary in summaries.items():
            super().add_parser(name, help=summary)
            self._loaded.promised[name] = (module.format(name.replace("-", "_")), summary)

    def add_parser(self, name: str, **kwargs: Any) -> Any:
        """The parser of a promised verb, which its module fills."""
        self._loaded.pop(name)
        _, summary = self._loaded.promised.pop(name)
        kwargs.setdefault("description", f"{summary[0].upper()}{summary[1:]}.".replace("%", "%%"))
        return super().add_parser(name, **kwargs)


class _Loaded(dict[str, Any]):
    """Name -> parser; looking at a parser imports its module, asking for its name does not."""

    def __init__(self, action: LazyVerbs) -> None:
        super().__init__()
        self.action = action
        self.promised: dict[str, tuple[str, str]] = {}

    def __getitem__(self, name: str) -> Any:
        if name in self.promised:
            importlib.import_module(self.promised[name][0]).add_parser(self.action)
        return super().__getitem__(name)

    def items(self) -> Any:
        return {name: self[name] for name in list(self)}.items()

    def values(self) -> Any:
        return dict(self.items()).values()
