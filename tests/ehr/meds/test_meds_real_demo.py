"""The 100 patients of the MIMIC-IV demo, from MEDS events and from the raw tables: the same stays, the same days.

What the MEDS conversion lost makes no difference to them: 178 repeated laboratory rows (merged there, dropped here),
Float32 values (read as the decimals that were meant), and texts (capillary refill has no value on either side: the
chartevents of the demo were rebuilt from these events).
"""

import hashlib
import os
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from configs.load import load
from configs.schema import Cohort
from contracts.features import catalogue
from ehr import validity
from ehr.cohort import prepare, read_source
from ehr.sources.meds.source import read_meds, source_files
from ehr.sources.mimic_iv.layout import open_extract
from ehr.sources.mimic_iv.source import read_mimic_iv

DATA = Path(os.environ.get("EAG_RL_DATA", "no-such-folder"))
MEDS, RAW = DATA / "mimic-iv-demo-meds", DATA / "mimic-iv-demo-2.2"
pytestmark = [pytest.mark.real_data, pytest.mark.skipif(
    not (MEDS / "events.parquet").is_file() or not RAW.is_dir(),
    reason="EAG_RL_DATA names no folder that holds mimic-iv-demo-meds and mimic-iv-demo-2.2")]
NAMES = catalogue("mimic_iv").names
STAY = ["admitted_at", "discharged_at", "age", "sex", "label"]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", params=[("mortality", 140, 20, 630), ("readmission", 120, 11, 493)],
                ids=["mortality", "readmission"])
def both(request, cache):
    """(MEDS, raw, stays, stays with label 1, days) of one outcome."""
    outcome, *counts = request.param
    section = Cohort(source="meds", outcome=outcome)
    meds = read_meds(MEDS, section, cache, {name: digest(path) for name, path in source_files(MEDS, section).items()})
    checksums = {name: digest(table.path) for name, table in open_extract(RAW).tables.items()}
    raw = read_mimic_iv(RAW, Cohort(source="mimic_iv", outcome=outcome), cache, checksums)
    return meds, raw, counts


def days(source):
    """Days with the times of their stay: identifiers are opaque."""
    named = source.days.join(source.stays.select("stay_id", *STAY[:2]), on="stay_id").drop("stay_id")
    return named.select(*STAY[:2], "date", *NAMES).sort(*STAY[:2], "date")


def step(source, words):
    return next(step.found for step in source.attrition if words in step.rule)


def test_stays_ages_and_labels_are_the_same(both):
    meds, raw, (stays, positive, _) = both
    assert (meds.stays.height, meds.stays["label"].sum()) == (stays, positive)
    assert_frame_equal(meds.stays.select(STAY).sort(STAY), raw.stays.select(STAY).sort(STAY))


def test_days_are_the_same_to_the_last_digit(both):
    meds, raw, (_, _, count) = both
    assert meds.days.height == count
    assert_frame_equal(days(meds), days(raw), rel_tol=1e-6, abs_tol=0)
    assert days(meds)["Capillary refill rate"].null_count() == count


@pytest.mark.parametrize(("outcome", "anchor"), [("mortality", None), ("readmission", "discharge")])
def test_the_shipped_configuration_makes_a_valid_cohort(cache, outcome, anchor):
    section = load("mimic_demo_meds", [f"cohort.outcome={outcome}"]).cohort
    checksums = {name: digest(path) for name, path in source_files(MEDS, section).items()}
    source = read_source(section, 42, MEDS, cache, checksums)
    cohort = prepare(source, section, 42)
    assert (cohort.meta["source"], cohort.meta["unit"], cohort.meta.get("label_anchor")) == ("meds", "all", anchor)
    validity.require(validity.check(cohort, source))


def test_counts_differ_by_what_the_conversion_lost(both):
    meds, raw, _ = both
    assert step(meds, "means no feature") == 801_551
    # 3041 texts of capillary refill, which the rebuilt chartevents lack; two rows of the laboratory are in both.
    assert (step(meds, "events: no number"), step(raw, "hosp/labevents: no number")) == (3043, 2)
    for words in ("outside of all stays", "repeats stay, time", "sum of its parts", "outside 21 to 100 %"):
        assert step(meds, words) == step(raw, words)
    assert meds.quarantine.height == 0
