"""A real browser for tests of pages: Chromium, without a window."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cwerm.data.corrections import Corrections

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real one, that saves what it downloads to `browser.downloads`."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if not (found and driver):
        pytest.skip("needs a browser and its driver: Debian's chromium and chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = found
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    chrome.set_window_size(1300, 1000)
    chrome.downloads = downloads
    yield chrome
    chrome.quit()


def show_page(browser: Any, path: Path) -> float:
    """Open a page; the seconds it took. What was decided on the page before is not asked about."""
    browser.execute_script("window.onbeforeunload = null; saved = true" if browser.title else "")
    started = time.perf_counter()
    browser.get(path.as_uri())
    return time.perf_counter() - started


def by_css(browser: Any, rule: str) -> list[Any]:
    return browser.find_elements("css selector", rule)


def choose(browser: Any, rule: str, text: str) -> None:
    from selenium.webdriver.support.select import Select

    Select(by_css(browser, rule)[0]).select_by_visible_text(text)


def saved(browser: Any) -> Corrections:
    """What the button saves, read as the next run reads it."""
    target: Path = browser.downloads / "corrections.csv"
    target.unlink(missing_ok=True)
    by_css(browser, "#save")[0].click()
    deadline = time.monotonic() + 30
    while not target.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return Corrections.read(target.read_bytes())
