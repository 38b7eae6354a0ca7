"""A headless Chromium for tests of pages."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NEEDED = ("chromium", "chromedriver")


def require_browser() -> None:
    """Skip, and say why, where there is no browser to drive."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        reason = f"no {' and no '.join(missing)} on this machine: pages are not tested (apt install chromium chromium-driver)"
        print(reason)
        pytest.skip(reason)
    pytest.importorskip("selenium")


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Give a driver of Chromium that keeps what the console says."""
    require_browser()
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    try:
        yield driver
    finally:
        driver.quit()


def show(driver: Any, page: Path, width: int = 1200, height: int = 900, **media: str) -> None:
    """Open a page in a window of that size.

    Args:
        media: features of the media, `prefers_color_scheme="dark"`.
    """
    sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)
    features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    driver.get(page.as_uri())


def console(driver: Any) -> list[str]:
    """Return what the browser complained of since the last call."""
    return [entry["message"] for entry in driver.get_log("browser")]
