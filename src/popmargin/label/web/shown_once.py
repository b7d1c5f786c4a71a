"""New links on their way from the form that made them to the page that shows them, once."""

import secrets
import threading

from popmargin.label.store.records import Annotator

_MOST = 100


class ShownOnce:
    """Links that the next page shows and nobody sees again: reloading that page makes no further link."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[Annotator, str]] = {}

    def keep(self, annotator: Annotator, token: str) -> str:
        """Keep a token for the page that is asked for with the returned key."""
        key = secrets.token_urlsafe(12)
        with self._lock:
            self._waiting[key] = (annotator, token)
            while len(self._waiting) > _MOST:
                self._waiting.pop(next(iter(self._waiting)))
        return key

    def take(self, key: str) -> tuple[Annotator, str] | None:
        """The annotator and the token, the first time."""
        with self._lock:
            return self._waiting.pop(key, None)
