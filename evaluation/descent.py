"""What each figure descends from: every artifact behind the report, back to the digests of the source files.

In go chains of artifacts as plain nested values (`lineage.chain.chain`), out come `Link`s, sources first, and for each
arm of the result table the links that its figures rest on; drawn as `<svg>`, and as Mermaid text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from evaluation.risks import FIRST
from evaluation.tables import policy_arms
from evaluation.wording import NONE

PAGE, SOURCE = "(this report)", "source file"
_SHORT = 12
_HELD = re.compile(r"(?:seed(?P<training>\d+)\.)?(?P<what>verdicts|adapter)\.(?P<arm>.+)")  # roles of an arm
# Pixels of the drawing: a box, and from one column or row to the next.
_WIDE, _HIGH, _COLUMN, _ROW, _EDGE = 128, 36, 152, 46, 6


@dataclass(frozen=True)
class Link:
    """One artifact, one source file, or the report itself.

    Attributes:
        id: of the artifact, or the file's name.
        kind: stage that made it, "source file", or "report".
        names: what it is in the report: roles such as "verdicts.stage1" and "adapter.stage1".
        sha256: of its content; None for the report, which is being made.
        commit, run: of the code and of MLflow; None for a source file.
        made_from: ids of the links that it was made from.
        seconds: how long its stage took; None: not known.
    """

    id: str
    kind: str
    names: tuple[str, ...]
    sha256: str | None
    commit: str | None
    run: str | None
    made_from: tuple[str, ...]
    seconds: float | None = None


def links(chains: Mapping[str, Mapping[str, Any]], commit: str, run: str) -> tuple[Link, ...]:
    """All links behind a report, each after those it was made from, the report last.

    Args:
        chains: role to chain, of each artifact that the report was made from.
        commit, run: of the report.
    """
    found: dict[str, Link] = {}
    for chain in chains.values():
        _collect(chain, found)
    for role, chain in chains.items():
        _name(chain["id"], role, found)
        if "adapter" in chain["inputs"] and not role.startswith("validation."):
            arm = role.rpartition("verdicts.")[2].removesuffix(FIRST)
            _name(chain["inputs"]["adapter"]["id"], f"adapter.{arm}", found)
    page = Link(PAGE, "report", (), None, commit, run, tuple(dict.fromkeys(chain["id"] for chain in chains.values())))
    return (*found.values(), page)


def _name(wanted: str, name: str, found: dict[str, Link]) -> None:
    found[wanted] = replace(found[wanted], names=tuple(dict.fromkeys([*found[wanted].names, name])))


def _collect(chain: Mapping[str, Any], found: dict[str, Link]) -> None:
    if chain["id"] in found:
        return
    for source in chain["inputs"].values():
        _collect(source, found)
    files = [_file(name, digest, found) for name, digest in (chain["sources"] or {}).items()]
    found.update({file.id: file for file in files})
    parents = [*(file.id for file in files), *(source["id"] for source in chain["inputs"].values())]
    seconds = None
    if chain.get("started") is not None and chain.get("finished") is not None:
        seconds = float(chain["finished"]) - float(chain["started"])
    found[chain["id"]] = Link(chain["id"], chain["stage"], (), chain["sha256"], str(chain["commit"]),
                              str(chain["tracking_run"]), tuple(dict.fromkeys(parents)), seconds)


def _file(name: str, digest: str, found: Mapping[str, Link]) -> Link:
    """A source file; of two that bear one name and differ, the second bears its digest too."""
    other = found.get(name)
    own = name if other is None or other.sha256 == digest else f"{name} ({short(digest)})"
    return Link(own, SOURCE, (), digest, None, None, ())


def condensed(found: Sequence[Link]) -> tuple[Link, ...]:
    """The links with the source files of one artifact as one link, where there are several (an extract has dozens).

    Its `names` are the files with the first digits of their digests.
    """
    together: dict[tuple[str, ...], list[Link]] = {}
    for one in found:
        if one.kind == SOURCE:
            readers = tuple(other.id for other in found if one.id in other.made_from)
            together.setdefault(readers, []).append(one)
    instead = {file.id: _bundled(files) for files in together.values() if len(files) > 1 for file in files}
    kept: dict[str, Link] = {}
    for one in found:
        parents = tuple(dict.fromkeys(instead[name].id if name in instead else name for name in one.made_from))
        shown = instead.get(one.id) or replace(one, made_from=parents)
        kept.setdefault(shown.id, shown)
    return tuple(kept.values())


def _bundled(files: Sequence[Link]) -> Link:
    first = files[0].id
    return Link(f"{len(files)} source files ({first} …)", SOURCE,
                tuple(f"{file.id} {short(file.sha256)}" for file in files), None, None, None, ())


def anchors(found: Sequence[Link]) -> dict[str, int]:
    """Place of each link; a link of several files has the place of its first."""
    places = {one.id: place for place, one in enumerate(found)}
    first = {one.names[0].rpartition(" ")[0]: one.id for one in condensed(found) if one.kind == SOURCE and one.names}
    return places | {bundle: places[name] for name, bundle in first.items()}


def behind(found: Sequence[Link], *wanted: str) -> list[Link]:
    """Some links, by their ids, and all they descend from, sources first; without those that are not there."""
    known = {one.id: one for one in found}
    waiting, reached = [name for name in wanted if name in known], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += known[name].made_from
    return [one for one in found if one.id in reached]


def origins(found: Sequence[Link], table: Any) -> dict[str, tuple[Link, ...]]:
    """For each arm of the result table the artifacts that hold its answers or risks: one for each training, the study's
    own first. An arm without any is left out."""
    policy = policy_arms(table)
    held = {arm: _answers(found, arm) if arm in policy else tuple(one for one in found if "baselines" in one.names)
            for arm in table["arm"].unique(maintain_order=True)}
    return {arm: links for arm, links in held.items() if links}


def _answers(found: Sequence[Link], arm: str) -> tuple[Link, ...]:
    """The links whose roles are `verdicts.ARM`, `seed2.verdicts.ARM` and so on, in this order."""
    trainings: dict[int, Link] = {}
    for one in found:
        for role in map(_HELD.fullmatch, one.names):
            if role and (role["what"], role["arm"]) == ("verdicts", arm):
                trainings[int(role["training"] or 1)] = one
    return tuple(trainings[number] for number in sorted(trainings))


def short(digest: str | None) -> str:
    """The first digits of a digest or commit."""
    return NONE if digest is None else digest[:_SHORT] + ("+changes" if digest.endswith("+changes") else "")


def named(link: Link) -> str:
    """A link in words: its id, with the first digits of its digest if it has one."""
    return f"{link.id} ({short(link.sha256)})" if link.sha256 else link.id


def essential(found: Sequence[Link]) -> dict[str, tuple[str, ...]]:
    """For each link what it was made from, without what one of the others was itself made from."""
    above: dict[str, set[str]] = {}
    for one in found:
        above[one.id] = set(one.made_from).union(*(above[name] for name in one.made_from))
    return {one.id: tuple(name for name in one.made_from
                          if not any(name in above[other] for other in one.made_from)) for one in found}


def mermaid(found: Sequence[Link]) -> str:
    """The drawing as Mermaid text, for Markdown."""
    number = {one.id: f"n{place}" for place, one in enumerate(found)}
    lines = ["```mermaid", "flowchart LR"]
    lines += [f'  {number[one.id]}["{_mermaid_text(one)}"]' for one in found]
    lines += [f"  {number[parent]} --> {number[name]}" for name, parents in essential(found).items()
              for parent in parents]
    return "\n".join([*lines, "```"])


def _mermaid_text(link: Link) -> str:
    words = [_title(link), short(link.sha256)] if link.sha256 else [_title(link)]
    return "<br>".join(word.replace('"', "#quot;").replace("<", "#lt;") for word in words)


def _title(link: Link) -> str:
    if link.kind == SOURCE:
        return f"{len(link.names)} source files" if link.names else link.id.rsplit("/", 1)[-1]
    roles = filter(None, map(_HELD.fullmatch, link.names))
    arms = [f"{role['arm']}, seed {role['training']}" if role["training"] else role["arm"] for role in roles]
    return f"{link.kind}: {', '.join(arms)}" if arms else link.kind


def draw(found: Sequence[Link], name: str = "lineage") -> str:
    """The links as an `<svg>` element: what is made from something stands to the right of it."""
    parents = essential(found)
    places = _places(found, parents)
    width = max(x for x, _ in places.values()) + _WIDE + _EDGE
    height = max(y for _, y in places.values()) + _HIGH + _EDGE
    lines = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{name}-title {name}-description" '
             f'class="plot lineage" style="max-width: {width}px; min-width: min(64rem, {width}px)">',
             f'<title id="{name}-title">From source files to this report</title>',
             f'<desc id="{name}-description">{len(found)} links; every one stands in the table below.</desc>']
    lines += [_arrow(places[parent], places[child]) for child, above in parents.items() for parent in above]
    lines += [_box(one, places[one.id]) for one in found]
    return "\n".join([*lines, "</svg>"])


def _places(found: Sequence[Link], parents: Mapping[str, Iterable[str]]) -> dict[str, tuple[int, int]]:
    """Column by the longest way from a source; rows of a column by the mean row of what they were made from."""
    column: dict[str, int] = {}
    for one in found:
        column[one.id] = 1 + max((column[parent] for parent in parents[one.id]), default=-1)
    most = max(list(column.values()).count(number) for number in set(column.values()))
    places: dict[str, tuple[int, int]] = {}
    for number in range(max(column.values()) + 1):
        members = [one.id for one in found if column[one.id] == number]
        members.sort(key=lambda name: _mean([places[parent][1] for parent in parents[name]]))
        top = _EDGE + (most - len(members)) * _ROW // 2
        places |= {name: (_EDGE + number * _COLUMN, top + place * _ROW) for place, name in enumerate(members)}
    return places


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    left, right = start[0] + _WIDE, end[0]
    top, bottom, bend = start[1] + _HIGH / 2, end[1] + _HIGH / 2, (end[0] - start[0] - _WIDE) / 2
    return f'<path d="M{left},{top:g} C{left + bend:g},{top:g} {right - bend:g},{bottom:g} {right},{bottom:g}"/>'


def _box(link: Link, place: tuple[int, int]) -> str:
    x, y = place
    words = f"{link.id}\nsha256 {link.sha256 or NONE}\ncommit {short(link.commit)}\nMLflow run {link.run or NONE}"
    look = {SOURCE: "source", "report": "page"}.get(link.kind, "made")
    title = _title(link)
    title = title if len(title) <= 20 else f"{title[:19]}…"
    words = "\n".join(link.names) if link.kind == SOURCE and link.names else words
    below = link.sha256[:_SHORT] if link.sha256 else "in the table below" if link.names else short(link.commit)
    return (f'<g><title>{escape(words)}</title><rect class="{look}" x="{x}" y="{y}" width="{_WIDE}" height="{_HIGH}" '
            f'rx="{16 if look == "source" else 3}"/><text x="{x + _WIDE / 2:g}" y="{y + 15}">{escape(title)}</text>'
            f'<text class="digest" x="{x + _WIDE / 2:g}" y="{y + 28}">{escape(below)}</text></g>')
