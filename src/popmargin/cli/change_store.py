"""Opening a label store to change it: what a webhook is to be told is sent when the command has done its work."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from popmargin.errors import counted
from popmargin.label.store.address import open_store

if TYPE_CHECKING:
    from popmargin.label.store.label_store import LabelStore

SECONDS = 20.0
"""A command sends for so long, and leaves the rest to the next one or to the server."""


@contextmanager
def change_store(url: str, *, create: bool = False) -> Generator["LabelStore"]:
    """The label store, as `open_store`; events that wait at the end are sent, and standard error says what waits on."""
    with open_store(url, create=create) as store:
        yield store
        if not store.webhooks.waiting():
            return
        from popmargin.label.web.webhook_sender import send_now

        sent = send_now(store, SECONDS)
        if sent:
            print(f"webhook: {counted(sent, 'event')} sent", file=sys.stderr)
        for left in store.webhooks.waiting():
            why = f" ({left.error})" if left.error else ""
            print(
                f"webhook {left.url}: {counted(left.waiting, 'event')} {'waits' if left.waiting == 1 else 'wait'} for "
                f"`popmargin annotate`, or the next command that changes the store{why}",
                file=sys.stderr,
            )
