"""Where a run's `margin` comes from, one file each."""

from popmargin.margin_sources.base import MARGIN_SOURCES as MARGIN_SOURCES
from popmargin.margin_sources.base import MarginSource as MarginSource
from popmargin.margin_sources.base import margin_source as margin_source
