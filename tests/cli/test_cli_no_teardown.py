"""A process that is one of several ends after the callbacks of others, and before the interpreter is torn down."""

import subprocess
import sys
from pathlib import Path


def test_callbacks_run_and_the_teardown_does_not(tmp_path: Path) -> None:
    code = (
        "import atexit, os, pathlib\n"
        "atexit.register(os.abort)\n"  # the last of all
        "import popmargin.cli.train\n"
        "from popmargin.cli.no_teardown import skip_teardown\n"
        f"atexit.register(pathlib.Path({str(tmp_path / 'tracked')!r}).touch)\n"
        "print('told', end='', flush=True)\n"
    )
    for ending, expected in (("", -6), ("skip_teardown(3)\n", 3)):
        done = subprocess.run([sys.executable, "-c", code + ending], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (expected, "told"), done.stderr
        (tmp_path / "tracked").unlink()
