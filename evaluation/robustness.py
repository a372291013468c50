"""The robustness experiment's result: every arm on perturbed test stays, measured, drawn and written as a page.

In go verdicts of several arms under several perturbations, out come a frame with one row for each arm, reading of its
risk, kind and share, its cells as text, curves as SVG (see `svg`) and one self-contained page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl
from matplotlib.axes import Axes

from contracts.errors import DataError
from evaluation import metrics, pages, statistics, wording
from evaluation.baselines import BOOSTING, EXPERT, LOGISTIC
from evaluation.report import too_few
from evaluation.risks import by_arm, readings_of, same_stays
from evaluation.svg import drawing, inline, series, short

MODELS = (EXPERT, LOGISTIC, BOOSTING)
MEASURED = ("auroc", "auprc")
HEADERS = ("Perturbation", "p", "Arm", "Risk", "n", "Parsed", "AUROC", "AUROC vs p = 0", "AUPRC", "AUPRC vs p = 0")
MEANING = {
    "shuffle": "The values of a share p of the features change places, each feature showing another one's course.",
    "drop": "A share p of the measured features becomes unmeasured.",
    "noise": "Every value gets Gaussian noise of p training standard deviations.",
    "rename": "A share p of the features stands in the prompt under a clinical alias; no number changes, so models "
              "that read numbers stay where they are."}
_WHAT = ("point", "low", "high")
SCHEMA: dict[str, Any] = {
    "arm": pl.String, "reading": pl.String, "kind": pl.String, "share": pl.Float64, "n": pl.Int64,
    "positives": pl.Int64, **dict.fromkeys(statistics.PATIENTS, pl.Int64), "parse_rate": pl.Float64,
    **{f"{name}_{what}": pl.Float64 for name in MEASURED for what in _WHAT},
    **{f"{name}_change_{what}": pl.Float64 for name in MEASURED for what in _WHAT},
    "resamples": pl.Int64, "redrawn": pl.Int64}
_LINES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
_MARKS = "osD^vP*X"


@dataclass(frozen=True)
class Page:
    """What the page is made of.

    Attributes:
        study, created, outcome: as text.
        table: of `results`.
        touched: kind and share to the mean number of features changed in a stay.
        settings: dotted names and values.
        provenance: rows with the same keys.
    """

    study: str
    created: str
    outcome: str
    table: pl.DataFrame
    touched: Sequence[tuple[str, float, float]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Sequence[Mapping[str, str]] = ()


def results(verdicts: Mapping[tuple[str, float], pl.DataFrame], bootstraps: int, seed: int,
            patients: Mapping[str, str] | None = None) -> pl.DataFrame:
    """Measures every arm under every perturbation, on the same resamples of patients.

    Args:
        verdicts: (kind, share) to contract VERDICTS and `verdicts.EXTRAS`, of the same arms on the same stays; each
            kind also with share 0, the unperturbed stays.
        bootstraps: B.
        seed: of the resamples.
        patients: stay to patient, where a patient may have several stays.

    Returns:
        rows by kind, arm, reading and share, columns `SCHEMA`: shares, not percent; `low` and `high` bound the 95 %
        percentile interval; `change` is the value minus that of the same arm and reading at share 0, paired; there is
        none where all stays are of one patient, whose intervals are over resamples of stays.

    Raises:
        ContractError: the verdicts break their contract.
        DataError: nothing to measure, arms judged other stays or labels, a kind lacks share 0, or a class is missing.
    """
    parts = {place: by_arm(frame) for place, frame in verdicts.items()}
    first = _checked(parts)
    members = None if patients is None else [patients[stay] for stay in first["stay_id"]]
    drawn = statistics.resample_all(first["label"].to_numpy(), bootstraps, seed, members)
    people = statistics.patient_counts(first["label"].to_numpy(), members)
    rows = []
    for kind in dict.fromkeys(kind for kind, _ in parts):
        shares = sorted(share for other, share in parts if other == kind)
        for arm, still in parts[kind, 0.0].items():
            for reading, column in readings_of(still).items():
                base = _measured(still, column, drawn)
                rows += [{**_row(parts[kind, share][arm], (arm, reading, kind, share), column, base, drawn), **people}
                         for share in shares]
    return pl.DataFrame(rows, schema=SCHEMA)


def cells(table: pl.DataFrame) -> list[list[str]]:
    """The table as text, AUROC and AUPRC in percent with their 95 % intervals; columns `HEADERS`."""
    return [[row["kind"], f"{row['share']:g}", row["arm"], row["reading"], str(row["n"]),
             "–" if row["reading"] == "model" else f"{100 * row['parse_rate']:.0f} %",
             *(text for name in MEASURED for text in (wording.percent(row, name),
                                                      wording.points(row, f"{name}_change")))]
            for row in table.iter_rows(named=True)]


def markdown(table: pl.DataFrame) -> str:
    """The table in Markdown."""
    return wording.markdown((list(HEADERS), cells(table)))


def curves(table: pl.DataFrame, kind: str, name: str) -> str:
    """AUROC and AUPRC of each arm over the share of one kind, with 95 % intervals; risk of policy arms from the tokens.

    Args:
        name: of the picture, unique on the page.
    """
    shown = table.filter((pl.col("kind") == kind) & (pl.col("reading") != "stated"))
    arms = shown["arm"].unique(maintain_order=True).to_list()
    across = "p [training standard deviations]" if kind == "noise" else "p [share of the features]"
    with drawing(8.4, 3.5 + 0.175 * len(arms)) as figure:
        for place, measure in enumerate(MEASURED):
            axes = figure.add_subplot(1, 2, place + 1)
            for number, arm in enumerate(arms):
                _curve(axes, shown.filter(pl.col("arm") == arm), measure, number, arm)
            axes.set(xlabel=across, ylim=(-0.02, 1.02))
            axes.set_title(measure.upper(), loc="left")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=1, fontsize=9, handlelength=3.2)
        return inline(figure, name, f"AUROC and AUPRC over p: {kind}", _course(shown, arms))


def headline(table: pl.DataFrame) -> list[str]:
    """A sentence for each kind: each arm's AUROC at the largest share, and how far that is from where it was.

    Before them stands a warning where one outcome is so rare among the test patients that no figure says anything.
    """
    sentences = too_few(table, "The figures show that the experiment runs; they say nothing about how robust an arm "
                               "is.")
    for kind in table["kind"].unique(maintain_order=True):
        part = table.filter((pl.col("kind") == kind) & (pl.col("reading") != "stated"))
        last = part.filter(pl.col("share") == part["share"].max())
        told = "; ".join(f"{row['arm']} {100 * row['auroc_point']:.1f} % ({wording.points(row, 'auroc_change')})"
                         for row in last.iter_rows(named=True))
        sentences.append(f"{kind.capitalize()}, p = {last['share'][0]:g}: AUROC {told}.")
    return sentences


def render(page: Page) -> str:
    """The page as HTML: nothing is fetched, no script, everything escaped."""
    kinds = page.table["kind"].unique(maintain_order=True).to_list()
    pictures = [(kind, MEANING.get(kind, kind), pages.svg(curves(page.table, kind, f"curve-{kind}"))) for kind in kinds]
    touched = [(kind, f"{share:g}", f"{count:.1f}") for kind, share, count in page.touched]
    return pages.render(
        "robustness.html", page=page, pictures=pictures, headers=HEADERS, rows=cells(page.table),
        headline=headline(page.table), touched=touched, provenance=[list(one.values()) for one in page.provenance],
        stays=page.table["n"][0], positives=page.table["positives"][0], resamples=page.table["resamples"][0],
        redrawn=page.table["redrawn"][0])


def _checked(parts: Mapping[tuple[str, float], Mapping[str, pl.DataFrame]]) -> pl.DataFrame:
    """Any arm's verdicts, once all are seen to be of the same arms, stays and labels, and each kind to have share 0."""
    first = same_stays([(f"{kind} with p = {share:g}: arm {arm!r}", part)
                        for (kind, share), arms in parts.items() for arm, part in arms.items()])
    wanted = next(set(arms) for arms in parts.values() if arms)
    for (kind, share), arms in parts.items():
        if set(arms) != wanted:
            raise DataError(f"{kind} with p = {share:g} has arms {sorted(arms)}", f"the same arms: {sorted(wanted)}",
                            "judge all arms under each perturbation")
        if (kind, 0.0) not in parts:
            raise DataError(f"{kind} has no share 0", "each kind begins with the unperturbed stays", "add share 0")
    return first


