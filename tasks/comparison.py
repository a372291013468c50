"""Stage `comparison`: a study on a new extract against the last one, and whether its model becomes the champion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl

from ehr import comparison_files
from ehr.compare import Comparison, compare, shifted
from ehr.folder import read
from evaluation import succession, succession_page
from lineage.artifact import Artifact
from lineage.store import Store
from tasks.stage import Made, Work, input_file, stage

BEFORE, CHAMPION = "before.", "champion."
FILE = "comparison.json"
# Variants of the stage, where there is a champion and nothing to compare with it: it is never replaced unseen.
BY_HAND, REMOVED = "set-by-hand", "removed"
KEPT = {BY_HAND: "kept: set by hand, its verdicts are not here",
        REMOVED: "kept: its verdicts are no longer in the workspace"}
_SHIFTS = 20


def wanted(artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """Of a study's artifacts those that are compared: the cohort, and verdicts of all arms where they were judged."""
    return {role: artifact for role, artifact in artifacts.items()
            if role in ("cohort", "baselines") or role.startswith("verdicts.")}


def judged_with(store: Store, adapter: str) -> dict[str, Artifact]:
    """Of the studies that judged an adapter (id) the newest judging: cohort, baselines, verdicts; empty without any.

    Verdicts belong together that are of one cohort and were asked for the same stays of it. What another study asked of
    its own patients (its variant has an "@") does not count.
    """
    entries = {entry["artifact"]["id"]: entry for entry in store.manifests()}
    verdicts = [entry for entry in entries.values() if entry["artifact"]["kind"] == "verdicts"
                and entry["inputs"].get("adapter", {}).get("id") == adapter and "@" not in _variant(entry)]
    newest = max(verdicts, key=lambda entry: entry["finished"], default=None)
    cohort = _cohort(entries, newest) if newest is not None else None
    if newest is None or cohort is None or cohort.id not in entries:
        return {}
    baselines = [entry for entry in entries.values() if entry["artifact"]["kind"] == "baselines"]
    found = {"cohort": cohort}
    for entry in sorted([*verdicts, *baselines], key=lambda entry: float(entry["finished"])):
        if _cohort(entries, entry) == cohort and _asked(entry) == _asked(newest):
            artifact = Artifact.from_json(entry["artifact"])
            found["baselines" if artifact.kind == "baselines" else f"verdicts.{_variant(entry)}"] = artifact
    return found


def _variant(entry: Mapping[str, Any]) -> str:
    return str(entry["recipe"]["settings"].get("variant", ""))


def _asked(entry: Mapping[str, Any]) -> list[Any]:
    """What decides which stays of a cohort are judged."""
    return [entry["recipe"]["settings"].get(name) for name in ("evaluation.stays", "study.seed")]


def _cohort(entries: Mapping[str, Mapping[str, Any]], entry: Mapping[str, Any]) -> Artifact | None:
    """The cohort that an artifact was made from, if need be through its patients."""
    inputs = entry["inputs"]
    if "cohort" in inputs:
        return Artifact.from_json(inputs["cohort"])
    patients = entries.get(inputs.get("patients", {}).get("id", ""))
    return _cohort(entries, patients) if patients is not None else None


@stage("comparison", settings=("champion", "evaluation.arms", "evaluation.interval_bootstraps", "study.seed",
                                "study.name"),
       packages=("polars", "jinja2", "matplotlib", "scikit-learn"))
