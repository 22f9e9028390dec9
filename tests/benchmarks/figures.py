"""What was measured, as values: samples of one round, figures over all rounds, ratios and goals.

No I/O; the workloads make samples, the report and the plot show figures.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of one round. `of`: the figure that it is to be read against, by its key."""

    workload: str
    what: str
    value: float
    unit: str
    of: str = ""

    @property
    def key(self) -> str:
        """The name of its figure: "W2 aurora, 1 worker"."""
        return f"{self.workload} {self.what}"


@dataclass(frozen=True, slots=True)
class Figure:
    """The same number over all rounds; `ratio` is the median of the rounds' own ratios."""

    workload: str
    what: str
    unit: str
    values: tuple[float, ...]
    of: str = ""
    ratio: float | None = None

    @property
    def key(self) -> str:
        return f"{self.workload} {self.what}"

    @property
    def median(self) -> float:
        return median(self.values)

    def as_json(self) -> dict[str, Any]:
        """What `--json` writes."""
        return {
            "workload": self.workload,
            "what": self.what,
            "unit": self.unit,
            "median": self.median,
            "min": min(self.values),
            "max": max(self.values),
            "values": list(self.values),
            "ratio": self.ratio,
            "of": self.of or None,
        }


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound that the issue sets: on a figure, or on its ratio to another one."""

    text: str
    key: str
    at_least: float | None = None
    at_most: float | None = None
    over: str | None = None

    def reached(self, figures: Mapping[str, Figure]) -> float | None:
        """The number that counts, None where it was not measured."""
        if self.key not in figures or (self.over and self.over not in figures):
            return None
        if self.over:
            return paired_ratio(figures[self.key].values, figures[self.over].values)
        return figures[self.key].median

    def is_met(self, reached: float) -> bool:
        """True when the number is on the right side of the bound."""
        if self.at_least is not None:
            return reached >= self.at_least
        return self.at_most is not None and reached <= self.at_most


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank: the smallest value that `share` of them do not exceed."""
    ordered = sorted(values)
    rank = math.ceil(round(len(ordered) * share, 6))
    return ordered[max(rank, 1) - 1]


def paired_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """Median of the ratios of the same round; of the medians where the rounds differ.

    Neighbours in time share the machine's mood, so their ratio wanders less than either number.
    """
    if len(values) == len(others):
        return median(mine / theirs for mine, theirs in zip(values, others, strict=True))
    return median(values) / median(others)


def figures_of(samples: Iterable[Sample]) -> dict[str, Figure]:
    """Gather samples by name, in the order of their first appearance, each with its ratio."""
    gathered: dict[str, list[Sample]] = {}
    for sample in samples:
        gathered.setdefault(sample.key, []).append(sample)
    found = {
        key: Figure(each[0].workload, each[0].what, each[0].unit, tuple(s.value for s in each))
        for key, each in gathered.items()
    }
    for key, each in gathered.items():
        of = each[0].of
        ratio = (
            paired_ratio(found[key].values, found[of].values) if of in found and of != key else None
        )
        figure = found[key]
        found[key] = Figure(figure.workload, figure.what, figure.unit, figure.values, of, ratio)
    return dict(sorted(found.items(), key=lambda item: item[1].workload))


def shown(value: float) -> str:
    """Three digits that matter: 12,345 or 12.3 or 0.123."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
