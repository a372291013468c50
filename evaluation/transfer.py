"""The transfer experiment's result: what one study trained, judged on the test stays of another.

In go verdicts of several lines, out come a frame with one row for each line and reading of its risk, its cells as text,
a picture and sentences. A line is an arm, what trained it, and what it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from contracts.frames import VERDICTS
from evaluation import metrics, statistics, wording
from evaluation.report import too_few
from evaluation.risks import MODEL, REFERENCE, STATED, readings_of, same_stays
from evaluation.statistics import Measured
from evaluation.svg import drawing, inline, series, short

Trained = Literal["source", "target", "nothing"]
Reads = Literal["shared words", "own words", "shared features", "all features"]
MEASURED = ("auroc", "auprc")
COMPARISONS = ("target", "base")
HEADERS = ("Arm", "Trained on", "Reads", "Risk", "n", "Parsed", "AUROC", "AUPRC", "AUROC vs trained there",
           "AUPRC vs trained there", "AUROC vs untrained", "AUPRC vs untrained")
_WHAT, _GAP = ("point", "low", "high"), ("point", "low", "high", "p")
SCHEMA: dict[str, Any] = {
    "arm": pl.String, "trained": pl.String, "study": pl.String, "reads": pl.String, "reading": pl.String, "n": pl.Int64,
    "positives": pl.Int64, **dict.fromkeys(statistics.PATIENTS, pl.Int64), "parse_rate": pl.Float64,
    **{f"{name}_{what}": pl.Float64 for name in MEASURED for what in _WHAT},
    **{f"{name}_{other}_{what}": pl.Float64 for other in COMPARISONS for name in MEASURED
       for what in (*_GAP, "p_holm")},
    "resamples": pl.Int64, "redrawn": pl.Int64}
_MARKS = {"source": "o", "target": "s", "nothing": "D"}


@dataclass(frozen=True)
class Line:
    """What is judged.

    Attributes:
        arm: of the result table: a policy arm or a model.
        trained: where: in the source study, in the target study, or not at all.
        reads: prompts in the source's or the target's own words; or shared or all features, as numbers.
    """

    arm: str
    trained: Trained
    reads: Reads


def results(verdicts: Mapping[Line, pl.DataFrame], studies: tuple[str, str], bootstraps: int, seed: int,
            patients: Mapping[str, str] | None = None) -> pl.DataFrame:
    """Measures every line, all on the same resamples of the target's patients.

    Args:
        verdicts: line to contract VERDICTS and `verdicts.EXTRAS`, all of the same stays.
        studies: names of the source and the target.
        bootstraps: B.
        seed: of the resamples.
        patients: stay to patient, where a patient may have several stays.

    Returns:
        rows in the order of the lines, columns `SCHEMA`: shares, not percent; `low` and `high` bound the 95 %
        percentile interval. `target`: minus the same arm and reading as the target has it (trained there, in its own
        words, of all features); `base`: a trained policy minus the untrained arm "decomposition" asked in the same
        words; both paired, with p-values corrected over the lines of a reading (Holm 1979); neither is there where
        all stays are of one patient, whose intervals are over resamples of stays.

    Raises:
        ContractError: the verdicts break their contract.
        DataError: nothing to measure, lines judged other stays or labels, or a class is missing.
    """
    parts = {line: VERDICTS.check(frame).sort("stay_id") for line, frame in verdicts.items()}
    first = same_stays([(f"{line.arm!r} trained on {line.trained}, {line.reads},", part)
                        for line, part in parts.items()])
    truth = first["label"].cast(pl.Int64).to_numpy()
    members = None if patients is None else [patients[stay] for stay in first["stay_id"]]
    drawn = statistics.resample_all(truth, bootstraps, seed, members)
    people = statistics.patient_counts(truth, members)
    found = {(line, reading): statistics.measured(MEASURED, truth, part[column].to_numpy(), drawn)
             for line, part in parts.items() for reading, column in readings_of(part).items()}
    rows = [{**_head(parts[line], line, reading, studies), **people, **_spread(values),
             **_gaps(line, reading, {(line, reading): values} if drawn.of_stays else found),
             "resamples": bootstraps, "redrawn": drawn.redrawn} for (line, reading), values in found.items()]
    return _corrected(pl.DataFrame(rows, schema=SCHEMA))


def cells(table: pl.DataFrame) -> list[list[str]]:
    """The table as text, AUROC and AUPRC in percent with their 95 % intervals; columns `HEADERS`."""
    return [[row["arm"], row["study"], row["reads"], row["reading"], str(row["n"]),
             wording.NONE if row["reading"] == MODEL else f"{100 * row['parse_rate']:.0f} %",
             *(wording.percent(row, name) for name in MEASURED),
             *(wording.tested(row, f"{name}_{other}") for other in COMPARISONS for name in MEASURED)]
            for row in table.iter_rows(named=True)]


def markdown(table: pl.DataFrame) -> str:
    """The table in Markdown."""
    return wording.markdown((list(HEADERS), cells(table)))


def headline(table: pl.DataFrame) -> list[str]:
    """A sentence for each line that was trained on the source, and before them a warning where patients are too few."""
    sentences = too_few(table, "The figures show that the experiment runs; they say nothing about how well an arm "
                               "transfers.")
    for row in table.filter((pl.col("trained") == "source") & (pl.col("reading") != STATED)).iter_rows(named=True):
        told = [f"minus {what} {wording.tested(row, name)}"
                for what, name in (("trained there", "auroc_target"), ("untrained", "auroc_base"))
                if row[f"{name}_point"] is not None]
        tail = f"; {'; '.join(told)}" if told else ""
        sentences.append(f"{row['arm']}, trained on {row['study']}: AUROC {wording.percent(row, 'auroc')} %{tail}.")
    return sentences


def picture(table: pl.DataFrame, name: str = "transfer") -> str:
    """AUROC and AUPRC of every line with 95 % intervals; risk of language-model arms from the tokens."""
    shown = table.filter(pl.col("reading") != STATED).to_dicts()
    with drawing(8.4, 1.3 + 0.3 * len(shown)) as figure:
        panels = figure.subplots(1, len(MEASURED), sharey=True)
        for axes, measure in zip(panels, MEASURED, strict=True):
            for place, row in enumerate(shown):
                color = series(list(_MARKS).index(row["trained"]))
                axes.plot([100 * row[f"{measure}_low"], 100 * row[f"{measure}_high"]], [place, place], color=color,
                          linewidth=2.0)
                axes.plot(100 * row[f"{measure}_point"], place, color=color, marker=_MARKS[row["trained"]],
                          markersize=5.5)
            axes.set_title(f"{measure.upper()} [%]", loc="left")
            axes.set_xlim(-2, 102)
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0)
        labels = [_label({**row, "arm": short(row["arm"]), "study": short(row["study"])}) for row in shown]
        panels[0].set_yticks(range(len(shown)), labels, fontsize=8.5)
        panels[0].set_ylim(len(shown) - 0.4, -0.6)
        told = " ".join(f"{_label(row)}: AUROC {wording.percent(row, 'auroc')}, "
                        f"AUPRC {wording.percent(row, 'auprc')}." for row in shown)
        return inline(figure, name, "AUROC and AUPRC by arm and by where it was trained", told)


def _label(row: Mapping[str, Any]) -> str:
    whose = "untrained" if row["trained"] == "nothing" else row["study"]
    return f"{row['arm']}: {whose}, {row['reads']}"


def _head(part: pl.DataFrame, line: Line, reading: str, studies: tuple[str, str]) -> dict[str, Any]:
    study = {"source": studies[0], "target": studies[1], "nothing": "nothing"}[line.trained]
    return {"arm": line.arm, "trained": line.trained, "study": study, "reads": line.reads, "reading": reading,
            "n": part.height, "positives": int(part["label"].cast(pl.Int64).sum()),
            "parse_rate": metrics.parse_rate(part)}


def _spread(values: Measured) -> dict[str, float]:
    spreads = {name: statistics.summary(point, resampled) for name, (point, resampled) in values.items()}
    return {f"{name}_{what}": getattr(spread, what) for name, spread in spreads.items() for what in _WHAT}


def _gaps(line: Line, reading: str, found: Mapping[tuple[Line, str], Measured]) -> dict[str, float | None]:
    """Differences to the line as the target has it, and to the untrained arm in the same words."""
    others = {"target": _as_target(line, found), "base": _untrained(line, found)}
    values: dict[str, float | None] = {}
    for place, other in others.items():
        there = None if other is None else found.get((other, reading))
        for name in MEASURED:
            point, resampled = found[line, reading][name]
            gap = None if there is None else statistics.difference(point - there[name][0], resampled, there[name][1])
            values |= {f"{name}_{place}_{what}": None if gap is None else getattr(gap, what) for what in _GAP}
    return values


def _as_target(line: Line, found: Mapping[tuple[Line, str], Measured]) -> Line | None:
    if line.reads in ("own words", "all features"):
        return None
    return next((one for one, _ in found if one.arm == line.arm and one.reads in ("own words", "all features")), None)


def _untrained(line: Line, found: Mapping[tuple[Line, str], Measured]) -> Line | None:
    base = Line(REFERENCE, "nothing", line.reads)
    return base if line.trained != "nothing" and any(one == base for one, _ in found) else None


def _corrected(table: pl.DataFrame) -> pl.DataFrame:
    """Holm's correction over the lines, for each reading, measure and comparison."""
    readings = table["reading"].to_list()
    return table.with_columns(
        pl.Series(f"{name}_p_holm", statistics.holm_by(readings, table[f"{name}_p"].to_list()), pl.Float64)
        for name in (f"{measure}_{other}" for other in COMPARISONS for measure in MEASURED))
