"""Splits: each patient stands in exactly one of train, validation and test.

In: patients with their label. Out: patient_id, split. They depend on identifiers and labels only, never on the
order of rows: `stratified` draws by a hash of the identifier, so it is the same on every machine and version.
"""

from __future__ import annotations

from hashlib import blake2b

import polars as pl

from contracts.errors import ContractError, DataError
from contracts.frames import SPLITS

PAPER_TEST, PAPER_VALIDATION, PAPER_SEED = 200, 1 / 8, 42


def paper_split(patients: pl.DataFrame) -> pl.DataFrame:
    """The split behind Table 3 of EAG-RL (arXiv 2508.13579) for TJH; its seed is fixed.

    Args:
        patients: patient (the number of the file), label; one row a patient.

    Returns:
        patient, split.

    Raises:
        DataError: there are too few patients to take 200 for the test split.
    """
    # Imported here: scikit-learn takes longer to load than all else in this room, and only this split needs it.
    from sklearn.model_selection import train_test_split

    ordered = patients.sort("patient")
    if ordered.height < PAPER_TEST + 16 or ordered["label"].n_unique() < 2:
        raise DataError(f"{ordered.height} dated patients",
                        f"split `paper` takes {PAPER_TEST} of 361 for the test split",
                        "give the original file, or set cohort.split=stratified")
    labels = dict(ordered.select("patient", "label").iter_rows())
    rest, test = train_test_split(ordered["patient"].to_list(), test_size=PAPER_TEST, random_state=PAPER_SEED)
    train, validation = train_test_split(rest, test_size=PAPER_VALIDATION, random_state=PAPER_SEED,
                                         stratify=[labels[patient] for patient in rest])
    named = [(patient, name) for name, part in zip(SPLITS, (train, validation, test), strict=True) for patient in part]
    return pl.DataFrame(named, schema={"patient": ordered.schema["patient"], "split": pl.String}, orient="row")


def stratified_split(patients: pl.DataFrame, test_share: float, validation_share: float, seed: int) -> pl.DataFrame:
    """Draws test and validation patients, the same share of each label.

    Args:
        patients: patient_id, label; one row a patient.
        test_share: of all patients.
        validation_share: of those not in test.
        seed: of the draw.

    Returns:
        patient_id, split, ordered by patient_id.
    """
    parts = []
    for _, stratum in sorted(patients.group_by("label"), key=lambda part: part[0]):
        drawn = sorted(stratum["patient_id"], key=lambda patient: _draw(seed, patient))
        test = _share(len(drawn), test_share)
        validation = _share(len(drawn) - test, validation_share)
        names = ["test"] * test + ["validation"] * validation + ["train"] * (len(drawn) - test - validation)
        parts.append(pl.DataFrame({"patient_id": drawn, "split": names}, schema={"patient_id": pl.String,
                                                                                 "split": pl.String}))
    return pl.concat(parts).sort("patient_id")


def pinned_split(patients: pl.DataFrame, test_share: float, validation_share: float, seed: int) -> pl.DataFrame:
    """Places each patient by its own hash alone, so that nobody moves when patients are added or labels change.

    The shares of each label in a split are those of all patients up to chance: it is stratified in expectation.

    Args:
        patients: patient_id, label; one row a patient. test_share: of all patients. validation_share: of those not in
            test. seed: of the draw.

    Returns:
        patient_id, split, ordered by patient_id.
    """
    drawn = sorted(patients["patient_id"])
    shares = [int.from_bytes(_draw(seed, patient)) / 2.0**128 for patient in drawn]
    border = test_share + validation_share * (1.0 - test_share)
    names = ["test" if share < test_share else "validation" if share < border else "train" for share in shares]
    return pl.DataFrame({"patient_id": drawn, "split": names}, schema={"patient_id": pl.String, "split": pl.String})


def external_split(patients: pl.DataFrame) -> pl.DataFrame:
    """Places all patients in test: a second site, on which policies of another study are judged.

    Args:
        patients: patient_id; one row a patient.
    """
    return patients.select("patient_id", pl.lit("test").alias("split")).sort("patient_id")


def check_split(stays: pl.DataFrame) -> pl.DataFrame:
    """Returns `stays` unchanged if its split can be used; test stays alone are a second site.

    Raises:
        ContractError: a patient is in two splits, or a stay is in none.
        DataError: a split is empty or holds only one label.
    """
    unplaced = stays.filter(~pl.col("split").is_in(SPLITS).fill_null(False)).height
    if unplaced:
        raise ContractError(f"{unplaced} stays are in none of the splits {', '.join(SPLITS)}",
                            "each stay is in exactly one split", "recompute the cohort")
    torn = stays.group_by("patient_id").agg(pl.col("split").n_unique()).filter(pl.col("split") > 1).height
    if torn:
        raise ContractError(f"{torn} patients are in more than one split", "a patient is in exactly one split",
                            "split by patient, not by stay")
    for name in ("test",) if (stays["split"] == "test").all() else SPLITS:
        labels = stays.filter(pl.col("split") == name)["label"]
        if not labels.len() or labels.n_unique() < 2:
            found = f"{labels.len()} stays, {int(labels.sum())} of them with label 1"
            raise DataError(f"split {name} holds {found}", "each split holds stays of both labels",
                            "give more patients, or change cohort.test_share or cohort.validation_share")
    return stays


def _draw(seed: int, patient: str) -> bytes:
    return blake2b(f"{seed}/{patient}".encode(), digest_size=16).digest()


def _share(count: int, share: float) -> int:
    """`share` of `count`, at least one and leaving at least one wherever there are two."""
    return min(max(1, round(count * share)), count - 1) if count > 1 else 0
