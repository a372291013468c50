"""Arms without a language model, on the same test stays: simple models of one visit, and the expert's own risk.

In go the cohort folder (stays.parquet, filled.parquet, scaling.json; for the first visit first.parquet) and the
readings, out come verdicts in which both readings of the risk are the model's. Everything is chosen and fitted on the
training split alone. Missing values were carried forward before; what was never observed is the training mean for the
linear models and missing for the trees.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from contracts.cohort_files import FIRST as FIRST_DAYS
from contracts.cohort_files import read_frame
from contracts.errors import ContractError, DataError, MissingFileError
from contracts.frames import READINGS, STAYS, VERDICTS, VISITS, check_first, feature_columns
from evaluation.metrics import Floats, Ints, auroc
from evaluation.risks import FIRST
from evaluation.verdicts import SCHEMA

LOGISTIC, BOOSTING, SINGLE, EXPERT = "logistic regression", "gradient boosting", "best single feature", "expert"
MODEL_ARMS = (EXPERT, LOGISTIC, BOOSTING, SINGLE)
Visit = Literal["last", "first"]
_PENALTIES = {"C": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]}
_MOMENTS = ("mean", "sd", "low", "high")
_SEX = [0.5, 0.5, 0.0, 1.0]
_TREES = {"trees__min_samples_leaf": [5, 20], "trees__max_iter": [50, 150]}


@dataclass(frozen=True)
class Table:
    """One visit of each stay as numbers.

    Attributes:
        values: raw, in the features' units, NaN = never observed, (n, F + 2).
        scaling: rows mean, sd, low, high of the training split, (4, F + 2).
        names: of the F features, "Age" and "Sex".
        labels: (n,).
        stay_ids, splits: (n,).
    """

    values: Floats
    scaling: Floats
    names: tuple[str, ...]
    labels: Ints
    stay_ids: tuple[str, ...]
    splits: tuple[str, ...]

    def of(self, split: str) -> tuple[Floats, Ints]:
        """Values and labels of one split."""
        rows = np.array([found == split for found in self.splits], dtype=bool)
        return self.values[rows], self.labels[rows]


def judge_baselines(cohort: Path, seed: int, stay_ids: Collection[str] | None = None,
                    visits: Sequence[Visit] = ("last", "first")) -> tuple[pl.DataFrame, dict[str, str]]:
    """Logistic regression, gradient boosting and the best single feature, fitted on train, judged on test.

    Args:
        cohort: folder with stays.parquet, filled.parquet and scaling.json, and with first.parquet for the first visit.
        seed: of the folds and the trees.
        stay_ids: test stays to judge; None: all.
        visits: which visits to give the models; arms of the first visit are named "..., first visit".

    Returns:
        Verdicts, and for each arm a line on how it was chosen.

    Raises:
        MissingFileError, ArtifactError, ContractError: the folder does not hold the cohort.
        DataError: fewer than two training stays of a class, or a test stay that is not in the cohort.
    """
    stays, filled, scaling = read_cohort(cohort)
    wanted, rows, notes = _wanted(stays, stay_ids), [], {}
    for visit in visits:
        table = tabulate(stays, filled if visit == "last" else _first_days(cohort, filled), scaling)
        # A few hundred rows are fitted faster by one thread than by several that wait for each other.
        with threadpool_limits(limits=1):
            for arm, (model, note) in _fitted(table, seed).items():
                name = arm if visit == "last" else f"{arm}{FIRST}"
                rows.append(_verdicts(name, _risks(table, model), wanted))
                notes[name] = note if visit == "last" else f"{note}; fitted and judged on each stay's first day alone"
    return pl.concat(rows), notes


def judge_expert(readings: pl.DataFrame, stays: pl.DataFrame, stay_ids: Collection[str] | None = None,
                 arm: str = EXPERT) -> pl.DataFrame:
    """An expert's risks as an arm.

    Args:
        readings: contract READINGS, of at least the test stays.
        stays: contract STAYS.
        stay_ids: test stays to judge; None: all.

    Raises:
        ContractError: a frame breaks its contract, or the expert did not read a test stay.
    """
    risks = dict(READINGS.check(readings).group_by("stay_id").agg(pl.col("risk").first()).iter_rows())
    return _verdicts(arm, risks, _wanted(STAYS.check(stays), stay_ids))


def judge_first_visit(risks: pl.DataFrame, stays: pl.DataFrame, stay_ids: Collection[str] | None = None,
                      arm: str = EXPERT) -> pl.DataFrame:
    """An expert's risks at the first visit as an arm.

    Args:
        risks: stay_id, first (asked about the first day alone); of at least the test stays.
        stays, stay_ids: as `judge_expert` takes them.

    Raises:
        ContractError: a frame breaks its contract, or a test stay has no risk.
    """
    return _verdicts(f"{arm}{FIRST}", dict(risks.select("stay_id", "first").iter_rows()),
                     _wanted(STAYS.check(stays), stay_ids))


def tabulate(stays: pl.DataFrame, visits: pl.DataFrame, scaling: Mapping[str, Mapping[str, float]]) -> Table:
    """The last of the visits of each stay.

    Args:
        stays: contract STAYS.
        visits: contract VISITS after LOCF; or the first days alone, which are then the last there is.

    Raises:
        ContractError: a stay has no visit, or a feature has no scaling.
    """
    features = feature_columns(VISITS.check(visits))
    one = visits.sort("stay_id", "visit").group_by("stay_id", maintain_order=True).last()
    joined = STAYS.check(stays).sort("stay_id").join(one, on="stay_id", how="inner")
    if joined.height != stays.height:
        raise ContractError(f"{stays.height - joined.height} stays have no visit", "each stay has one at least",
                            "recompute the cohort")
    missing = [name for name in (*features, "age") if name not in scaling]
    if missing:
        raise ContractError(f"scaling.json does not hold {missing[:3]}", "it holds every feature and `age`",
                            "recompute the cohort")
    # 1, 0, or null where it is unknown
    male = joined["sex"].str.to_lowercase().str.head(1).replace_strict({"m": 1.0, "f": 0.0}, default=None,
                                                                       return_dtype=pl.Float64)
    columns = [*(joined[name].cast(pl.Float64) for name in (*features, "age")), male]
    moments = [[scaling[name][key] for key in _MOMENTS] for name in (*features, "age")]
    return Table(np.column_stack([column.to_numpy() for column in columns]), np.array([*moments, _SEX]).T,
                 (*features, "Age", "Sex"), joined["label"].cast(pl.Int64).to_numpy(), tuple(joined["stay_id"]),
                 tuple(joined["split"]))


@dataclass(frozen=True)
class Fitted:
    """A fitted classifier, the columns it reads, and their scaling (None: it reads raw values)."""

    classifier: ClassifierMixin | Pipeline
    columns: Sequence[int]
    scaling: Floats | None = None

    def risks(self, values: Floats) -> Floats:
        """Of raw values (n, F + 2): (n,)."""
        return np.asarray(self.classifier.predict_proba(self._inputs(values))[:, 1])

    def log_odds(self, values: Floats) -> Floats:
        """Of raw values (n, F + 2): (n,)."""
        return np.asarray(self.classifier.decision_function(self._inputs(values)))

    def _inputs(self, values: Floats) -> Floats:
        return (values if self.scaling is None else _standard(values, self.scaling))[:, self.columns]


class _Observed(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Leaves out the features of which no row of the fit has a value: the trees cannot bin them."""

    def fit(self, values: Floats, _labels: Ints | None = None) -> _Observed:
        self.columns_ = np.flatnonzero(~np.isnan(values).all(axis=0))
        return self

    def transform(self, values: Floats) -> Floats:
        return values[:, self.columns_]


