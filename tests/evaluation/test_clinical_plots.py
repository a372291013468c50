import re
from xml.etree import ElementTree

import polars as pl
import pytest

from evaluation import appraisal, clinical_plots, decision

POLICY, EXPERT = ("stage1 <b> & $x$", "tokens"), ("expert", "model")
DIFFERENCES = pl.DataFrame(
    [{"arm": arm, "reading": reading, "measure": measure, "reference": "decomposition", "difference": 0.05,
      "low": -0.01, "high": 0.11, "p": 0.1, "p_holm": 0.2}
     for measure in ("auroc", "auprc") for arm, reading in (POLICY, EXPERT)], schema=appraisal.DIFFERENCES)
POINTS = pl.DataFrame(
    [{"arm": arm, "reading": reading, "bins": bins, "bin": number, "n": 10, "mean_risk": number / 4,
      "observed": number / 3} for arm, reading in (POLICY, EXPERT) for bins in ("uniform", "quantile")
     for number in range(3)], schema=appraisal.RELIABILITY)
CURVES = pl.DataFrame(
    [{"arm": arm, "reading": reading, "threshold": float(at), "net_benefit": 0.3 * (1 - at), "low": 0.0, "high": 0.4}
     for arm, reading in (POLICY, EXPERT, ("treat all", "–"), ("treat none", "–")) for at in decision.THRESHOLDS],
    schema=appraisal.DECISION)


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    forest = clinical_plots.forest(DIFFERENCES)
    assert forest is not None
    return {"forest": forest, "curves": clinical_plots.decision_curve(CURVES, [POLICY, EXPERT], POLICY),
            **{bins: clinical_plots.reliability(POINTS, [POLICY, EXPERT], bins, bins)
               for bins in ("uniform", "quantile")}}


@pytest.mark.parametrize("name", ["forest", "curves", "uniform", "quantile"])
def test_a_picture_is_xml_in_the_pages_colours_with_its_arms_in_words(drawn: dict[str, str], name: str) -> None:
    svg = drawn[name]
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg" and "stage1 <b> & $x$, tokens" in "".join(root.itertext())
    assert not re.search(r"http|xmlns|<metadata|\d{4}-\d\d-\d\d|#000000|#f[de]00", svg)
    assert "currentColor" in svg and re.search(r"var\(--series-\d\)", svg)


def test_the_same_picture_is_drawn_twice_alike(drawn: dict[str, str]) -> None:
    assert clinical_plots.forest(DIFFERENCES) == drawn["forest"]


def test_the_forest_tells_every_difference_with_its_interval(drawn: dict[str, str]) -> None:
    svg = drawn["forest"]
    assert svg.count("+5.0 points, from -1.0 to +11.0.") == 4
    assert "expert, model, AUPRC" in svg


def test_the_decision_curve_names_its_references_and_their_worth(drawn: dict[str, str]) -> None:
    svg = drawn["curves"]
    for words in ("treat all", "treat none", "thresholds 0.1, 0.3 and 0.5: ", "expert 0.270, 0.210, 0.150"):
        assert words in svg


def test_without_differences_there_is_no_forest() -> None:
    assert clinical_plots.forest(DIFFERENCES.clear()) is None


def test_an_arm_whose_bins_are_all_hidden_leaves_the_diagonal() -> None:
    assert "expert" in clinical_plots.reliability(POINTS.clear(), [EXPERT], "uniform", "none")