def comparison(work: Work) -> Made:
    """Writes comparison.{html,md,json}, figures.csv and the cohorts' comparison under cohort/.

    Roles: those of this study; of the last one with the prefix `before.`; of the champion's with `champion.`. Variant:
    of KEPT, where a champion is there whose verdicts are not.
    """
    new = read(work.inputs["cohort"])
    patients = dict(new.stays.select("stay_id", "patient_id").iter_rows())
    cohorts = compare(read(work.inputs[f"{BEFORE}cohort"]), new)
    files = comparison_files.write(cohorts, work.out / "cohort")
    rows = _rows(work, BEFORE, patients)
    verdict = _verdict(work, patients)
    rows.write_csv(work.out / "figures.csv")
    page = _page(work, cohorts, rows, verdict.reason,
                 next(path for path in files if path.suffix == ".svg").read_text(encoding="utf-8"))
    (work.out / "comparison.html").write_text(succession_page.render(page), encoding="utf-8")
    (work.out / "comparison.md").write_text(succession_page.markdown(page), encoding="utf-8")
    (work.out / FILE).write_text(json.dumps({"champion_replaced": verdict.replaced, "reason": verdict.reason,
                                             "counts": dict(cohorts.counts)}, indent=1), encoding="utf-8")
    return Made(metrics=_metrics(cohorts, rows, verdict.replaced), show=("comparison.html", FILE, "figures.csv"),
                summary=succession_page.markdown(page))


def _verdict(work: Work, patients: Mapping[str, str]) -> succession.Verdict:
    new = _verdicts(work, "")
    if new is None:
        return succession.Verdict(False, "kept: this study ended before any arm was judged")
    if reason := KEPT.get(work.name.partition(":")[2]):
        return succession.Verdict(False, reason)
    if not any(role.startswith(CHAMPION) for role in work.inputs):
        return succession.Verdict(True, "named: there was none before")
    return succession.crown(_rows(work, CHAMPION, patients), succession.judging_key(new), work.config.champion)


def _rows(work: Work, prefix: str, patients: Mapping[str, str]) -> pl.DataFrame:
    old, new = _verdicts(work, prefix), _verdicts(work, "")
    if old is None or new is None:
        return pl.DataFrame(schema=succession.SCHEMA)
    return succession.compare(old, new, patients, work.config.evaluation.interval_bootstraps, work.config.study.seed)


def _verdicts(work: Work, prefix: str) -> pl.DataFrame | None:
    """The verdicts in the order of the table, policy arms first: the last of them decides where the method's is not."""
    roles = [role for role in work.inputs if role == f"{prefix}baselines" or role.startswith(f"{prefix}verdicts.")]
    arms = work.config.evaluation.arms

    def place(role: str) -> tuple[bool, int, str]:
        arm = role.partition("verdicts.")[2]
        return role.endswith("baselines"), arms.index(arm) if arm in arms else len(arms), role

    return pl.concat([pl.read_parquet(input_file(work, role, "verdicts.parquet"))
                      for role in sorted(roles, key=place)]) if roles else None


def _page(work: Work, cohorts: Comparison, rows: pl.DataFrame, reason: str, plot: str) -> succession_page.Page:
    shifts = comparison_files.by_size(cohorts.shifts).head(_SHIFTS).iter_rows(named=True)
    columns = ("smd_last", "smd_all", "ks_last", "missing_old", "missing_new")
    return succession_page.Page(
        study=work.config.study.name, created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        extract=work.config.paths.data or "of EAG_RL_DATA", verdict=reason, rule=succession.rule(work.config.champion),
        counts=cohorts.counts, differing=[(key, str(old), str(new)) for key, (old, new) in cohorts.settings.items()],
        findings=[(found.level, found.value, found.next_step) for found in cohorts.findings],
        shifts=[(row["name"], *("" if row[name] is None else f"{row[name]:.3f}" for name in columns))
                for row in shifts],
        rows=rows, love_plot=plot[plot.index("<svg"):],
        provenance=[(role, artifact.id, artifact.sha256) for role, artifact in work.artifacts.items()])


def _metrics(cohorts: Comparison, rows: pl.DataFrame, replaced: bool) -> dict[str, float]:
    gaps = {f"{row['arm']}/{row['reading']}/{row['measure']}.difference": row["difference"]
            for row in rows.iter_rows(named=True)}
    return {**{f"stays.{name}": float(count) for name, count in cohorts.counts.items()},
            "shifted_features": float(shifted(cohorts.shifts).height), "champion_replaced": float(replaced), **gaps}
