"""Token selectors: token weights for the sums of any objective, one file each."""

from popmargin.tokens.base import TOKEN_SELECTORS as TOKEN_SELECTORS
from popmargin.tokens.base import TokenSelector as TokenSelector
from popmargin.tokens.base import token_selector as token_selector
