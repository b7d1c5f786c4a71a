"""A site on a port, and how a test looks at it and presses keys."""

import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from web_site import Site

from popmargin.label.web.serve import address, listen, server_of

CONTRAST = """
const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
const part = v => v / 255 <= .03928 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
const light = ([r, g, b]) => .2126 * part(r) + .7152 * part(g) + .0722 * part(b);
const behind = e => {
  for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c;
  }
  return [255, 255, 255];
};
const low = [];
for (const e of document.querySelectorAll('body *:not(.visually-hidden)')) {
  if (!e.checkVisibility() || ![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
  const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
  const ratio = (a + .05) / (b + .05);
  if (ratio < 4.5) low.push([e.tagName, e.className, e.textContent.slice(0, 30), ratio.toFixed(2)]);
}
return low;
"""
NAMELESS = """
const all = 'button, a, input:not([type=hidden]), textarea, summary, progress, [tabindex="0"]';
return [...document.querySelectorAll(all)]
  .filter(e => e.checkVisibility() && !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length))
  .map(e => e.outerHTML.slice(0, 90))
"""


class Server:
    """The application on a port of its own; can go away and come back there."""

    def __init__(self, site: Site, port: int = 0) -> None:
        self.site = site
        self.socket = listen("127.0.0.1", port)
        self.url = address("127.0.0.1", self.socket)
        self.port = self.socket.getsockname()[1]
        self.server: uvicorn.Server = server_of(site.app)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = True
        self.server.force_exit = True
        self.thread.join(20)
        self.socket.close()


def look(browser: Any, width: int = 1280, height: int = 800, scheme: str = "light") -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width < 600})
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.get_log("browser")  # what earlier tests left
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def wait(condition: Callable[[], Any], seconds: float = 15) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except Exception as error:  # the page is just being replaced
            if "stale" not in str(error).lower() and "no such element" not in str(error).lower():
                raise
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def sign_in(browser: Any, server: Server, token: str) -> None:
    server.site.read(token)
    browser.delete_all_cookies()
    browser.get(f"{server.url}/login/{token}")
    ready = "return document.readyState === 'complete' && !!window.htmx"
    wait(lambda: "/login/" not in browser.current_url and browser.execute_script(ready) and task(browser))


def task(browser: Any) -> str:
    """Number of the task on the screen, or the kind of another page."""
    script = "const t = document.getElementById('task'); return t && (t.dataset.number || t.dataset.kind)"
    return str(browser.execute_script(script))


def press(browser: Any, key: str) -> None:
    """Keys as from a keyboard: to whatever has the focus, which a dialog that is just closing may still have."""
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(key).perform()


def idle(browser: Any) -> bool:
    return not browser.execute_script("return document.body.classList.contains('sending')")


def press_and_wait(browser: Any, key: str) -> str:
    before = task(browser)
    press(browser, key)
    wait(lambda: task(browser) != before and idle(browser))
    return task(browser)


def complaints(browser: Any) -> list[str]:
    """What the browser's console has to say, such as what the content policy refused."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def fits(browser, width: int) -> bool:
    """No page is wider than the screen; a page may be read a moment before the rules for small screens hold."""
    for _ in range(50):
        if browser.execute_script("return document.documentElement.scrollWidth") <= width:
            return True
        time.sleep(0.1)
    return False
