"""A real browser for pages that qhat writes: Debian's chromium, without a screen or a network.

`browser` is a fixture that tests/conftest.py gives to every test. Where chromium or its driver is missing,
the test is skipped, and says which package brings it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
PACKAGES = {"chromium": "chromium", "chromedriver": "chromium-driver"}
"""Programs, and Debian's packages that have them."""


class Browser:
    """One window."""

    def __init__(self, driver: Any):
        self.driver = driver

    def open(self, path: Path | str, width: int = 1000, dark: bool = False) -> None:
        """Show a file or an address in a window of `width` pixels."""
        self.look(width, dark)
        self.driver.get(path.resolve().as_uri() if isinstance(path, Path) else path)

    def look(self, width: int = 1000, dark: bool = False, media: str = "screen") -> None:
        """Change the window's width and the reader's preferences."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page, with a `return`. The page's content policy does not apply to it."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript that calls its last argument when it is done."""
        return self.driver.execute_async_script(script, *arguments)

    def press(self, key: str) -> None:
        """Press a key."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(key).perform()

    def complaints(self) -> list[str]:
        """Return the new messages of the console: errors, and what the content policy refused."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@contextlib.contextmanager
def opened(profile: Path) -> Iterator[Browser]:
    """Start a browser with a fresh profile, and end it. Skips the test if there is no browser."""
    programs = {name: shutil.which(name) for name in PACKAGES}
    missing = [PACKAGES[name] for name, path in programs.items() if path is None]
    if missing:
        pytest.skip(f"no browser: on Debian, apt install {' '.join(missing)}")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(programs["chromium"])
    for option in (*OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(programs["chromedriver"])))
    try:
        driver.set_script_timeout(20)
        yield Browser(driver)
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that all tests of a process share."""
    with opened(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture
def browser(window: Browser) -> Iterator[Browser]:
    """The shared browser. The page closes with the test; otherwise a simulation would keep drawing."""
    yield window
    window.driver.get("about:blank")
