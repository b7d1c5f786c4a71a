"""Rows of data in a request, read as those of a file are."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from popmargin.data.load import load_preferences
from popmargin.data.pairs import Pairing
from popmargin.data.schema import Preferences
from popmargin.data.validate import DROP_HINT
from popmargin.errors import DataError

_NAME = "rows.jsonl"
_HINT = 'To leave unusable rows out and have them reported, send "drop_bad_rows": true.'


def rows_as_preferences(rows: Sequence[Mapping[str, Any]], *, pairs: Pairing, drop_bad: bool) -> Preferences:
    """Preferences from rows in any known layout, for people to label: ties and unlabelled responses stay.

    Args:
        rows: JSON objects.
        pairs: how several rated responses become pairs.
        drop_bad: leave out unusable rows, which the report lists, instead of refusing all.

    Raises:
        DataError: unusable rows; the message names them.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, _NAME)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        try:
            return load_preferences(
                path, pairs=pairs, ties="keep", unlabelled="ring", bad_rows="drop" if drop_bad else "error"
            )
        except DataError as error:
            said = str(error).replace(str(path), _NAME).replace(DROP_HINT, _HINT)
            raise DataError(said) from error
