"""Photographs of every page, light and dark, for the docs and for whoever changes a page."""

import argparse

from playwright.async_api import Page

from tests.dashboard.browser import NARROW, WIDE, chromium, sign_in
from tests.dashboard.ground import Ground
from tests.dashboard.standing import standing

# Name -> where it is; a second path is that of a link on the first, which is followed.
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
    "dead-letters": ("/dead-letters",),
    "dead-cause": ("/dead-letters", "tbody a[href^='/dead-letters/']"),
    "dead-letter": ("/dead-letters?view=open", "tbody a[href^='/dead-letters/']"),
    "audit": ("/audit",),
}


async def photograph(asked: argparse.Namespace) -> None:
    """Every page into the folder."""
    asked.into.mkdir(parents=True, exist_ok=True)
    async with standing() as ground, chromium() as browser:
        for theme in ("light", "dark"):
            context = await browser.new_context(viewport=WIDE, color_scheme=theme)
            page = await context.new_page()
            await page.goto(ground.url)
            await page.screenshot(path=asked.into / f"sign-in-{theme}.png")
            await sign_in(page, ground)
            for name, way in PAGES.items():
                if asked.only not in name:
                    continue
                await open_page(page, ground, way)
                await page.screenshot(path=asked.into / f"{name}-{theme}.png")
                if asked.narrow:
                    await page.set_viewport_size(NARROW)
                    await page.screenshot(path=asked.into / f"{name}-narrow-{theme}.png")
                    await page.set_viewport_size(WIDE)
            await context.close()


async def open_page(page: Page, ground: Ground, way: tuple[str, ...]) -> None:
    """Go there, and follow the link if there is one."""
    await page.goto(ground.url + way[0])
    for link in way[1:]:
        await page.locator(link).first.click()
    await page.wait_for_load_state("load")
    await page.evaluate("document.fonts.ready")
