"""Errors that a user can act on: what was wrong, where, and what to do."""

import difflib
import importlib
from collections.abc import Iterable, Sequence
from types import ModuleType


class PopmarginError(ValueError):
    """Base of all errors that popmargin raises for user input; the CLI prints only the message.

    Example:
        >>> from popmargin import load_preferences
        >>> try:
        ...     load_preferences([{"prompt": "2+2?", "chosen": "four"}])
        ... except PopmarginError as error:
        ...     print(type(error).__name__)
        DataError
    """


class DataError(PopmarginError):
    """Unusable preference data or PoP edges; the message names file, row, column and remedy.

    Example:
        >>> from popmargin import PopEdges
        >>> PopEdges.load("edges.parket")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        popmargin.errors.DataError: ...edges.parket...
    """


class NoSuchRowError(DataError, IndexError):
    """A row number out of range; also an `IndexError`, which ends a loop over rows.

    Example:
        >>> from popmargin import load_preferences
        >>> load_preferences([{"prompt": "2+2?", "chosen": "4", "rejected": "5"}])[1]
        Traceback (most recent call last):
        popmargin.errors.NoSuchRowError: Row 1 does not exist: there are 1, counted from 0.
    """


class NoSuchNameError(DataError, KeyError):
    """A name that a table does not have; also a `KeyError`, which `in` and `get` of mappings expect.

    Example:
        >>> from popmargin import Table
        >>> Table({"margin": [0.5]})["margn"]
        Traceback (most recent call last):
        popmargin.errors.NoSuchNameError: The table has no column 'margn'. Did you mean 'margin'? Known: margin.
    """

    __str__ = DataError.__str__  # that of KeyError puts the message in quotes


class ConfigError(PopmarginError):
    """An unusable configuration; the message names the key and the nearest known one.

    Example:
        >>> from popmargin import RunConfig
        >>> RunConfig(seed=-1)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        popmargin.errors.ConfigError: seed ...
    """


class RunError(PopmarginError):
    """A run directory, checkpoint or cache that is missing, incomplete or does not fit.

    Example:
        >>> from popmargin import evaluate
        >>> evaluate("runs/nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        popmargin.errors.RunError: ...runs/nowhere...
    """


class WaitingError(PopmarginError):
    """Nothing is wrong: work cannot go on before people have answered; the message says how they do.

    Example:
        >>> issubclass(WaitingError, PopmarginError)
        True
    """


class MissingExtraError(PopmarginError, ImportError):
    """An optional dependency is needed and not installed; the message names the extra.

    Example:
        >>> import_extra("no_such_module", "judge")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        popmargin.errors.MissingExtraError: 'no_such_module' is needed here ... pip install 'popmargin[judge]'
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the nearest known name and the list of known ones, to end an error message.

    Example:
        >>> did_you_mean("lerning_rate", ["learning_rate", "seed"])
        "Did you mean 'learning_rate'? Known: learning_rate, seed."
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    start = f"Did you mean '{near[0]}'? " if near else ""
    return f"{start}Known: {', '.join(names)}."


def counted(count: int, one: str, many: str = "") -> str:
    """A count and its noun, for a message; the plural ends in s by default.

    Example:
        >>> counted(1, "row"), counted(2, "row"), counted(0, "reply", "replies")
        ('1 row', '2 rows', '0 replies')
    """
    return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"


def a_kind(value: object) -> str:
    """The type of a value with its article, for a message.

    Example:
        >>> a_kind({}), a_kind(1)
        ('a dict', 'an int')
    """
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOaeio' or name == 'ndarray' else 'a'} {name}"


def first_few(names: Sequence[str], shown: int = 5) -> str:
    """The first names of a list, for a message; an ellipsis stands for the rest.

    Example:
        >>> first_few(["p0", "p1", "p2"], 2), first_few(["p0"])
        ('p0, p1, …', 'p0')
    """
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")


def import_extra(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Raises:
        MissingExtraError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"'{module}' is needed here and not installed. Run: pip install 'popmargin[{extra}]'"
        ) from error
