"""The picture of `gain`: the uncertainty of predictions over the entropy of their clinical tokens."""

from __future__ import annotations

import polars as pl
from matplotlib.axes import Axes

from evaluation.svg import DASHES, drawing, inline, series, short
from evaluation.uncertainty import ANSWERS, GROUPS, ROLLOUTS

_PANELS = {"stage 2": (ROLLOUTS, GROUPS), "test answers": (ANSWERS,)}


def entropy_and_uncertainty(curves: pl.DataFrame, arm: str | None, name: str = "entropy") -> str | None:
    """Mean uncertainty over fifths of the entropy, a panel for stage 2 and one for an arm's test answers.

    Args:
        curves: `uncertainty.CURVE`.
        arm: whose test answers are drawn.

    Returns:
        The picture; None if there is nothing to draw.
    """
    parts = {title: curves.filter(pl.col("source").is_in(list(sources)),
                                  pl.col("arm").is_null() | (pl.col("arm") == arm))
             for title, sources in _PANELS.items()}
    shown = {title: part for title, part in parts.items() if part.height}
    if not shown:
        return None
    with drawing(4.2 * max(len(shown), 1.2), 3.7) as figure:
        words = []
        for number, (title, part) in enumerate(shown.items()):
            axes = figure.add_subplot(1, len(shown), number + 1)
            words += _panel(axes, part)
            axes.set_title(title if part["arm"][0] is None else f"{title} of {short(str(arm))}", loc="left")
        return inline(figure, name, "Uncertainty over the entropy of clinical tokens", " ".join(words))


def _panel(axes: Axes, part: pl.DataFrame) -> list[str]:
    words = []
    for number, label in enumerate(part["uncertainty"].unique(maintain_order=True)):
        line = part.filter(pl.col("uncertainty") == label)
        axes.plot(line["entropy"].to_numpy(), line["value"].to_numpy(), color=series(number), marker="o", markersize=4,
                  linestyle=DASHES[number % len(DASHES)], label=label)
        words.append(f"{line['source'][0]}, {label}: from {line['value'][0]:.3f} to {line['value'][-1]:.3f} over "
                     f"entropies from {line['entropy'][0]:.2f} to {line['entropy'][-1]:.2f} nat.")
    axes.set_ylim(bottom=0)
    axes.set(xlabel="entropy of clinical tokens [nat]", ylabel="mean uncertainty (entropies in nat)")
    axes.legend(fontsize=8.5, loc="best")
    return words
