"""What a folder's draws were made with, and when the held-out groups were first used."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from popmargin.errors import RunError
from popmargin.files import whole_file

_NAME = "settings.json"
_FIRST = "held_out_first_used"


def check_same(output: str | Path, facts: dict[str, Any], *, rehearse: bool) -> bool:
    """Whether the folder is new; otherwise its draws must have been made with the same facts.

    Args:
        output: folder of the study.
        facts: settings, and digests of data and features; JSON values.
        rehearse: the held-out groups are left alone.

    Raises:
        RunError: they were made with others.
    """
    place = Path(output) / _NAME
    if place.is_file():
        before = _read(place)
        changed = [name for name in facts if before.get(name) != facts[name]]
        if changed:
            raise RunError(
                f"{output} has draws of other {' and '.join(changed)}. Take another folder with --output, or "
                "--overwrite to begin again. Settings that are chosen by what the held-out groups said measure too "
                "well on them: try them with rehearse: true, which leaves those groups alone."
            )
        return False
    first = None if rehearse else datetime.now(UTC).isoformat(timespec="minutes")
    with whole_file(place) as partial:
        partial.write_text(json.dumps({**facts, _FIRST: first}, indent=1) + "\n", encoding="utf-8")
    return True


def first_use(output: str | Path) -> str | None:
    """When the held-out groups were first used."""
    return _read(Path(output) / _NAME).get(_FIRST)


def forget(output: str | Path) -> None:
    """Let the folder begin again."""
    (Path(output) / _NAME).unlink(missing_ok=True)


def _read(place: Path) -> dict[str, Any]:
    try:
        return json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{place}: cannot be read ({error}). Take another folder with --output.") from error
