"""Loading and saving without transformers' progress bars, and imports without its advice."""

import contextlib
import logging
from collections.abc import Generator


@contextlib.contextmanager
def quiet_loading() -> Generator[None]:
    """Without transformers' own bars: loading is quick, and ours cover what takes longer."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def quiet_imports() -> Generator[None]:
    """Without what transformers says of missing packages when diffusers imports its image processors."""
    logger = logging.getLogger("transformers.utils.import_utils")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
