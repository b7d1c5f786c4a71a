"""One process of several ends without the interpreter's teardown.

A thread of the process group may still free its last tensors when the main thread is done. One that asks for the
interpreter's lock during the teardown is ended inside C++ code, and the process aborts ("terminate called without an
active exception", SIGABRT) although everything was saved. The callback below is registered before torch is imported, so
it runs after those of torch and of trackers.
"""

import atexit
import os
import sys

_codes: list[int] = []


def skip_teardown(code: int) -> None:
    """End with this exit code once all later callbacks of `atexit` have run."""
    _codes.append(code)


@atexit.register
def _end() -> None:
    if _codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_codes[-1])
