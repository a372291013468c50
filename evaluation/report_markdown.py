"""The report as Markdown: what has to stand in a message or a manuscript, without pictures and without any patient.

In goes the same `ReportBundle` as the page's, out comes text.
"""

from __future__ import annotations

import polars as pl

from evaluation import cost, descent, gain_wording, radar, recalibration, tables, wording
from evaluation.report import ReportBundle, headline, subgroup_keys, trails


def markdown(bundle: ReportBundle) -> str:
    """Headline, main table, differences, power, subgroups, validity warnings and limits."""
    table, found = bundle.table, bundle.appraisal
    stays, positives = int(table["n"][0]), int(table["positives"][0])
    parts = [f"# Study {bundle.study}", f"Outcome: {bundle.outcome}. {stays} test stays, {positives} with outcome 1. "
             f"Made {bundle.created}.", *headline(table, bundle.reference), "## Results", tables.markdown(table),
             f"AUROC and AUPRC in percent: value on all test stays, [95 % interval over "
             f"{table['interval_resamples'][0]} bootstrap resamples of patients], (mean ± standard deviation over "
             f"{table['resamples'][0]}). Differences to {bundle.reference} are paired, in points; “Holm” is their p "
             "corrected over the arms of the same reading.", *_seeds(max(table["seeds"].to_list()))]
    parts += ["\n".join(f"- {name}: {title}; {how}" for name, title, how in bundle.arms)] if bundle.arms else []
    if found is not None:
        parts += ["## Differences", _or_absent(wording.differences(found.differences),
                                               "No arm has a reference, or all test stays are of one patient."),
                  "## Power", *(wording.power_note(found.power, tables.main_arm(table), stays, positives)
                                or ["No comparison, so no power."]),
                  "## Calibration", wording.markdown(wording.calibration(found.calibration)),
                  *_recalibrated(found.calibration),
                  "## Subgroups", wording.markdown(wording.subgroups(found.subgroups, subgroup_keys(bundle))),
                  f"Counts of fewer than {bundle.smallest_cell} patients, and what would give them away, are hidden.",
                  "## Decision curves", f"Net benefit at each threshold: decision.csv. {wording.UNHIDDEN}"]
    parts += gain_wording.for_text(bundle.gain, tables.main_arm(table))
    parts += ["## Several measures at once", wording.markdown(radar.grid(table, bundle.overlap))]
    if bundle.costs is not None:
        parts += ["## Cost", wording.markdown(cost.arms_grid(bundle.costs)),
                  "Training: wall time of all stages that the adapter comes from, those shared with other arms counted "
                  "in full. Judging: wall time without the start of the server."]
    parts += ["## Validity of the cohort", *_warnings(bundle), *_lineage(bundle)]
    parts += ["## Checklists", "TRIPOD+AI and TRIPOD-LLM, pre-filled: tripod.md."] if bundle.checklists else []
    parts += ["## Limits",
              "This is research software, not a medical device. The intervals show how far the figures could move on "
              "another test split of the same size, not what another hospital would give."]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _lineage(bundle: ReportBundle) -> list[str]:
    """The drawing as Mermaid text, and for each arm all that its figures rest on."""
    if not bundle.provenance:
        return []
    ways = [f"- {arm}: " + " → ".join(descent.named(one) for one in links)
            for arm, links in trails(bundle).items()]
    return ["## Lineage", descent.mermaid(descent.condensed(bundle.provenance)),
            "What the figures of each arm rest on, with the first digits of its sha256:", "\n".join(ways)]


def _seeds(most: int) -> list[str]:
    if most < 2:
        return []
    return ["“Seeds” counts the trainings that a row is the mean of; “seeds ±” is the standard deviation over them, "
            "the ± before it over resamples of patients. Intervals and differences are over resamples of trainings and "
            "then patients. Calibration, subgroups and power are those of the first seed."]


def _recalibrated(calibration: pl.DataFrame) -> list[str]:
    grid = wording.recalibration(calibration)
    few = recalibration.few(calibration["validation_stays"].min())
    warning = f" Only {few} validation stays: the maps are mostly noise." if few else ""
    return ["### Recalibrated", wording.markdown(grid),
            f"Fitted on validation stays and on no test stay.{warning}"] if grid[1] else []


def _or_absent(grid: wording.Grid, words: str) -> str:
    return wording.markdown(grid) if grid[1] else words


def _warnings(bundle: ReportBundle) -> list[str]:
    if bundle.findings is None:
        return ["This report was given no check of the cohort."]
    if not bundle.findings:
        return ["Nothing stood out in the check of the cohort."]
    return ["\n".join(f"- {one['level']}: {_plain(one['value'])}. What would be right: {_plain(one['rule'])}. "
                      f"Next: {_plain(one['next_step'])}." for one in bundle.findings)]


def _plain(text: object) -> str:
    """Text of one line, without markup."""
    return " ".join(str(text).split()).replace("<", "&lt;").rstrip(".")
