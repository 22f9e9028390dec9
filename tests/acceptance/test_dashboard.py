"""The dashboard in a real browser: nothing breaks, nothing leaves, everybody can read it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.db.models import AlertRow
from orchestrator.db.session import Database
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.streams.names import ALERTS
from orchestrator.streams.publisher import Publisher
from orchestrator.task import new_id
from tests.dashboard.browser import NARROW, WIDE, Watched, axe, chromium, opened
from tests.dashboard.ground import Ground, served
from tests.dashboard.hostile import PAYLOADS, rows
from tests.dashboard.seed import sow

pytestmark = pytest.mark.acceptance

# Pages below those of the navigation: where their link is, and which it is.
BELOW = (
    ("/tasks?state=failed", "tbody a[href^='/tasks/']"),
    ("/tasks?state=running", "tbody a[href^='/tasks/']"),
    (
        "/tasks?agent=enrich&state=succeeded",
        "tbody a[href^='/tasks/']",
    ),  # with calls of models
    ("/alerts", "tbody a[href^='/alerts/']"),
    ("/agents", "tbody a[href='/agents/enrich']"),
    ("/agents/triage", "a[href$='?as=json']"),
    ("/schedules", "tbody a[href^='/schedules/']"),
    ("/schedules", "a[href='/schedules/new']"),
    ("/dead-letters", "tbody a[href^='/dead-letters/']"),
    ("/dead-letters?view=open", "tbody a[href^='/dead-letters/']"),
    ("/audit?action=task.*", "details.change summary"),
)
EMPTY = (
    "/dead-letters?view=closed",
    "/audit?contains=x&window=all",
    "/agents/none",
    "/tasks?state=dead",
    "/usage?model=none",
    "/alerts?signature=nowhere",
    "/tasks/none",
    "/tasks?state=none",
)
# A theme is colours: the second one is looked at for these alone.
RULES = {
    "light": "{resultTypes: ['violations']}",
    "dark": "{resultTypes: ['violations'], runOnly: ['color-contrast', 'link-in-text-block']}",
}
# What escaping leaves and `text.visible` names; see there.
HIDDEN = "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u2069\\ufeff]"


@pytest.fixture
async def ground(settings: Settings, database: Database, streams: Streams) -> AsyncIterator[Ground]:
    async with served(settings, database, streams) as found:
        yield found


async def test_every_page_in_both_themes(ground: Ground, tmp_path: Path):
    """No error in the console, no request elsewhere, no serious finding of axe, no scrolling
    sideways on a telephone."""
    source = axe(tmp_path)
    async with chromium() as browser:
        for theme in ("light", "dark"):
            watched = await opened(browser, ground, theme=theme)
            page = watched.page
            places = [*ground.navigation, *EMPTY]
            for path, link in [*((path, None) for path in places), *BELOW]:
                answer = await page.goto(ground.url + path)
                assert answer is not None
                if link is not None:
                    await page.locator(link).first.click()
                await page.wait_for_load_state("load")
                await page.evaluate(source)
                found = await page.evaluate(
                    f"axe.run({RULES[theme]}).then(r => r.violations"
                    ".filter(v => ['serious', 'critical'].includes(v.impact))"
                    ".map(v => `${v.id}: ${v.nodes.map(n => n.html).slice(0, 3)}`))"
                )
                assert found == [], (theme, page.url)
                await page.set_viewport_size(NARROW)
                wide = await page.evaluate("document.documentElement.scrollWidth")
                assert wide <= NARROW["width"], (page.url, wide)
                await page.set_viewport_size(WIDE)
            # A page that is not there is an error of the address, and the browser says so.
            wrong = [each for each in watched.wrong if "status of 4" not in each]
            assert wrong == [], theme
            await page.context.close()


async def test_no_payload_does_anything(ground: Ground):
    """In every field of alerts, tasks, letters and acts it is text, and nothing of it is hidden."""
    assert len(PAYLOADS) == 200
    await sow(ground.database, rows(datetime.now(UTC)))
    async with chromium() as browser:
        watched = await opened(browser, ground)
        page = watched.page
        for path in ground.navigation:
            link: str | None = path
            for _ in range(6):
                await page.goto(ground.url + str(link))
                await _is_unharmed(watched)
                more = page.locator("a[rel=next]")
                link = await more.get_attribute("href") if await more.count() else None
                if link is None:
                    break
        for path in ("/tasks", "/alerts", "/schedules", "/dead-letters"):
            await page.goto(ground.url + path)
            paths = await page.evaluate(
                "prefix => [...document.querySelectorAll(`tbody a[href^='${prefix}/']`)]"
                ".slice(0, 4).map(a => a.getAttribute('href'))",
                path,
            )
            for each in paths:
                await page.goto(ground.url + each)
                await _is_unharmed(watched)
        assert [each for each in watched.wrong if "status of 404" not in each] == []


async def test_an_alert_appears_by_itself(ground: Ground):
    """On an open page; under the pointer it waits, and a paused page stays as it is."""
    async with chromium() as browser:
        watched = await opened(browser, ground)
        page = watched.page
        async with page.expect_response(lambda answer: "/live/alerts" in answer.url):
            await page.goto(f"{ground.url}/alerts")

        first = await _publish(ground)
        await page.wait_for_selector(f"#alert-{first}")

        await page.hover("tbody tr:nth-child(3)")
        second = await _publish(ground)
        await page.wait_for_selector("#pill:not([hidden])")
        assert await page.locator(f"#alert-{second}").count() == 0
        await page.hover("#pill")
        await page.click("#pill")
        await page.wait_for_selector(f"#alert-{second}")
        await page.click(f"#alert-{second} button")
        await page.wait_for_selector(f"#alert-{second} time[title]")
        await page.wait_for_function(
            "id => !document.querySelector(`#alert-${id} button`)", arg=second
        )
        assert watched.wrong == []


async def test_a_link_from_another_site_arrives_signed_in(ground: Ground):
    """Though the cookie is kept from other sites; a form of theirs changes nothing."""
    async with chromium() as browser:
        watched = await opened(browser, ground)
        page = watched.page
        elsewhere = ground.url.replace("127.0.0.1", "localhost")
        html = (
            f"<a href='{ground.url}/tasks'>link</a>"
            f"<form method=post action='{ground.url}/sign-out'><button>free money</button></form>"
        )
        await page.route(
            f"{elsewhere}/evil", lambda route: route.fulfill(body=html, content_type="text/html")
        )
        await page.goto(f"{elsewhere}/evil")
        await page.click("a")
        await page.wait_for_selector("h1:text('Tasks')")
        await page.goto(f"{elsewhere}/evil")
        await page.click("button")
        await page.wait_for_selector("text=sent by another site")
        await page.goto(f"{ground.url}/tasks")
        await page.wait_for_selector("h1:text('Tasks')")


async def _is_unharmed(watched: Watched) -> None:
    page = watched.page
    assert await page.evaluate("window.pwned") is None, page.url
    hidden = await page.evaluate(f"document.body.textContent.match(/{HIDDEN}/u)?.[0]")
    assert hidden is None, (page.url, hidden)
    strange = await page.evaluate(
        "[...document.querySelectorAll('a')].map(a => a.origin).filter(o => o !== location.origin)"
    )
    assert strange == [], page.url


async def _publish(ground: Ground) -> str:
    """An alert on its stream, and a moment later in the record: as its handler does."""
    now, alert_id = datetime.now(UTC), new_id()
    data = b'{"signature": "ET SCAN", "severity": "high"}'
    await Publisher(ground.streams, producer="test").publish_data(ALERTS, data, message_id=alert_id)
    row = AlertRow(
        id=alert_id, kind="network", source="test", severity="high", signature="ET SCAN",
        category="", occurred_at=now, received_at=now, task_ids=[],
    )  # fmt: skip
    await sow(ground.database, [row])
    return alert_id
