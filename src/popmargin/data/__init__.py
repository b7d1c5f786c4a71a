"""Preference data: reading, checking, splitting and tokenizing."""

from popmargin.data.conversation import Message, prompt_key
from popmargin.data.load import load_preferences, scan_preferences
from popmargin.data.load_report import LoadReport, RowProblem
from popmargin.data.responses import Responses
from popmargin.data.schema import COLUMNS, Preferences
from popmargin.data.split import check_leak, split_preferences
from popmargin.data.tokenize import (
    Ragged,
    TokenizedPreferences,
    TruncationReport,
    prompt_text,
    tokenize_preferences,
    tokenize_prompts,
)

__all__ = [
    "COLUMNS",
    "LoadReport",
    "Message",
    "Preferences",
    "Ragged",
    "Responses",
    "RowProblem",
    "TokenizedPreferences",
    "TruncationReport",
    "check_leak",
    "load_preferences",
    "prompt_key",
    "prompt_text",
    "scan_preferences",
    "split_preferences",
    "tokenize_preferences",
    "tokenize_prompts",
]
