"""The option --criteria: questions about each task, on the command line or in a YAML file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popmargin.errors import ConfigError
from popmargin.safe_reading import read_text

if TYPE_CHECKING:
    from popmargin.label.store.records import Criterion

_FILES = (".yaml", ".yml", ".json")


def read_criteria(given: Sequence[str]) -> "tuple[Criterion, ...]":
    """Criteria from texts such as "clear: Which response is clearer?", or from one file of names and questions.

    Raises:
        ConfigError: a text without a name or a question, a file that has no names and questions, or criteria that
            cannot be used.
    """
    from popmargin.label.store.criteria import criteria_of

    if len(given) == 1 and given[0].lower().endswith(_FILES):
        return criteria_of(_in_file(Path(given[0])))
    pairs: list[tuple[str, str]] = []
    for text in given:
        name, colon, question = text.partition(":")
        if not colon:
            raise ConfigError(
                f'--criteria {text!r}: write a name, a colon and a question, as "clear: Which is clearer?".'
            )
        pairs.append((name.strip(), question.strip()))
    return criteria_of(pairs)


def _in_file(path: Path) -> list[tuple[str, str]]:
    import yaml

    try:
        found: Any = yaml.safe_load(read_text(path, ConfigError, what="criteria"))
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: not readable YAML: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(text, str) for pair in found.items() for text in pair):
        raise ConfigError(f"{path}: write one criterion a line, as its name, a colon and its question.")
    return list(found.items())