def _measured(part: pl.DataFrame, column: str, drawn: statistics.Resamples) -> statistics.Measured:
    return statistics.measured(MEASURED, part["label"].to_numpy(), part[column].to_numpy(), drawn)


def _row(part: pl.DataFrame, place: tuple[str, str, str, float], column: str, base: statistics.Measured,
         drawn: statistics.Resamples) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(("arm", "reading", "kind", "share"), place, strict=True))
    row |= {"n": part.height, "positives": int(part["label"].cast(pl.Int64).sum()),
            "parse_rate": metrics.parse_rate(part), "resamples": drawn.counts.shape[0], "redrawn": drawn.redrawn}
    compared = place[3] > 0 and not drawn.of_stays
    for name, (point, values) in _measured(part, column, drawn).items():
        spread = statistics.summary(point, values)
        gap = statistics.difference(point - base[name][0], values, base[name][1])
        row |= {f"{name}_{what}": getattr(spread, what) for what in _WHAT}
        row |= {f"{name}_change_{what}": getattr(gap, what) if compared else None for what in _WHAT}
    return row


def _curve(axes: Axes, part: pl.DataFrame, measure: str, number: int, label: str) -> None:
    share, point, low, high = (part[column].to_numpy()
                               for column in ("share", *(f"{measure}_{what}" for what in _WHAT)))
    axes.fill_between(share, low, high, color=series(number), alpha=0.12, linewidth=0)
    axes.plot(share, point, color=series(number), linestyle=_LINES[number % len(_LINES)],
              marker=_MARKS[number % len(_MARKS)], markersize=4, label=short(label))


def _course(shown: pl.DataFrame, arms: Sequence[str]) -> str:
    words = []
    for arm in arms:
        part = shown.filter(pl.col("arm") == arm).sort("share")
        ends = [f"{name.upper()} from {100 * part[f'{name}_point'][0]:.1f} to {100 * part[f'{name}_point'][-1]:.1f}"
                for name in MEASURED]
        words.append(f"{arm}: {', '.join(ends)} percent.")
    shares = shown["share"].sort()
    return f"p from {shares[0]:g} to {shares[-1]:g}. " + " ".join(words)
