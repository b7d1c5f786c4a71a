"""Where a run's `margin` comes from, one file each."""

from popmargin.margins.base import MARGIN_SOURCES as MARGIN_SOURCES
from popmargin.margins.base import MarginSource as MarginSource
from popmargin.margins.base import margin_source as margin_source