def _fitted(table: Table, seed: int) -> dict[str, tuple[Fitted, str]]:
    """Each arm's model, chosen and fitted on train, and how it was chosen."""
    values, labels = table.of("train")
    folds = _folds(labels, seed)
    everything = range(len(table.names))
    linear = GridSearchCV(LogisticRegression(max_iter=5000), _PENALTIES, scoring="neg_log_loss", cv=folds)
    linear.fit(_standard(values, table.scaling), labels)
    single, name = _best_single(values, labels, table)
    return {LOGISTIC: (Fitted(linear.best_estimator_, everything, table.scaling),
                       f"C = {linear.best_params_['C']:g}, {_chosen(labels, folds)}"),
            BOOSTING: fit_boosting(table, seed),
            SINGLE: (single, f"{name}, largest AUROC on {labels.size} training stays")}


def fit_boosting(table: Table, seed: int) -> tuple[Fitted, str]:
    """Gradient boosted trees, chosen and fitted on the training stays, and how they were chosen.

    Raises:
        DataError: fewer than two training stays of a class.
    """
    values, labels = table.of("train")
    folds = _folds(labels, seed)
    boosted = HistGradientBoostingClassifier(random_state=seed, early_stopping=False, max_leaf_nodes=8)
    trees = GridSearchCV(Pipeline([("observed", _Observed()), ("trees", boosted)]), _TREES, scoring="neg_log_loss",
                         cv=folds)
    trees.fit(values, labels)
    return (Fitted(trees.best_estimator_, range(len(table.names))),
            f"{trees.best_params_['trees__max_iter']} trees, leaves of "
            f"{trees.best_params_['trees__min_samples_leaf']} or more, {_chosen(labels, folds)}")


