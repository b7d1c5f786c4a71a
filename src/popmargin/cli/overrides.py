"""`--any.field value` flags of verbs that take a configuration: their help, and separating them from other flags."""

import argparse
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from popmargin.errors import ConfigError

CONFIGURED = ("train", "eval", "compare", "demo", "rounds", "recommend", "study")


_METAVARS = {"integer": "INTEGER", "string": "TEXT", "array": "LIST", "object": "MAPPING"}


class Field(argparse._StoreAction):  # pyright: ignore[reportPrivateUsage]
    """A flag for a configuration field, for help and completion; its value is read as YAML with the others."""


class _Help(argparse.HelpFormatter):
    """Puts a flag's description below it, to leave room for long names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=6)


def add_fields(parser: argparse.ArgumentParser, kind: Any, sections: Sequence[str] | None = None) -> None:
    """Add every field of a configuration to a verb's help, by section, with its default and bounds.

    Args:
        parser: the verb's.
        kind: the configuration's dataclass.
        sections: only these; None for all, and for fields outside sections.
    """
    from popmargin.config.described import choices_of, settings_of, type_of

    parser.formatter_class = _Help
    groups = {} if sections is not None else {"": parser.add_argument_group("fields of the whole")}
    known = set(parser._option_string_actions)  # pyright: ignore[reportPrivateUsage]
    for setting in settings_of(kind):
        section, flag = setting.name.rpartition(".")[0], f"--{setting.name}"
        if setting.section is not None and (sections is None or setting.name in sections):
            groups[setting.name] = parser.add_argument_group(f"fields of {setting.name}", setting.sentence)
        elif setting.section is None and section in groups and flag not in known:
            choices = choices_of(setting.schema) or (["true", "false"] if type_of(setting.schema) == "boolean" else [])
            groups[section].add_argument(
                flag,
                action=Field,
                choices=choices or None,
                metavar=None if choices else _METAVARS.get(type_of(setting.schema), "NUMBER"),
                default=argparse.SUPPRESS,
                help=(replace(setting, schema={}) if choices else setting).sentence.replace("%", "%%"),
            )


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    yield from parser._actions  # pyright: ignore[reportPrivateUsage]


def split_overrides(
    arguments: Sequence[str], parser: argparse.ArgumentParser, verb: str | None
) -> tuple[list[str], list[str]]:
    """Take the flags that override configuration fields out of the arguments.

    Args:
        arguments: everything after `popmargin`.
        parser: its parser, with the verb's own flags.
        verb: the verb; only those with a configuration have overrides.

    Returns:
        The arguments for the parser, and the override flags with their values.

    Raises:
        ConfigError: a flag that is nearly one of the verb's own.
    """
    if verb not in CONFIGURED:
        return list(arguments), []
    actions = [action for inner in _verb_parsers(parser, arguments) for action in _actions(inner)]
    own_flags = {flag for action in actions if not isinstance(action, Field) for flag in action.option_strings}
    fields = {flag for action in actions if isinstance(action, Field) for flag in action.option_strings}
    own, overrides = list[str](), list[str]()
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        flag, equals, _ = argument.partition("=")
        if not argument.startswith("--") or flag in own_flags:
            own.append(argument)
            continue
        near = difflib.get_close_matches(flag, own_flags | fields, n=1, cutoff=0.75)
        if flag not in fields and near and near[0] in own_flags:
            raise ConfigError(f"Unknown argument '{flag}'. Did you mean {near[0]}?")
        overrides.append(argument)
        if not equals and rest and not rest[0].startswith("--"):
            overrides.append(rest.pop(0))
    return own, overrides


def _verb_parsers(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> Iterator[argparse.ArgumentParser]:
    """The parsers of the verbs that the arguments name, one inside the other."""
    for action in _actions(parser):
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            verb = next((argument for argument in arguments if argument in action.choices), None)
            if verb is not None:
                inner = action.choices[verb]
                yield inner
                yield from _verb_parsers(inner, arguments[arguments.index(verb) + 1 :])


def known_flags(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """The flags of a parser and of the verbs that the arguments name."""
    flags: list[str] = []
    for action in _actions(parser):
        flags += action.option_strings
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            verbs = [argument for argument in arguments if argument in action.choices]
            flags += [flag for verb in verbs[:1] for flag in known_flags(action.choices[verb], arguments)]
    return flags
