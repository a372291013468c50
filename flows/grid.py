"""The points of a sweep: which settings each of its studies has; without Prefect, so that errors come before a server.

In: `--over` as it was typed. Out: dotted name to JSON-ready value for each point.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from configs.load import load
from contracts.errors import ConfigError

MOST = 1000


def checked(config: str, over: Sequence[str], overrides: Sequence[str], draws: int | None, seed: int
            ) -> list[dict[str, Any]]:
    """The points of a sweep over a configuration with overrides, each of which is a valid configuration.

    Raises:
        ConfigError: of `points`, or a setting of a point is unknown or out of range.
    """
    chosen = points(over, draws, seed)
    for one in chosen:
        load(config, [*overrides, *settings_of(one)])
    return chosen


def points(over: Sequence[str], draws: int | None, seed: int) -> list[dict[str, Any]]:
    """The settings of each study.

    Args:
        over: "section.key=value,value,..." or "section.key=[value, ...]"; each value is read as YAML.
        draws: none: the whole grid; else so many of its points, drawn without repeating.
        seed: of the draw.

    Raises:
        ConfigError: an entry is not of that form, a setting stands twice, or there are more than MOST points.
    """
    axes = dict(map(_axis, over))
    if len(axes) < len(over) or not axes:
        raise ConfigError(f"--over {' '.join(over) or 'nothing'}", "at least one setting, each once",
                          "for example --over rewards.weight=0.4,0.6,0.8")
    size = 1
    for values in axes.values():
        size *= len(values)
    wanted = size if draws is None else min(draws, size)
    if wanted > MOST or wanted < 1:
        raise ConfigError(f"{wanted} studies", f"a sweep has 1 to {MOST}", "fewer values, or --random with a number")
    grid = range(size) if draws is None else sorted(random.Random(seed).sample(range(size), wanted))
    return [_point(axes, number) for number in grid]


def settings_of(point: Mapping[str, Any]) -> list[str]:
    """A point as overrides of a configuration."""
    return [f"{name}={json.dumps(value)}" for name, value in point.items()]


def _axis(entry: str) -> tuple[str, list[Any]]:
    name, sign, text = entry.partition("=")
    try:
        read = yaml.safe_load(text if text.strip().startswith("[") else f"[{text}]")
        values = json.loads(json.dumps(read, default=str))  # YAML has dates, which settings and tables write as text
    except (yaml.YAMLError, ValueError, TypeError):  # the 13th month; a date as a name
        values = None
    if not sign or not name.strip() or not isinstance(values, list) or not values:
        raise ConfigError(f"--over {entry!r}", "section.key=value,value,...", "for example rewards.weight=0.4,0.6,0.8")
    return name.strip(), values


def _point(axes: dict[str, list[Any]], number: int) -> dict[str, Any]:
    """Point `number` of the grid, the last axis turning fastest."""
    point = {}
    for name in reversed(axes):
        number, place = divmod(number, len(axes[name]))
        point[name] = axes[name][place]
    return {name: point[name] for name in axes}
