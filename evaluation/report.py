"""The report: one self-contained HTML page of a study.

In goes a `ReportBundle` of plain frames and values, out comes the page as text. Nothing is fetched when it is read: no
script, no font, no image beyond the inline SVG, and a content security policy that forbids the rest. Everything that a
model or a file said is escaped by the template. A part that is absent is named as absent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from contracts.frames import READINGS, VERDICTS
from evaluation import (
    case_study,
    clinical_plots,
    cost,
    descent,
    gain_plots,
    gain_wording,
    pages,
    paper_figures,
    plots,
    power,
    radar,
    recalibration,
    search_tree,
    statistics,
    tables,
    tripod,
    variety,
    wording,
)
from evaluation.appraisal import Appraisal
from evaluation.baselines import BOOSTING, EXPERT, LOGISTIC
from evaluation.case_study import CaseStudy
from evaluation.descent import Link
from evaluation.gain import Gain
from evaluation.risks import FIRST, MODEL, STATED, TOKENS, Key
from evaluation.search_tree import SearchTree
from evaluation.svg import SERIES
from evaluation.tripod import Checklist

MOST_STAYS, MOST_TOKENS = 48, 20
# Test patients with a stay of each outcome below which a figure says nothing.
FEWEST = 10
_SIMPLE = ((EXPERT, MODEL), (LOGISTIC, MODEL))
_CELL = re.compile(r"(?P<main>\S+) (?P<interval>\[[^]]*\])(?: \((?P<spread>[^)]*)\))?(?:, (?P<p>p [=<] .*))?")


@dataclass(frozen=True)
class ReportBundle:
    """What a report is made of; None or empty: this part did not run.

    Attributes:
        study: the study's name.
        created: when it was made, as text.
        outcome: what is predicted.
        table: of `tables.results`.
        verdicts: of all arms.
        reference: arm of the paired differences.
        arms: of each policy arm its name, its title, and how it is made and asked.
        notes: arm to how it was chosen (`baselines.judge_baselines`).
        stage1: name to value, the check of stage 1 on validation before and after.
        rl_steps: one row a step of the RL run: `step` and columns of `plots.REWARDS`, `BOUNDS`, `CLIPPED`.
        readings: contract READINGS, of the test stays at least.
        health: of the expert's attention, nested names to values.
        cases: patients in full; quantiles: those that they were chosen by.
        tree: the search of one training patient.
        overlap: policy arm to its mean overlap with the expert's features (`radar.overlaps`).
        counts: split to name to number, as `eag-rl cohort --json` has them.
        attrition: rules in order, each with rule, unit, found, dropped, kept.
        findings: of the check of the cohort, each with level, value, rule, next_step.
        appraisal: differences, calibration, decision curves, subgroups and power.
        gain: controls of the overlap with the expert, entropy against uncertainty.
        costs: seconds and tokens of each policy arm.
        smallest_cell: smallest count of patients that the appraisal shows.
        settings: the configuration, nested.
        provenance: all that the report was made from, sources first (`descent.links`).
        checklists: for reporting, pre-filled.
    """

    study: str
    created: str
    outcome: str
    table: pl.DataFrame
    verdicts: pl.DataFrame
    reference: str = tables.REFERENCE
    arms: Sequence[tuple[str, str, str]] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    stage1: Mapping[str, Any] | None = None
    rl_steps: pl.DataFrame | None = None
    readings: pl.DataFrame | None = None
    health: Mapping[str, Any] | None = None
    cases: Sequence[CaseStudy] = ()
    quantiles: Sequence[float] = ()
    tree: SearchTree | None = None
    overlap: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, Any]] | None = None
    attrition: Sequence[Mapping[str, Any]] | None = None
    findings: Sequence[Mapping[str, Any]] | None = None
    appraisal: Appraisal | None = None
    gain: Gain | None = None
    costs: cost.Costs | None = None
    smallest_cell: int = 5
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Sequence[Link] = ()
    checklists: Sequence[Checklist] = ()


def render(bundle: ReportBundle) -> str:
    """The page.

    Raises:
        ContractError: verdicts or readings break their contract.
    """
    return _page(bundle, _pictures(bundle))


def render_both(bundle: ReportBundle) -> tuple[str, str]:
    """The page, and the same without case studies and search tree, for which the pictures are not drawn again.

    Raises: as `render`.
    """
    without, pictures = replace(bundle, cases=(), quantiles=(), tree=None), _pictures(bundle)
    return _page(bundle, pictures), _page(without, {**pictures, "tree": None})


def _page(bundle: ReportBundle, pictures: Mapping[str, Markup | None]) -> str:
    return pages.render(
        "report.html", _FILTERS, bundle=bundle, headers=tables.headers(bundle.table),
        groups=grouped(tables.cells(bundle.table)), headline=headline(bundle.table, bundle.reference),
        readings_rows=_both_readings(bundle.table), pictures=pictures,
        first_visit=any(arm.endswith(FIRST) for arm in tables.policy_arms(bundle.table)), **_appraised(bundle),
        **gain_wording.for_page(bundle.gain, tables.main_arm(bundle.table)), **_told(bundle),
        most_seeds=bundle.table["seeds"].max(),
        cost_grid=None if bundle.costs is None else cost.arms_grid(bundle.costs),
        stage_grid=None if bundle.costs is None else cost.stages_grid(bundle.costs),
        resamples=bundle.table["resamples"][0], interval_resamples=bundle.table["interval_resamples"][0],
        redrawn=bundle.table["redrawn"][0], unhidden=wording.UNHIDDEN,
        paper_source=paper_figures.SOURCE if bundle.table["paper_auroc"].count() else None,
        test_stays=bundle.table["n"][0], positives=bundle.table["positives"][0])


def headline(table: pl.DataFrame, reference: str) -> list[str]:
    """The result in sentences: the method's arm in both readings, and the best arm without a language model."""
    policy = tables.main_arm(table)
    sentences = [f"Language-model arm {row['arm']}, risk read as {row['reading']}: AUROC {_figure(row, 'auroc')}, "
                 f"AUPRC {_figure(row, 'auprc')}. {_compared(row, reference)}".strip()
                 for row in table.filter(pl.col("arm").eq_missing(policy)).iter_rows(named=True)]
    simple = tables.best(table, [arm for arm in table["arm"].unique() if arm not in tables.policy_arms(table)])
    if simple is not None:
        sentences.append(f"Without a language model, {simple['arm']} reaches AUROC {_figure(simple, 'auroc')}, AUPRC "
                         f"{_figure(simple, 'auprc')} on the same stays.")
    return [*too_few(table, "The figures show that the study runs; they say nothing about how good an arm is, whatever "
                            "their intervals and p-values."),
            *variety.warning(table.filter(pl.col("arm").eq_missing(policy))), *sentences]


