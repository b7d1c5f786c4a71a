"""Components state their declaration once: the fields of their class are the keywords of their decorator."""

import inspect
from dataclasses import dataclass, fields
from typing import Any

import jaxtyping
import pytest

from popmargin.margin_sources.base import MarginSource, margin_source
from popmargin.objectives.base import OBJECTIVES, Needs, Objective, objective
from popmargin.objectives.rows import Rows
from popmargin.registry import Registry, decorator
from popmargin.regularizers.base import Regularizer, regularizer
from popmargin.tokens.base import TokenSelector, token_selector

PAIRS = [(objective, Objective), (margin_source, MarginSource), (regularizer, Regularizer),
         (token_selector, TokenSelector)]  # fmt: skip


@pytest.mark.parametrize(("declare", "kind"), PAIRS, ids=lambda item: getattr(item, "__name__", ""))
def test_a_decorator_takes_what_its_class_declares(declare: Any, kind: type[Any]) -> None:
    parameters = inspect.signature(declare).parameters
    assert list(parameters) == [field.name for field in fields(kind) if field.name != "function"]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for name, parameter in parameters.items() if name != "name")
    assert declare.__name__ in declare.__doc__.replace(" ", "_")


def test_a_further_field_is_a_further_keyword_at_once() -> None:
    @dataclass(frozen=True)
    class Wider(Objective):
        note: str = ""

    registry: Registry[Any] = Registry("wider", "popmargin.objectives")
    declare: Any = decorator(registry, Wider)

    @declare("noted", options=OBJECTIVES.get("dpo").options, score="log_ratio", origin="ours", note="said once")
    def noted(rows: Rows, options: Any) -> Any:
        return -rows.gap

    assert registry.get("noted").note == "said once" and registry.get("noted").function is noted
    with pytest.raises(TypeError, match="nte"):
        declare("other", options=None, score="log_ratio", origin="ours", nte="misspelt")(noted)


def test_flags_and_names_of_columns_are_one_declaration(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Needs(margin=True) == Needs(columns=("margin",)) != Needs()
    both = Needs(columns=("votes",), soft_label=True) | Needs(margin=True, provided=("tokens",))
    assert both.columns == ("margin", "soft_label", "votes") and both.margin and both.soft_label and not both.scale
    assert both.provided == ("tokens",)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users run it
    with pytest.raises(ValueError, match=r"Needs\.columns must be a tuple of names: \('votes',\)"):
        Needs(columns="votes")  # pyright: ignore[reportArgumentType]