def _chosen(labels: Ints, folds: StratifiedKFold) -> str:
    return f"chosen on {labels.size} training stays by log loss, {folds.get_n_splits()} folds"


def _folds(labels: Ints, seed: int) -> StratifiedKFold:
    fewest = int(min((labels == value).sum() for value in (0, 1)))
    if fewest < 2:
        raise DataError(f"{fewest} training stays of one class ({labels.size} in all)", "two of each class at least",
                        "take more stays or a stratified split")
    return StratifiedKFold(min(5, fewest), shuffle=True, random_state=seed)


def _best_single(values: Floats, labels: Ints, table: Table) -> tuple[Fitted, str]:
    """The feature whose one-variable logistic regression ranks the training stays best: its direction is learnt too."""
    inputs = _standard(values, table.scaling)
    models = [Fitted(LogisticRegression().fit(inputs[:, [column]], labels), [column], table.scaling)
              for column in range(len(table.names))]
    best = int(np.argmax([auroc(labels, model.risks(values)) for model in models]))
    return models[best], table.names[best]


def _standard(values: Floats, scaling: Floats) -> Floats:
    """Clipped z-scores, with the training mean (0) for what was never observed, (n, F + 2)."""
    mean, sd, low, high = scaling
    return np.nan_to_num((np.clip(values, low, high) - mean) / sd, nan=0.0)


def _risks(table: Table, model: Fitted) -> dict[str, float]:
    return dict(zip(table.stay_ids, model.risks(table.values).tolist(), strict=True))


def _wanted(stays: pl.DataFrame, stay_ids: Collection[str] | None) -> dict[str, int]:
    """Test stays to judge, in the order of `stay_ids` or of `stays`, with their labels."""
    labels = dict(stays.filter(pl.col("split") == "test").select("stay_id", "label").iter_rows())
    unknown = [stay for stay in stay_ids or () if stay not in labels]
    if unknown or not labels:
        raise ContractError(f"{len(unknown)} stays to judge are not in the test split of {len(labels)}",
                            "test stays are judged, and there is one at least", "recompute the cohort")
    return labels if stay_ids is None else {stay: labels[stay] for stay in stay_ids}


def _verdicts(arm: str, risks: Mapping[str, float], labels: Mapping[str, int]) -> pl.DataFrame:
    """Verdict rows of the stays of `labels`, in its order."""
    unread = sum(stay not in risks for stay in labels)
    if unread:
        raise ContractError(f"{unread} of {len(labels)} stays to judge have no risk of arm {arm!r}",
                            "each test stay has one", "recompute the cohort and the readings")
    rows = [{"arm": arm, "stay_id": stay, "label": label, "text": "", "parsed": True, "probability": risks[stay],
             "token_probability": risks[stay], "features": [], "prompt_tokens": 0, "completion_tokens": 0,
             "well_formed": True, "truncated": False, "reading": "model"} for stay, label in labels.items()]
    return VERDICTS.check(pl.DataFrame(rows, schema=SCHEMA))


def _first_days(cohort: Path, filled: pl.DataFrame) -> pl.DataFrame:
    """The first day of each stay of a cohort folder, with the features of `filled`."""
    return check_first(read_frame(cohort / FIRST_DAYS), feature_columns(filled))


def read_cohort(cohort: Path) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, dict[str, float]]]:
    """Stays, filled visits and scaling of a cohort folder.

    Raises:
        MissingFileError: a file is not there.
    """
    for name in ("stays.parquet", "filled.parquet", "scaling.json"):
        if not (cohort / name).is_file():
            raise MissingFileError(f"no file {name} in {cohort}", "a cohort folder holds it", "run `eag-rl cohort`")
    scaling = json.loads((cohort / "scaling.json").read_text(encoding="utf-8"))
    return pl.read_parquet(cohort / "stays.parquet"), pl.read_parquet(cohort / "filled.parquet"), scaling
