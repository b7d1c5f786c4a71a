"""What the studies with a driver of their own share: their arguments."""

import argparse
from pathlib import Path
from typing import Any

from popmargin.config import apply_overrides, read_yaml


def arguments(description: str | None) -> tuple[dict[str, Any], bool]:
    """The study that the command line names, with its overrides, and whether only its table is wanted."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--table-only", action="store_true", help="of what is finished; run nothing")
    args, overrides = parser.parse_known_args()
    return apply_overrides(read_yaml(args.study), overrides), args.table_only
