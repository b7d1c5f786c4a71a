"""What was found for a model and may hold parts of it, such as its LM head: kept until the model goes."""

from typing import Any, Generic, TypeVar

from torch import nn

_V = TypeVar("_V")
_PLACE = "_popmargin_found"


class FoundForModels(Generic[_V]):
    """A value for each of some models.

    Values lie in their models, so that a value that refers to its model, or to a part of it, goes with it. As values of
    a dictionary with weak keys they would keep their keys for ever. A copy of a model has none.

    Example:
        >>> import gc, weakref
        >>> heads, model = FoundForModels[nn.Module](), nn.Sequential(nn.Linear(2, 2))
        >>> heads.keep(model, model[0])
        >>> heads.of(model) is model[0]
        True
        >>> gone = weakref.ref(model)
        >>> del model
        >>> _ = gc.collect()
        >>> gone() is None
        True
    """

    def keep(self, model: nn.Module, value: _V) -> None:
        """Keep a value with its model."""
        model.__dict__.setdefault(_PLACE, _Values())[self] = value

    def of(self, model: nn.Module) -> _V | None:
        """The value of a model; None if it has none."""
        return model.__dict__.get(_PLACE, {}).get(self)

    def forget(self, model: nn.Module) -> None:
        """Let go of a model's value."""
        model.__dict__.get(_PLACE, {}).pop(self, None)


class _Values(dict[Any, Any]):
    """Of one model; a copy of it begins without."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Values":
        return _Values()
