"""Preference data: reading, checking, splitting and tokenizing."""

from .conversation import Message as Message
from .conversation import prompt_key as prompt_key
from .load import load_preferences as load_preferences
from .load import scan_preferences as scan_preferences
from .load_report import LoadReport as LoadReport
from .load_report import RowProblem as RowProblem
from .responses import Responses as Responses
from .schema import COLUMNS as COLUMNS
from .schema import Preferences as Preferences
from .split import check_leak as check_leak
from .split import split_preferences as split_preferences
from .tokenize import Ragged as Ragged
from .tokenize import TokenizedPreferences as TokenizedPreferences
from .tokenize import TruncationReport as TruncationReport
from .tokenize import prompt_text as prompt_text
from .tokenize import tokenize_preferences as tokenize_preferences
from .tokenize import tokenize_prompts as tokenize_prompts
