"""Draws figures as an SVG by hand: a panel for each comparison, bars with their spread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from tests.benchmarks.figures import Figure, shown

WIDTH, LABEL, BAR, GAP, TITLE = 940, 320, 18, 8, 34  # pixels
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; font-size: 14px; } .value { fill: #57606a; }
  .ours { fill: #2f6fde; } .peer { fill: #c0792a; } .limit { fill: #8c959f; }
  .spread { stroke: #24292f; stroke-width: 1.2; opacity: .7; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .value { fill: #9da7b1; } .spread { stroke: #e6edf3; }
  }
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars of one unit under one title; figures that were not measured are left out."""

    title: str
    keys: tuple[str, ...]


PANELS = (
    Panel(
        "Drain until every result and audit event is in Postgres, tasks/s (more is better)",
        ("W2 raw loop", "W2 aurora, 1 worker", "W2 aurora, 2 workers",
         "W2 aurora, 1 worker, rows there already", "W2 pgqueuer", "W2 taskiq-redis"),
    ),
    Panel(
        "Enqueue in bulk, tasks/s (more is better)",
        ("W1 raw XADD pipelined, packed", "W1 raw XADD pipelined, redis-py", "W1 bulk, stream",
         "W1 raw rows of 1,000 tasks and their audit, asyncpg", "W1 bulk, database",
         "W1 HTTP bulk, stream", "W1 HTTP bulk, database", "W1 bulk, pgqueuer",
         "W1 bulk, taskiq-redis"),
    ),
    Panel(
        "Enqueue one awaited call after the other, tasks/s (more is better)",
        ("W1 raw XADD one by one, packed", "W1 raw XADD one by one, redis-py",
         "W1 one by one, stream", "W1 raw one-row commit, asyncpg", "W1 one by one, database",
         "W1 HTTP single, stream", "W1 HTTP single, database", "W1 one by one, pgqueuer",
         "W1 one by one, taskiq-redis"),
    ),
    Panel(
        "Enqueue until the result is in the caller's hand, median, ms (less is better)",
        ("W3 raw result p50", "W3 result p50, stream", "W3 result p50, database",
         "W3 result p50, taskiq-redis", "W3 result p50, pgqueuer"),
    ),
    Panel(
        "2,000 tasks that wait 0.5 s, 500 at a time, total / ideal (less is better)",
        ("W4 aurora, 2,000 tasks", "W4 pgqueuer, 2,000 tasks", "W4 taskiq-redis, 2,000 tasks"),
    ),
    Panel(
        "Drain by size of the backlog, tasks/s",
        ("W6 backlog 1,000", "W6 backlog 10,000", "W6 backlog 100,000", "W6 backlog 1,000,000"),
    ),
)  # fmt: skip


def draw(figures: Mapping[str, Figure], panels: Sequence[Panel] = PANELS) -> str:
    """The whole picture."""
    parts: list[str] = []
    y = 10.0
    for panel in panels:
        bars = [figures[key] for key in panel.keys if key in figures]
        if not bars:
            continue
        parts.append(f'<text class="title" x="10" y="{y + 18:.0f}">{escape(panel.title)}</text>')
        y += TITLE
        # The longest whisker and its number must fit.
        scale = (WIDTH - LABEL - 200) / max(max(each.values) for each in bars)
        for each in bars:
            parts += _bar(each, y, scale)
            y += BAR + GAP
        y += GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y:.0f}"'
        f' viewBox="0 0 {WIDTH} {y:.0f}" role="img">\n<style>{STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def write(path: Path, figures: Mapping[str, Figure]) -> None:
    """Draw into a file."""
    path.write_text(draw(figures))


def _bar(figure: Figure, y: float, scale: float) -> list[str]:
    middle, low, high = figure.median * scale, min(figure.values), max(figure.values)
    text = y + BAR * 0.75
    said = f"{shown(figure.median)}  ({shown(low)} - {shown(high)})"
    end = LABEL + max(middle, high * scale)
    spread = f'x1="{LABEL + low * scale:.1f}" x2="{LABEL + high * scale:.1f}"'
    box = f'x="{LABEL}" y="{y:.1f}" width="{max(middle, 1):.1f}" height="{BAR}" rx="2"'
    half = f"{y + BAR / 2:.1f}"
    return [
        f'<text x="{LABEL - 8}" y="{text:.1f}" text-anchor="end">{escape(figure.what)}</text>',
        f'<rect class="{_kind(figure)}" {box}/>',
        f'<line class="spread" {spread} y1="{half}" y2="{half}"/>',
        f'<text class="value" x="{end + 8:.1f}" y="{text:.1f}">{said}</text>',
    ]


def _kind(figure: Figure) -> str:
    if "raw" in figure.what:
        return "limit"
    return "peer" if "pgqueuer" in figure.what or "taskiq" in figure.what else "ours"
