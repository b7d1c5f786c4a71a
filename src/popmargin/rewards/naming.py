"""How judges and rewards are named, the same in every verb, configuration and function."""

import difflib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from popmargin.config import EvaluationConfig
from popmargin.errors import ConfigError
from popmargin.user_code import name_hint

FORMS = "module:function, file.py:function, model:PATH, implicit:RUN or judge:MODEL@URL"
"""For help texts and messages; docs/judges.md describes each form."""

_SERVER = re.compile(r"(?:(?P<model>.*)@)?(?P<url>https?://.*)", re.DOTALL)
_PREFIXES = {"model": "model", "judge": "server", "implicit": "implicit", "local": "model", "openai": "server"}


@dataclass(frozen=True)
class Named:
    """What a specification names.

    Attributes:
        kind: `code` (a function or object in Python), `model` (in this process), `server`, `implicit` (a policy's
            log-ratio to its reference), or `ratings` (those that the data has).
        place: `module:function` of code, the path of a model or run, the URL of a server; empty for ratings.
        model: the model's name on a server; empty if an option names it.
        use: how a model is used, if the spelling says so: `reward:model:PATH` scores, `local:PATH` compares.
        reference: of an implicit reward, by its path; empty for the run's own.
    """

    kind: Literal["code", "model", "server", "implicit", "ratings"]
    place: str = ""
    model: str = ""
    use: Literal["reward", "judge"] | None = None
    reference: str = ""


def read_name(spec: str) -> Named:
    """What a specification names; nothing is loaded or queried.

    Earlier spellings still work: `reward:SPEC` for SPEC, `openai:MODEL@URL` for `judge:MODEL@URL`,
    `local:PATH` for a language model `model:PATH`.

    Raises:
        ConfigError: it has no known form, or could mean two things.

    Example:
        >>> read_name("judge:gpt-4@https://api.openai.com/v1")
        Named(kind='server', place='https://api.openai.com/v1', model='gpt-4', use=None, reference='')
        >>> read_name("rewards.py:brevity").kind, read_name("model:runs/rm/model").place
        ('code', 'runs/rm/model')
        >>> read_name("implicit:runs/dpo@models/sft").reference
        'models/sft'
    """
    if spec == "ratings":
        return Named("ratings")
    prefix, colon, rest = spec.partition(":")
    if prefix == "reward" and (rest == "ratings" or ":" in rest):
        named = read_name(rest)
        return replace(named, use="reward")
    if not colon or not rest.strip() or not prefix.strip():
        hint = name_hint(spec) or _nearest(spec, ("ratings",), "")
        raise ConfigError(f"{spec!r} is not understood. Give {FORMS}.{hint}")
    if prefix not in _PREFIXES:
        near = _nearest(prefix, tuple(_PREFIXES), f":{rest}")
        if near and prefix != "reward" and not _is_module(prefix):
            raise ConfigError(f"{spec!r} is not understood: there is no module {prefix!r} here.{near}")
        return Named("code", spec)
    _refuse_two_meanings(prefix, rest)
    if _PREFIXES[prefix] == "model":
        return Named("model", rest, use="judge" if prefix == "local" else None)
    if _PREFIXES[prefix] == "implicit":
        run, _, reference = (rest, "", "") if Path(rest).exists() else rest.partition("@")
        return Named("implicit", run, reference=reference)
    found = _SERVER.fullmatch(rest)
    if found is None:
        raise ConfigError(
            f"{spec!r} contains no URL. Give judge:MODEL@URL, as in judge:my-model@http://localhost:8000/v1."
        )
    return Named("server", found["url"], found["model"] or "")


def _is_module(name: str) -> bool:
    """Whether Python code can have this name: it is a path, is in the working directory, or is installed."""
    here = Path(name).is_dir() or Path(f"{name}.py").is_file()
    return not name.isidentifier() or here or importlib.util.find_spec(name) is not None


def _nearest(word: str, known: Sequence[str], rest: str) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}{rest}'?" if near else ""


def _refuse_two_meanings(prefix: str, rest: str) -> None:
    """A user's own model.py or judge.py in the working directory would be taken for a model or a server."""
    if rest.isidentifier() and Path(f"{prefix}.py").is_file() and not Path(rest).exists():
        kind = _PREFIXES[prefix]
        raise ConfigError(
            f"'{prefix}:{rest}' names a {kind}, but there is also a {prefix}.py here. For your function: "
            f"'{prefix}.py:{rest}'. For the {kind}: rename the file."
        )


def reward_models(config: EvaluationConfig) -> list[str]:
    """The paths of the models that a configuration's rewards are; as `model_path`."""
    return [path for spec in (config.reward, *config.also) if (path := model_path(spec)) is not None]


def model_path(spec: str | None) -> str | None:
    """The path of the model that a specification names; None if it names something else.

    Raises:
        ConfigError: it is not understood.
    """
    named = None if spec is None else read_name(spec)
    return named.place if named is not None and named.kind == "model" else None
