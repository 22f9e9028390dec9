"""Photographs of every page, light and dark, for the docs and for whoever changes a page."""

import argparse
import base64
from pathlib import Path

from playwright.async_api import Page

from tests.dashboard.browser import NARROW, WIDE, chromium, sign_in
from tests.dashboard.ground import Ground
from tests.dashboard.standing import standing

# Name -> where it is; a second part is a link on it that is followed.
PAGES = {
    "overview": ("/",),
    "tasks": ("/tasks",),
    "task": ("/tasks?state=failed", "tbody a[href^='/tasks/']"),
    "alerts": ("/alerts",),
    "alert": ("/alerts?severity=high", "tbody a[href^='/alerts/']"),
    "agents": ("/agents",),
    "agent": ("/agents/report",),
    "schedules": ("/schedules",),
    "schedule": ("/schedules", "tbody a[href^='/schedules/']"),
    "usage": ("/usage",),
    "dead-letters": ("/dead-letters",),
    "dead-cause": ("/dead-letters", "tbody a[href^='/dead-letters/']"),
    "dead-letter": ("/dead-letters?view=open", "tbody a[href^='/dead-letters/']"),
    "audit": ("/audit",),
}
QUALITY = 80  # of WebP: letters stay sharp, a page takes 30 kB


async def photograph(asked: argparse.Namespace) -> None:
    """Every page into the folder."""
    asked.into.mkdir(parents=True, exist_ok=True)
    async with standing() as ground, chromium() as browser:
        for theme in ("light", "dark"):
            context = await browser.new_context(viewport=WIDE, color_scheme=theme)
            page = await context.new_page()
            await page.goto(ground.url)
            await _take(page, asked.into / f"sign-in-{theme}.webp")
            await sign_in(page, ground)
            for name, way in PAGES.items():
                if asked.only not in name:
                    continue
                await _open(page, ground, way)
                await _take(page, asked.into / f"{name}-{theme}.webp")
                if asked.narrow:
                    await page.set_viewport_size(NARROW)
                    await _take(page, asked.into / f"{name}-narrow-{theme}.webp")
                    await page.set_viewport_size(WIDE)
            await context.close()


async def _open(page: Page, ground: Ground, way: tuple[str, ...]) -> None:
    await page.goto(ground.url + way[0])
    for link in way[1:]:
        await page.locator(link).first.click()
    await page.wait_for_load_state("load")
    await page.evaluate("document.fonts.ready")


async def _take(page: Page, path: Path) -> None:
    # By the protocol itself, as Playwright has no WebP.
    session = await page.context.new_cdp_session(page)
    taken = await session.send("Page.captureScreenshot", {"format": "webp", "quality": QUALITY})
    path.write_bytes(base64.b64decode(taken["data"]))
    await session.detach()
