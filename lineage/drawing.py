"""A chain as a drawing: Mermaid text, and the layers of boxes that the page puts below each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lineage.chain import members

_SHOWN_SOURCES = 4


@dataclass(frozen=True)
class Box:
    """A box of the drawing.

    Attributes:
        key: names it in the drawing; title: what it is; lines: further text.
        kind: "source", "artifact" or "prediction"; altered: what no longer fits, empty where all does.
    """

    key: str
    title: str
    lines: tuple[str, ...]
    kind: str
    altered: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drawing:
    """Boxes by key, and arrows (from, to, role) from what was read to what was made of it."""

    boxes: Mapping[str, Box]
    arrows: tuple[tuple[str, str, str], ...]


def drawing(node: Mapping[str, Any], broken: Mapping[str, str] | None = None) -> Drawing:
    """The boxes and arrows of a chain.

    Args:
        broken: source file to what is wrong with it.
    """
    boxes: dict[str, Box] = {}
    arrows = []
    for one in members(node):
        key = key_of(one)
        if one["sources"]:
            box = _sources(key, one["sources"], broken or {})
            boxes[box.key] = box
            arrows.append((box.key, key, "read by"))
        boxes[key] = _box(key, one)
        arrows += [(key_of(source), key, role) for role, source in one["inputs"].items()]
    return Drawing(boxes, tuple(arrows))


def mermaid(shown: Drawing) -> str:
    """The drawing as a Mermaid flowchart."""
    lines = ["flowchart TD"]
    for box in shown.boxes.values():
        text = "<br/>".join(map(_safe, (box.title, *box.lines, *(f"ALTERED: {what}" for what in box.altered))))
        opened, closed = {"source": ("[(", ")]"), "prediction": ("([", "])")}.get(box.kind, ("[", "]"))
        lines.append(f'  {box.key}{opened}"{text}"{closed}')
    lines += [f'  {source} -->|"{_safe(role)}"| {target}' for source, target, role in shown.arrows]
    if wrong := [box.key for box in shown.boxes.values() if box.altered]:
        lines += ["  classDef altered stroke:#c00,stroke-width:3px", f"  class {','.join(wrong)} altered"]
    return "\n".join(lines) + "\n"


def layers(shown: Drawing) -> list[list[str]]:
    """Keys of the boxes by depth: a box stands below all it was made from."""
    depth = dict.fromkeys(shown.boxes, 0)
    for key in shown.boxes:  # in order of making, so that one pass is enough
        depth[key] = max((depth[source] + 1 for source, target, _ in shown.arrows if target == key), default=0)
    for key, box in shown.boxes.items():
        if box.kind == "source":  # just above what reads it
            depth[key] = min(depth[target] for source, target, _ in shown.arrows if source == key) - 1
    first = min(depth.values())
    rows: list[list[str]] = [[] for _ in range(max(depth.values()) - first + 1)]
    for key, row in depth.items():
        rows[row - first].append(key)
    return rows


def essential(shown: Drawing) -> Drawing:
    """The drawing without arrows that a longer way already says: what reads a report's patients reads their cohort."""
    above: dict[str, set[str]] = {}
    direct: dict[str, set[str]] = {key: {source for source, target, _ in shown.arrows if target == key}
                                   for key in shown.boxes}
    for key, sources in direct.items():  # in order of making: what stands above a source is known by now
        above[key] = set().union(*(above[source] | {source} for source in sources))
    arrows = tuple(arrow for arrow in shown.arrows
                   if not any(arrow[0] in above[between] for between in direct[arrow[1]]))
    return Drawing(shown.boxes, arrows)


def _box(key: str, node: Mapping[str, Any]) -> Box:
    facts = tuple(f"{name}: {_number(value)}" for name, value in (node.get("facts") or {}).items()
                  if name != "patient row")
    variant = node["settings"].get("variant")
    lines = (*((f"arm {variant}",) if variant else ()), *facts, f"sha256 {node['sha256'][:12]}")
    kind = "prediction" if node["kind"] == "prediction" else "artifact"
    return Box(key, node["id"], lines, kind, tuple(node.get("altered") or ()))


def _sources(key: str, sources: Mapping[str, str], broken: Mapping[str, str]) -> Box:
    shown = [f"{name.rpartition('/')[2]} {digest[:12]}" for name, digest in list(sources.items())[:_SHOWN_SOURCES]]
    more = [f"and {len(sources) - _SHOWN_SOURCES} more"] if len(sources) > _SHOWN_SOURCES else []
    wrong = tuple(f"{name} {broken[name]}" for name in sources if name in broken)
    title = f"{len(sources)} source file{'s' if len(sources) > 1 else ''}"
    return Box(f"{key}_sources", title, (*shown, *more), "source", wrong)


def key_of(node: Mapping[str, Any]) -> str:
    """What names a node in drawings and pages."""
    return re.sub(r"\W", "_", f"{node['id']}_{node['sha256'][:6]}")


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _safe(text: str) -> str:
    """Text for a Mermaid label, which knows entities by number only."""
    return re.sub(r'[#"<>&|`\[\]{}()\\]', lambda sign: f"#{ord(sign.group())};", text)