def too_few(table: pl.DataFrame, meaning: str) -> list[str]:
    """Warnings where one outcome is so rare among the test patients that no figure says anything.

    Args:
        table: with the columns `statistics.PATIENTS` and `n`.
        meaning: what the figures then say, in words.
    """
    people, *outcomes = (int(table[name][0]) for name in statistics.PATIENTS)
    told = [] if min(outcomes) >= FEWEST else [
        f"Only {min(outcomes)} of the {people} test patients have a stay with the rarer outcome; at least {FEWEST} are "
        f"needed. {meaning}"]
    return told if people > 1 else [*told, f"All {table['n'][0]} test stays are of one patient: intervals are over "
                                    "resamples of these stays, no arm is compared with another, and no figure speaks "
                                    "of other patients."]


def _figure(row: Mapping[str, Any], name: str) -> str:
    spread = f"± {100 * row[f'{name}_sd']:.1f}"
    if row[f"{name}_seed_sd"] is not None:
        spread += f" over patients, ± {100 * row[f'{name}_seed_sd']:.1f} over {row['seeds']} seeds"
    return f"{100 * row[f'{name}_point']:.1f} % ({spread})"


def _compared(row: Mapping[str, Any], reference: str) -> str:
    if row["auroc_gap_p"] is None:
        return ""
    low, high = 100 * row["auroc_gap_low"], 100 * row["auroc_gap_high"]
    if low <= 0 <= high:
        verdict = "the interval holds 0: on this test split it cannot be told from the reference"
    elif row["auroc_gap_p_holm"] >= power.LEVEL:
        verdict = "the interval does not hold 0, but corrected for the number of arms the difference is not shown"
    else:
        verdict = "the interval does not hold 0"
    return (f"Its AUROC differs from {reference} by {100 * row['auroc_gap_point']:+.1f} points, 95 % interval "
            f"[{low:+.1f}, {high:+.1f}], {wording.p_is(row['auroc_gap_p'])}, Holm "
            f"{wording.p_value(row['auroc_gap_p_holm'])}: {verdict}.")


