"""A chain as one HTML page: a drawing and a text of each link; nothing is fetched, no script runs, all is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lineage.chain import members, source_files
from lineage.drawing import Box, Drawing, drawing, essential, key_of, layers

_WIDTH, _LINE, _GAP, _DROP, _LONGEST = 210, 16, 22, 46, 29


def render(node: Mapping[str, Any], broken: Mapping[str, str] | None = None, unreached: Sequence[str] = ()) -> str:
    """The page of a chain.

    Args:
        broken: source file to what is wrong with it.
        unreached: source files that could not be looked at.
    """
    shown = essential(drawing(node, broken))
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, undefined=StrictUndefined)
    everything = list(members(node))
    verified = any(one.get("altered") for one in everything) or bool(broken) if "altered" in everything[0] else None
    return environment.get_template("page.html").render(
        head=node, artifacts=sum(one["kind"] != "prediction" for one in everything), files=len(source_files(node)),
        verified=verified, unreached=len(unreached), picture=Markup(_svg(shown)),  # noqa: S704 - escaped below
        cards=[_card(one, broken or {}) for one in reversed(everything)])


def _card(node: Mapping[str, Any], broken: Mapping[str, str]) -> dict[str, Any]:
    moment = node.get("finished")
    facts = [("finished", datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC") if moment else None),
             ("study", node.get("study")), ("commit", node.get("commit")), ("run in MLflow", node.get("tracking_run")),
             ("arm", node["settings"].get("variant")), *(node.get("facts") or {}).items()]
    return {"key": key_of(node), "id": node["id"], "sha256": node["sha256"], "altered": node.get("altered") or (),
            "facts": [(name, value) for name, value in facts if value is not None and value != ""],
            "inputs": [(role, key_of(source), source["id"]) for role, source in node["inputs"].items()],
            "sources": [(name, digest, broken.get(name, "")) for name, digest in (node["sources"] or {}).items()]}


def _svg(shown: Drawing) -> str:
    """The drawing as SVG, a row a layer, the rows centred."""
    rows = layers(shown)
    width = max(len(row) for row in rows) * (_WIDTH + _GAP) + _GAP
    places: dict[str, tuple[float, float]] = {}
    top = float(_GAP)
    for row in rows:
        left = (width - len(row) * (_WIDTH + _GAP) + _GAP) / 2
        places |= {key: (left + index * (_WIDTH + _GAP), top) for index, key in enumerate(row)}
        top += max((_height(shown.boxes[key]) for key in row), default=0) + _DROP
    arrows = "".join(_arrow(shown, places, *ends) for ends in shown.arrows)
    boxes = "".join(_drawn(box, *places[key]) for key, box in shown.boxes.items())
    return (f'<svg viewBox="0 0 {width} {top:.0f}" width="{width}" height="{top:.0f}" role="img" aria-label="Boxes and '
            f'arrows of the chain"><defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>{arrows}{boxes}</svg>')


def _height(box: Box) -> float:
    return (2 + len(box.lines) + bool(box.altered)) * _LINE


def _arrow(shown: Drawing, places: Mapping[str, tuple[float, float]], source: str, target: str, role: str) -> str:
    left, top = places[source]
    x, y = left + _WIDTH / 2, top + _height(shown.boxes[source])
    end, below = places[target][0] + _WIDTH / 2, places[target][1]
    bend = (below - y) / 2
    return (f'<path d="M{x:.0f} {y:.0f}C{x:.0f} {y + bend:.0f} {end:.0f} {below - bend:.0f} {end:.0f} {below:.0f}" '
            f'marker-end="url(#tip)"><title>{escape(role)}</title></path>')


def _drawn(box: Box, left: float, top: float) -> str:
    texts = [(box.title, "name"), *((line, "minor") for line in box.lines)]
    if box.altered:
        texts.append((f"altered: {box.altered[0]}", "bad"))
    lines = "".join(f'<text class="{kind}" x="{left + 10:.0f}" y="{top + 20 + index * _LINE:.0f}">{escape(_cut(text))}'
                    f"<title>{escape(text)}</title></text>" for index, (text, kind) in enumerate(texts))
    classes = f"{box.kind}{' altered' if box.altered else ''}"
    return (f'<g class="{classes}"><rect x="{left:.0f}" y="{top:.0f}" width="{_WIDTH}" height="{_height(box):.0f}" '
            f'rx="6"/>{lines}</g>')


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST - 1]}…"
