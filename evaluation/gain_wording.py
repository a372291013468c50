"""Where the gain comes from, in words: the frames of `gain` as rows of text, and what they mean in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from evaluation.faithfulness import SWAPPED
from evaluation.gain import Gain
from evaluation.risks import TOKENS
from evaluation.uncertainty import ANSWERS, ROLLOUTS
from evaluation.wording import NONE, Grid, markdown, p_value
from prompts.token_risk import TOP_LOGPROBS

CONTROLS = (
    "“Swapped” is what the expert looks at in another patient. What was not measured in one of the two, or its prompt "
    "does not show, is left out for both, and the expert's features are worked out anew from its ranking of the rest, "
    "so that the overlap in this row is another than in the rows below it. “Frequent” is as many features drawn by how "
    "often the expert looks at them in training stays, “even” as many drawn evenly, both from what the arm's own "
    "prompt shows. An arm that beats only “even” names what matters in this cohort; one that beats “swapped” follows "
    "the patient. Stays without a named feature count as overlap 0. The expert's features are the study's for every "
    "arm, among what its own prompt shows.")
_LEVEL = 0.05
_RISK_ENTROPY = {ROLLOUTS: "stated risk entropy", ANSWERS: "token risk entropy"}


def for_page(found: Gain | None, arm: str | None) -> dict[str, Any]:
    """What the page's section says; nothing of it without a `Gain`."""
    if found is None:
        return {}
    return {"gain_meaning": meaning(found, arm), "entropy_meaning": entropy_meaning(found, arm), **_grids(found),
            "controls": CONTROLS, "top_logprobs": TOP_LOGPROBS}


def for_text(found: Gain | None, arm: str | None) -> list[str]:
    """The same as parts of the Markdown report; none without a `Gain`."""
    if found is None:
        return []
    grids = _grids(found)
    return ["## Where the gain comes from", *meaning(found, arm), *entropy_meaning(found, arm),
            *(markdown(grid) for grid in grids.values() if grid[1]), *([CONTROLS] if found.faithfulness.height else []),
            f"Overlap is the Jaccard index. Entropies of test answers are lower bounds from the {TOP_LOGPROBS} "
            "likeliest tokens; those of stage 2 are of the whole vocabulary."]


def _grids(found: Gain) -> dict[str, Grid]:
    """The section's tables, by their names in the page's template and in the order of the text."""
    return {"faithfulness_grid": faithfulness(found.faithfulness),
            "overlap_grid": overlap_and_score(found.overlap_and_score),
            "uncertainty_grid": uncertainty(found.uncertainty), "variety_grid": variety(found.variety),
            "citations_grid": citations(found.citations)}


def faithfulness(frame: pl.DataFrame) -> Grid:
    """`faithfulness.SCHEMA`, one line for each arm and control."""
    heads = ["Arm", "Control", "Stays with a feature named", "Features named", "Overlap", "Overlap with the control",
             "Difference", "p", "p (Holm)"]
    rows = []
    for row in frame.iter_rows(named=True):
        start = [row["arm"], row["control"] or NONE, f"{100 * row['naming']:.0f} %", _plain(row["named"], 1)]
        compared = [NONE] * 5 if row["control"] is None else [
            _plain(row["overlap"]), _plain(row["control_overlap"]), _bounded(row, "difference"),
            p_value(row["p"]), p_value(row["p_holm"])]
        rows.append([*start, *compared])
    return heads, rows


def overlap_and_score(frame: pl.DataFrame) -> Grid:
    """`faithfulness.OVERLAP`."""
    heads = ["Arm", "Risk", "n", "Overlap and log score: ρ within the label", "ρ given that the answer is readable"]
    return heads, [[row["arm"], row["reading"], str(row["stays"]), _bounded(row, "rho"),
                    _bounded(row, "rho_parsed", "_parsed")] for row in frame.iter_rows(named=True)]


def uncertainty(frame: pl.DataFrame) -> Grid:
    """`uncertainty.SCHEMA`."""
    heads = ["Of", "Arm", "Uncertainty", "Entropy", "n", "Stays", "ρ"]
    return heads, [[row["source"], row["arm"] or NONE, row["uncertainty"], row["entropy"], str(row["n"]),
                    str(row["stays"]), _bounded(row, "rho")] for row in frame.iter_rows(named=True)]