def grouped(rows: Sequence[Sequence[str]]) -> list[tuple[str, list[list[tuple[str, list[str]]]]]]:
    """The table's text rows by arm; each cell as what it says first and the lines of what stands after it."""
    groups: list[tuple[str, list[list[tuple[str, list[str]]]]]] = []
    for arm, *texts in rows:
        if not groups or groups[-1][0] != arm:
            groups.append((arm, []))
        groups[-1][1].append([_lines(text) for text in texts])
    return groups


def _lines(text: str) -> tuple[str, list[str]]:
    """A cell's first figure, then its interval, its mean ± sd, its spread over seeds, and its p-values."""
    found = _CELL.fullmatch(text)
    if found is None:
        return text, []
    spreads = (found["spread"] or "").split("; ")
    return found["main"], [part for part in (found["interval"], *spreads, found["p"]) if part]


def flat(values: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested names and values as rows (dotted name, text)."""
    if isinstance(values, Mapping):
        return [row for key, value in values.items() for row in flat(value, f"{name}.{key}" if name else str(key))]
    if isinstance(values, (list, tuple)) and any(isinstance(value, (Mapping, list, tuple)) for value in values):
        return [row for number, value in enumerate(values) for row in flat(value, f"{name}[{number}]")]
    return [(name, plain(values))]


def plain(value: Any) -> str:
    """A value as text: numbers with four significant digits, lists with commas, nothing as a dash."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(plain, value)) if isinstance(value, (list, tuple)) else str(value)


_FILTERS: Mapping[str, Callable[..., Any]] = {"flat": flat, "plain": plain, "short": descent.short,
                                              "figures": search_tree.numbers}


def _both_readings(table: pl.DataFrame) -> list[dict[str, Any]]:
    """Each policy arm's stated reading beside its token reading."""
    pairs = []
    for arm in table["arm"].unique(maintain_order=True):
        rows = {row["reading"]: row for row in table.filter(pl.col("arm") == arm).iter_rows(named=True)}
        if "tokens" in rows:
            pairs.append({"arm": arm, "stated": rows["stated"], "tokens": rows["tokens"]})
    return pairs


def _pictures(bundle: ReportBundle) -> dict[str, Markup | None]:
    """Every picture by name, None where its part is absent. SVG is drawn here, with its text escaped."""
    VERDICTS.check(bundle.verdicts)
    curves = _curves(bundle.verdicts, "token_probability", _drawn(bundle.verdicts))
    steps = bundle.rl_steps if bundle.rl_steps is not None and bundle.rl_steps.height else None
    drawn = {"roc": plots.roc(curves), "pr": plots.precision_recall(curves),
             "rewards": None if steps is None else plots.rewards(steps),
             "bounds": None if steps is None else plots.clip_bounds(steps),
             "attention": None if bundle.readings is None else _attention(bundle.readings, bundle.verdicts)}
    drawn |= _clinical(bundle)
    drawn |= {"radar": radar.radar(bundle.table, bundle.overlap, bundle.reference),
              "tree": None if bundle.tree is None else search_tree.draw(bundle.tree),
              "lineage": descent.draw(descent.condensed(bundle.provenance)) if bundle.provenance else None,
              "entropy": None if bundle.gain is None else gain_plots.entropy_and_uncertainty(
                  bundle.gain.uncertainty_curves, tables.main_arm(bundle.table))}
    return {name: None if svg is None else pages.svg(svg) for name, svg in drawn.items()}


def _told(bundle: ReportBundle) -> dict[str, Any]:
    """What the templates of cases, tree, radar, lineage and checklists need beside the bundle."""
    quantiles = ", ".join(f"{share:g}" for share in bundle.quantiles)
    return {"case_rule": case_study.RULE.format(quantiles=quantiles), "tree_rule": search_tree.RULE,
            "radar_grid": radar.grid(bundle.table, bundle.overlap), "radar_measures": radar.MEASURES,
            "origins": descent.origins(bundle.provenance, bundle.table), "trails": trails(bundle),
            "link_numbers": descent.anchors(bundle.provenance),
            "checklist_note": tripod.NOTE}


def trails(bundle: ReportBundle) -> dict[str, list[Link]]:
    """For each arm of the main table all that its figures were made from, all its trainings, sources first."""
    found = descent.condensed(bundle.provenance)
    return {arm: descent.behind(found, *(one.id for one in held))
            for arm, held in descent.origins(found, bundle.table).items()}


def _curves(verdicts: pl.DataFrame, column: str, arms: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Labels and risks of the arms that are there, at most as many as there are colours."""
    present = [arm for arm in arms if (verdicts["arm"] == arm).any()] or verdicts["arm"].unique(maintain_order=True)
    parts = {arm: verdicts.filter(pl.col("arm") == arm) for arm in list(present)[:SERIES]}
    return {arm: (part["label"].to_numpy(), part[column].to_numpy()) for arm, part in parts.items()}


def _drawn(verdicts: pl.DataFrame) -> list[str]:
    """Arms of the curves: those with a colour, the method's among them."""
    main, simple = tables.main_arm(verdicts), [EXPERT, LOGISTIC, BOOSTING]
    others = [arm for arm in tables.policy_arms(verdicts) if arm != main and not arm.endswith(FIRST)]
    return [*others[:SERIES - 1 - len(simple)], *([main] if main else []), *simple]


def _clinical(bundle: ReportBundle) -> dict[str, str | None]:
    """The pictures of the appraisal; none of them without one."""
    if bundle.appraisal is None:
        return dict.fromkeys(("forest", "uniform", "quantile", "decision"))
    present = _present(bundle)
    last = tables.main_arm(bundle.table)
    drawn = [key for key in [(last, STATED), (last, TOKENS), *_SIMPLE] if key in present] or present[:1]
    worth = [key for key in [(last, TOKENS), (bundle.reference, TOKENS), *_SIMPLE] if key in present] or present[:1]
    worth = list(dict.fromkeys(worth))
    found = bundle.appraisal
    return {"forest": clinical_plots.forest(found.differences),
            "uniform": clinical_plots.reliability(found.reliability, drawn, "uniform", "uniform"),
            "quantile": clinical_plots.reliability(found.reliability, drawn, "quantile", "quantile"),
            "decision": clinical_plots.decision_curve(found.decision, worth, worth[0])}


def subgroup_keys(bundle: ReportBundle) -> list[Key]:
    """Arms and readings of the subgroup table: the last policy arm, the reference, and the expert."""
    present = _present(bundle)
    wanted = [(tables.main_arm(bundle.table), TOKENS), (bundle.reference, TOKENS), (EXPERT, MODEL)]
    return list(dict.fromkeys(key for key in wanted if key in present)) or present[:1]


def _present(bundle: ReportBundle) -> list[Key]:
    return [(arm, reading) for arm, reading in bundle.table.select("arm", "reading").iter_rows()]


def _appraised(bundle: ReportBundle) -> dict[str, Any]:
    """The appraisal as text for the template."""
    warnings = [[plain(one.get(name)) for name in ("level", "value", "rule", "next_step")]
                for one in bundle.findings or ()]
    found = bundle.appraisal
    if found is None:
        names = ("difference_grid", "power_grid", "calibration_grid", "subgroup_grid", "power_note", "recalibrated",
                 "recalibration_grid", "few_validation")
        return {**dict.fromkeys(names), "warnings": warnings}
    stays, positives = int(bundle.table["n"][0]), int(bundle.table["positives"][0])
    return {"difference_grid": wording.differences(found.differences), "power_grid": wording.power_table(found.power),
            "calibration_grid": wording.calibration(found.calibration), "warnings": warnings,
            "subgroup_grid": wording.subgroups(found.subgroups, subgroup_keys(bundle)),
            "power_note": wording.power_note(found.power, tables.main_arm(bundle.table), stays, positives),
            "recalibration_grid": wording.recalibration(found.calibration),
            "few_validation": recalibration.few(found.calibration["validation_stays"].min()),
            "recalibrated": bool((found.calibration["recalibration"] != "none").any())}


def _attention(readings: pl.DataFrame, verdicts: pl.DataFrame) -> str | None:
    """Heat map of at most `MOST_STAYS` judged stays, by class and expert risk, and the tokens attended to most."""
    labels = verdicts.select("stay_id", "label").unique()
    judged = READINGS.check(readings).join(labels, on="stay_id", how="inner")
    if not judged.height:
        return None
    stays = judged.group_by("stay_id").agg(pl.col("label").first(), pl.col("risk").first()).sort(
        "label", "risk", "stay_id")
    chosen = stays[np.unique(np.linspace(0, stays.height - 1, min(MOST_STAYS, stays.height)).round().astype(int))]
    heavy = judged.group_by("feature").agg(pl.col("attention").mean()).sort(["attention", "feature"],
                                                                          descending=[True, False])
    return plots.attention(judged, chosen["stay_id"].to_list(), heavy["feature"].to_list()[:MOST_TOKENS],
                           chosen["label"].to_list())
