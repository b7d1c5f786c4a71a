"""What to ask of a SQLite file that should hold a store and does not."""

from pathlib import Path


def missing_part(path: str) -> str:
    """What to ask of a file that should hold a store and does not.

    Example:
        >>> missing_part("/mnt/copies/team.db").partition("?")[0]
        'If it is a copy of a store in use, is team.db-wal missing'
    """
    return (
        f"If it is a copy of a store in use, is {Path(path).name}-wal missing? The newest part is there: copy both, or "
        "use `popmargin label backup`."
    )
