"""Headless Chromium for browser tests; they skip where it is not installed."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

_CHROMIUM, _DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(not (_CHROMIUM and _DRIVER), reason="needs chromium and chromedriver on the PATH"),
]
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextlib.contextmanager
def chromium(preferences: Mapping[str, Any] | None = None) -> Iterator[Any]:
    """A driver of a browser with a profile of its own, which logs its console."""
    webdriver = pytest.importorskip("selenium.webdriver")
    with tempfile.TemporaryDirectory(prefix="popmargin-chromium-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = _CHROMIUM
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", dict(preferences or {}))
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(_DRIVER))
        try:
            yield driver
        finally:
            driver.quit()
