"""Tokens of the lead's API: who may read, or change, every project of a store."""

import secrets
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from popmargin.errors import ConfigError, DataError, did_you_mean
from popmargin.label.store.access import clean_name, digest_of
from popmargin.label.store.database import Database
from popmargin.label.store.records import API_ROLES, ApiRole, ApiToken
from popmargin.label.store.sql_tables import api_token

_COLUMNS = (api_token.c.id, api_token.c.name, api_token.c.role, api_token.c.created_at)


class ApiTokens:
    """The tokens of a store, of which only the SHA-256 is stored; every method is one small transaction.

    Args:
        database: that of the store.
        clock: returns the time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def add(self, name: str, role: ApiRole) -> tuple[ApiToken, str]:
        """A new token, which is returned only here.

        Raises:
            ConfigError: an unknown role, or a name that is empty or too long.
            DataError: the name is taken.
        """
        if role not in API_ROLES:
            raise ConfigError(f"role is {role!r}. {did_you_mean(str(role), API_ROLES)}")
        token, name = secrets.token_urlsafe(32), clean_name(name, "token")
        values = {"name": name, "role": role, "token": digest_of(token), "created_at": self._clock()}
        try:
            row = self._database.write(
                lambda c: c.execute(api_token.insert().values(**values).returning(*_COLUMNS)).mappings().one()
            )
        except IntegrityError as error:
            raise DataError(f"There is already a token '{name}'. Choose another name, or revoke that one.") from error
        return ApiToken(**row), token

    def all(self) -> list[ApiToken]:
        """All tokens, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(*_COLUMNS).order_by(api_token.c.id)).mappings().all()
        return [ApiToken(**row) for row in rows]

    def revoke(self, name: str) -> None:
        """End a token at once.

        Raises:
            DataError: there is none of this name.
        """
        gone = self._database.write(lambda c: c.execute(delete(api_token).where(api_token.c.name == name)).rowcount)
        if not gone:
            raise DataError(f"There is no token '{name}'. {did_you_mean(name, [one.name for one in self.all()])}")

    def of(self, token: str) -> ApiToken | None:
        """Whose token this is; None if it is nobody's."""
        with self._database.read() as connection:
            found = (
                connection.execute(select(*_COLUMNS).where(api_token.c.token == digest_of(token)))
                .mappings()
                .one_or_none()
            )
        return None if found is None else ApiToken(**found)
