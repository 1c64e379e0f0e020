"""How a sweep's points are named in words, and which of them stand side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cwerm.reports.comparison import SweepResults
from cwerm.reports.points import PointResults, matters, setting

METHODS = {
    "erm": "ERM",
    "w-erm": "W-ERM",
    "c-random-erm": "C-random-ERM",
    "c-moderate-erm": "C-moderate-ERM",
    "cw-erm": "CW-ERM",
}
_NOISE = ("data.noise", "data.noise_rate", "data.imbalance")
_PLAIN = ("features.backbone", "train.model", "data.source")  # their values need no word before
_SETTLED = {"features.weights": "features.backbone"}  # the file of a backbone's own weights
# Names that several sections have.
_SHARED = {
    "batch_size",
    "epochs",
    "image_size",
    "input",
    "lr",
    "momentum",
    "precision",
    "weight_decay",
}


@dataclass(frozen=True)
class Panel:
    """Points that are alike in some keys, which the title tells."""

    title: str
    point: PointResults
    """One for which all of those keys matter, if there is one."""
    points: tuple[PointResults, ...]

    def rows(self, keys: Sequence[str]) -> dict[str, PointResults]:
        """The points by their other settings; of several with one name the most like the panel's."""
        found: dict[str, PointResults] = {}
        for point in sorted(self.points, key=self._unlike):
            found.setdefault(describe(point.job, keys), point)
        order = [describe(point.job, keys) for point in self.points]
        return {name: found[name] for name in dict.fromkeys(order)}

    def series(self, keys: Sequence[str]) -> dict[str, list[PointResults]]:
        """The points by their other settings, all of each."""
        found: dict[str, list[PointResults]] = {}
        for point in self.points:
            found.setdefault(describe(point.job, keys), []).append(point)
        return found

    def _unlike(self, point: PointResults) -> int:
        return sum(point.settings[key] != self.point.settings[key] for key in point.settings)


def panels(sweep: SweepResults, keys: Iterable[str]) -> list[Panel]:
    """The sweep's points with a score, a panel for each setting of ``keys``.

    A point to which a key does not matter, such as plain training to a backbone of features, is in every
    panel that it fits.
    """
    keys = [key for key in varying(sweep) if key in set(keys)]
    scored = [point for point in sweep.points if point.n]
    first: list[PointResults] = []
    for point in sorted(scored, key=lambda point: -sum(map(point.relevant, keys))):
        if not any(_alike(point, other, keys) for other in first):
            first.append(point)
    return [
        Panel(
            describe(point.job, keys),
            point,
            tuple(other for other in scored if _alike(point, other, keys)),
        )
        for point in sorted(first, key=scored.index)
    ]


def varying(sweep: SweepResults) -> list[str]:
    """The sweep's keys that have more than one value where they matter, in its order.

    Without a file of weights where each backbone has its own.
    """
    found = [key for key in sweep.keys if len(set(_values(sweep.points, key))) > 1]
    settled = {
        key
        for key, choice in _SETTLED.items()
        if {key, choice} <= {*found} and _settles(sweep.points, choice, key)
    }
    return [key for key in found if key not in settled]


def _values(points: Iterable[PointResults], *keys: str) -> list[Any]:
    """The settings of the points to which all of these keys matter."""
    relevant = [point for point in points if all(map(point.relevant, keys))]
    return [str([point.settings[key] for key in keys]) for point in relevant]


def _settles(points: Iterable[PointResults], choice: str, key: str) -> bool:
    """Whether a key is the same wherever the choice is the same."""
    relevant = [point for point in points if point.relevant(choice) and point.relevant(key)]
    return len({*_values(relevant, choice, key)}) == len({*_values(relevant, choice)})


def describe(job: Mapping[str, Any], keys: Iterable[str]) -> str:
    """A job in words: its settings of these keys, as far as they matter to it."""
    relevant = [key for key in keys if matters(job, key)]
    words = [_phrase(key, setting(job, key)) for key in relevant if key not in _NOISE]
    if any(key in _NOISE for key in relevant):
        words.append(_noise(job))
    return ", ".join(word for word in words if word)


def shown(key: str, value: Any) -> str:
    """A value as a table shows it."""
    if key == "method":
        return METHODS[value]
    if value is None:
        return "auto"
    if key in ("coreset.ratio", "data.noise_rate"):
        return f"{100 * value:g} %"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _phrase(key: str, value: Any) -> str:
    section, _, name = key.rpartition(".")
    text = shown(key, value)
    if key == "control":
        return "" if value == "none" else text
    if key == "method" or key in _PLAIN:
        return text
    words = name.replace("_", " ")
    if name in _SHARED:
        words = f"{section} {words}"
    return f"{section if name == 'method' else words} {text}"


def _noise(job: Mapping[str, Any]) -> str:
    data = job["data"]
    words = []
    if data["noise"] != "none":
        words.append(f"{shown('data.noise_rate', data['noise_rate'])} {data['noise']}")
    if data["imbalance"] > 1:
        words.append(f"long tail 1/{data['imbalance']:g}")
    return ", ".join(words) or "clean"


def _alike(point: PointResults, other: PointResults, keys: Iterable[str]) -> bool:
    both = (key for key in keys if point.relevant(key) and other.relevant(key))
    return all(point.settings[key] == other.settings[key] for key in both)