def variety(frame: pl.DataFrame) -> Grid:
    """`variety.SCHEMA`."""
    heads = ["Arm", "Answers", "That reason", "Distinct reasonings", "Commonest reasoning", "Repeat the example",
             "Distinct feature lists", "Commonest list", "Distinct numbers"]
    return heads, [[row["arm"], str(row["answers"]), _share(row["reasoning"]), str(row["distinct"]),
                    _share(row["same"]), _share(row["example"]), str(row["lists"]), _share(row["same_list"]),
                    str(row["numbers"])] for row in frame.iter_rows(named=True)]


def citations(frame: pl.DataFrame) -> Grid:
    """`citations.SCHEMA`."""
    heads = ["Arm", "Answers", "That cite a number", "Numbers cited", "In the patient's own data",
             "In another stay's data"]
    return heads, [[row["arm"], str(row["answers"]), _share(row["citing"]), str(row["cited"]), _share(row["own"]),
                    _share(row["others"])] for row in frame.iter_rows(named=True)]


def meaning(found: Gain, arm: str | None) -> list[str]:
    """What the overlap of an arm means: whether it is about the patient, and whether it goes with better prediction."""
    swapped = _row(found.faithfulness, arm=arm, control=SWAPPED)
    if swapped is None:
        return []
    score = _row(found.overlap_and_score, arm=arm, reading=TOKENS)
    return [_followed(swapped), *([] if score is None else [_scored(score)])]


def _followed(row: Mapping[str, Any]) -> str:
    if row["low"] > 0 and row["p_holm"] < _LEVEL:
        verdict = "what it names follows the patient, and not only what the expert looks at in everybody"
    elif row["high"] < 0:
        verdict = "what it names fits other patients better than its own"
    else:
        verdict = ("that it follows the patient, and does not only name what the expert looks at in everybody, is not "
                   "shown")
    return (f"{row['arm']} overlaps with the expert's features of the same patient by {row['overlap']:.2f} (Jaccard), "
            f"with those of another patient by {row['control_overlap']:.2f}, both among what the two have in common; "
            f"difference {_bounded(row, 'difference')}, p after Holm's correction {p_value(row['p_holm'])}: {verdict}.")


def _scored(row: Mapping[str, Any]) -> str:
    low, high = row["low_parsed"], row["high_parsed"]
    if low is not None and low > 0:
        verdict = "larger overlap goes with better prediction, which does not say that it causes it"
    elif high is not None and high < 0:
        verdict = "larger overlap goes with worse prediction"
    else:
        verdict = "that larger overlap goes with better prediction is not shown"
    return (f"Between its overlap and its log score (risk read as {row['reading']}) the rank correlation within the "
            f"label is {_bounded(row, 'rho')}, and {_bounded(row, 'rho_parsed', '_parsed')} given that the answer is "
            f"readable: {verdict}.")


def entropy_meaning(found: Gain, arm: str | None) -> list[str]:
    """What the entropy of clinical tokens says of the uncertainty, in stage 2 and in the test answers of an arm."""
    rows = [_row(found.uncertainty, source=ROLLOUTS, uncertainty=_RISK_ENTROPY[ROLLOUTS]),
            _row(found.uncertainty, source=ANSWERS, arm=arm, uncertainty=_RISK_ENTROPY[ANSWERS])]
    return [_unsure(row) for row in rows if row is not None and row["rho"] is not None]


def _unsure(row: Mapping[str, Any]) -> str:
    where = f"test answers of {row['arm']}" if row["source"] == ANSWERS else "rollouts of stage 2"
    if row["low"] is not None and row["low"] > 0:
        verdict = "where the clinical words are unsure, the prediction is"
    elif row["high"] is not None and row["high"] < 0:
        verdict = "where the clinical words are unsure, the prediction is the surer"
    else:
        verdict = "that entropy tells where the prediction is unsure is not shown"
    return (f"In {row['n']} {where} (of {row['stays']} stays) the entropy of clinical tokens and the "
            f"{row['uncertainty']} have a rank correlation of {_bounded(row, 'rho')}: {verdict}.")


def _row(frame: pl.DataFrame, **values: str | None) -> dict[str, Any] | None:
    part = frame.filter(*(pl.col(name).eq_missing(pl.lit(value, pl.String)) for name, value in values.items()))
    return part.row(0, named=True) if part.height else None


def _plain(value: float | None, digits: int = 2) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _share(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.0f} %"


def _bounded(row: Mapping[str, Any], name: str, ending: str = "") -> str:
    """A figure with its interval, signed, two decimals."""
    values = [row[name], row[f"low{ending}"], row[f"high{ending}"]]
    if values[0] is None:
        return NONE
    point, *ends = ("0.00" if round(value, 2) == 0 else f"{value:+.2f}" for value in values if value is not None)
    return (f"{point} [{', '.join(ends)}]" if ends else point).replace("-", "−")
