"""Take the pictures of docs/web.md: let an exported page run for some steps in Chromium, and look at it.

python benchmarks/web_picture.py runs/page/export/web.html docs/images/web-cartpole.png --push 0.2
"""

import argparse
import contextlib
import shutil
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

# Steps are taken one by one, so that one page and one number of steps are one picture.
RUN = """
const [steps, push, last] = arguments, it = qhat.app;
it.play(false);
it.reset();
for (let step = 0; step < steps; step++) {
  if (step === steps - last && push) {
    const slider = document.getElementById('push');
    slider.value = push;
    slider.dispatchEvent(new Event('input'));
  }
  it.step();
}
"""


@contextlib.contextmanager
def chromium(width: int, height: int) -> Any:
    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        yield driver
    finally:
        driver.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=220)
    parser.add_argument("--push", type=float, default=0.0, help="newtons, in the last steps")
    parser.add_argument("--last", type=int, default=8, help="steps with a push")
    parser.add_argument("--width", type=int, default=1100)
    parser.add_argument("--height", type=int, default=610)
    options = parser.parse_args()
    with chromium(options.width, options.height) as driver:
        driver.get(options.page.resolve().as_uri())
        driver.execute_script(RUN, options.steps, options.push, options.last)
        driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        driver.save_screenshot(str(options.out))
    print(options.out)


if __name__ == "__main__":
    main()
