"""A real browser, and what it is watched for: errors, and requests that leave our origin."""

import subprocess
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright

from tests.dashboard.ground import Ground

CHROMIUM = Path("/usr/bin/chromium")  # Debian's: apt-get install chromium
AXE = "axe-core@4.14.1"
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@dataclass
class Watched:
    """A page, and what went wrong on it so far."""

    page: Page
    origin: str
    wrong: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Begin."""
        page = self.page
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.wrong.append(f"{page.url}: {error}"))
        page.on("dialog", lambda dialog: self.wrong.append(f"{page.url}: {dialog.message}"))
        page.on("request", self._asked)
        page.on("popup", lambda popup: self.wrong.append(f"{page.url} opened {popup.url}"))

    def _said(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.wrong.append(f"{self.page.url}: {message.text}")

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(f"{self.origin}/"):
            self.wrong.append(f"{self.page.url} asked for {request.url}")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Headless Chromium. Skips, loudly, where there is none."""
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}; apt-get install chromium, and the dashboard is tested in it")
    async with async_playwright() as play:
        browser = await play.chromium.launch(executable_path=CHROMIUM)
        yield browser
        await browser.close()


async def opened(browser: Browser, ground: Ground, *, theme: Any = "light") -> Watched:
    """A page in a browser of its own, watched and signed in."""
    context = await browser.new_context(viewport=WIDE, color_scheme=theme)
    found = Watched(await context.new_page(), ground.url)
    found.watch()
    await sign_in(found.page, ground)
    return found


async def sign_in(page: Page, ground: Ground) -> None:
    """As a person does."""
    await page.goto(ground.url)
    await page.fill("#key", ground.key)
    await page.click("button[type=submit]")
    await page.wait_for_selector("nav a[aria-current]")


def axe(folder: Path) -> str | None:
    """The source of axe-core; None, loudly, where npm cannot bring it."""
    try:
        made = subprocess.run(
            ["npm", "pack", "--silent", AXE], cwd=folder, capture_output=True, text=True,
            timeout=60, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"npm cannot bring {AXE}, so accessibility is not tested: {error}")
    with tarfile.open(folder / made.stdout.strip()) as archive:
        source = archive.extractfile("package/axe.min.js")
        assert source is not None
        return source.read().decode()
