"""Who pays for calls of a server: asked before each, and told what it cost."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Purse(Protocol):
    """Lets calls be made, and is told what they cost; see `generate.spending.Purse`."""

    @property
    def limited(self) -> bool:
        """Whether calls may be refused."""
        ...

    def admit(self, key: str, body: Mapping[str, Any], *, wait: bool = True) -> bool:
        """Whether a call may be made; it may have to wait for others."""
        ...

    def settle(self, key: str, body: Mapping[str, Any], usage: Mapping[str, Any] | None, *, batch: str = "") -> None:
        """What it cost: the server's count of tokens, empty if unknown; None if nothing."""
        ...


def usage_of(response: Any) -> Mapping[str, Any] | None:
    """The tokens that a server counts: empty if it does not say; None if it did not answer, which costs nothing."""
    if not 200 <= response.status_code < 300:
        return None
    try:
        usage = response.json()["usage"]
    except (ValueError, KeyError, TypeError):
        return {}
    return usage if isinstance(usage, dict) else {}
