"""Loading and saving without transformers' progress bars."""

import contextlib
from collections.abc import Generator


@contextlib.contextmanager
def quiet_loading() -> Generator[None]:
    """Without transformers' own bars: loading is quick, and ours cover what takes longer."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
