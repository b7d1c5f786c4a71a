"""Row layouts: how a row holds prompt, chosen and rejected. One file and one entry of `FORMATS` each."""

from popmargin.data.formats.base import Format, Reader
from popmargin.data.formats.columns import ALIASES, names_for, resolve_names, unused_columns
from popmargin.data.formats.detect import FORMATS, Meaning, detect_format, settle

__all__ = [
    "ALIASES",
    "FORMATS",
    "Format",
    "Meaning",
    "Reader",
    "detect_format",
    "names_for",
    "resolve_names",
    "settle",
    "unused_columns",
]
