"""Why a stage ran or was skipped, as a page of the Prefect UI: hit or miss, what changed, what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext, TaskRunContext

from tasks.meter import in_words

_KINDS = (("input ", "input"), ("setting ", "setting"), ("code of ", "code"), ("version of ", "version"))


def kind_of(reason: str) -> str:
    """What a phrase of `lineage.fingerprint.changes` is about: input, setting, code, version, or "-"."""
    return next((kind for beginning, kind in _KINDS if reason.startswith(beginning)), "-")


def brief(reasons: Sequence[str], most: int = 4) -> str:
    """The first reasons in one line for a terminal; the page and the manifest hold all of them."""
    more = len(reasons) - most
    return "; ".join(reasons[:most]) + (f"; and {more} more changes, on its page in Prefect" if more > 0 else "")


def page(stage: str, ran: bool, reasons: Sequence[str], cost: Mapping[str, float], artifact: str,
         summary: str = "") -> str:
    """One stage's page.

    Args:
        ran: a miss; a hit otherwise.
        reasons: phrases, each about one thing.
        cost: of `Cost.metrics`; of a hit: what was spent when it was made.
        summary: of the stage, in Markdown.
    """
    head = (f"# {stage}: {'miss, made' if ran else 'hit, reused'}\n\n"
            f"Artifact `{artifact}`. {'Cost' if ran else 'Cost when it was made, saved now'}: {in_words(cost)}.")
    rows = "\n".join(f"| {kind_of(reason)} | {_cell(reason)} |" for reason in reasons)
    return "\n\n".join(part for part in (head, f"| what | why |\n|---|---|\n{rows}", summary) if part) + "\n"


def table(rows: Sequence[tuple[str, bool, str, Mapping[str, float], str]]) -> str:
    """All stages of a flow run: (stage, ran, why, cost, artifact)."""
    lines = [f"| {stage} | {'miss' if ran else 'hit'} | {_cell(why)} | {in_words(cost)} | {artifact} |"
             for stage, ran, why, cost, artifact in rows]
    return "\n".join(["| stage | cache | why | cost (of a hit: when it was made) | artifact |", "|---|---|---|---|---|",
                      *lines]) + "\n"


def publish(text: str, name: str, description: str) -> None:
    """The page as an artifact of the running task or flow; nothing where neither runs."""
    if TaskRunContext.get() is None and FlowRunContext.get() is None:
        return
    key = "".join(sign if sign.isalnum() else "-" for sign in name.lower())
    create_markdown_artifact(text, key=key, description=description)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
