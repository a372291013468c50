"""Stage `patients`: evidence in words for each stay, with the expert's features among those shown."""

from __future__ import annotations

import polars as pl

from contracts.features import catalogue
from ehr.cohort import read
from prompts.evidence import patients as render_patients
from tasks.people import mean
from tasks.stage import Made, Work, input_file, listed, stage


@stage("patients", settings=("prompts",), packages=("polars", "rapidfuzz"))
def patients(work: Work) -> Made:
    """Writes patients.parquet (contract PATIENTS)."""
    cohort = read(work.inputs["cohort"])
    experts = ["readings", *sorted(role for role in work.inputs if role.startswith("readings."))]
    frame = render_patients(cohort.stays, cohort.visits, cohort.filled,
                            [pl.read_parquet(input_file(work, role, "readings.parquet")) for role in experts],
                            catalogue(cohort.meta["catalogue"]), work.config.prompts)
    frame.write_parquet(work.out / "patients.parquet")
    sizes = frame.select(pl.col("evidence").str.len_chars().alias("characters"), pl.col("shown").list.len())
    metrics = {"stays": float(frame.height), "evidence_characters_mean": mean(sizes["characters"]),
               "evidence_characters_max": float(max(sizes["characters"])),
               "features_shown_mean": mean(sizes["shown"])}
    return Made(metrics=metrics, summary=listed(metrics))
