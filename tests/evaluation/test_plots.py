import re
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest

from contracts.errors import DataError
from evaluation import clinical_plots, plots
from evaluation.appraisal import DIFFERENCES
from support.judged import FEATURES, readings_of, stays_of

LABELS = np.array([0, 1, 0, 1, 1, 0])
CURVES = {"good <arm> & $x$": (LABELS, np.array([0.1, 0.9, 0.2, 0.8, 0.7, 0.3])),
          "flat": (LABELS, np.full(6, 0.5))}


@pytest.mark.parametrize("draw", [plots.roc, plots.precision_recall])
def test_a_picture_is_xml_without_addresses_dates_or_fixed_colours(draw) -> None:  # noqa: ANN001
    svg = draw(CURVES)
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg" and "good <arm> & $x$" in "".join(root.itertext())
    assert not re.search(r"http|xmlns|<metadata|\d{4}-\d\d-\d\d|#000000|#f[de]00", svg)
    assert "currentColor" in svg and "var(--series-1)" in svg


def test_the_same_picture_is_drawn_twice_alike() -> None:
    assert plots.roc(CURVES) == plots.roc(CURVES)


def test_two_pictures_on_a_page_share_no_identifier() -> None:
    one, two = (set(re.findall(r'id="([^"]+)"', plots.roc(CURVES, name))) for name in ("a", "b"))
    assert one and two and not one & two


def test_the_words_of_a_picture_tell_its_areas() -> None:
    assert "AUROC in percent: good &lt;arm&gt; &amp; $x$ 100.0, flat 50.0." in plots.roc(CURVES)


def test_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="labels are 1"):
        plots.roc({"arm": (np.ones(3, int), np.full(3, 0.5))})


def test_a_run_without_rewards_or_bounds_gives_no_picture() -> None:
    steps = pl.DataFrame({"step": [1, 2], "loss": [1.0, 0.5], "reward": [None, None]},
                         schema_overrides={"reward": pl.Float64})
    assert plots.rewards(steps) is None
    assert plots.clip_bounds(steps) is None


def test_missing_steps_are_left_out_of_a_curve() -> None:
    svg = plots.rewards(pl.DataFrame({"step": [1, 2, 3], "reward": [0.25, None, 0.5]}))
    assert svg is not None and "from 0.250 to 0.500 over 2 steps" in svg


def test_the_heat_map_has_a_row_a_token_and_no_identifiers() -> None:
    stays = stays_of(12)
    labels = [0] * 6 + [1] * 6
    svg = plots.attention(readings_of(stays), stays["stay_id"].to_list(), list(FEATURES), labels)
    words = "".join(ElementTree.fromstring(svg).itertext())
    assert all(name in words for name in FEATURES) and "outcome 1" in words
    assert "s003" not in svg
    assert 12 < svg.count("var(--heat)") <= 36


def test_names_of_hundreds_of_letters_do_not_squeeze_a_picture(recwarn: pytest.WarningsRecorder) -> None:
    long = "l" * 300
    stays = stays_of(12)
    readings = readings_of(stays).with_columns(feature=pl.col("feature") + long)
    rows = [{"arm": long, "reading": "tokens", "measure": measure, "reference": "b", "difference": 0.1, "low": 0.0,
             "high": 0.2, "p": 0.1, "p_holm": 0.1} for measure in ("auroc", "auprc")]
    forest = clinical_plots.forest(pl.DataFrame(rows, schema=DIFFERENCES))
    for svg in (plots.attention(readings, stays["stay_id"].to_list(), readings["feature"].unique().to_list(), [0] * 12),
                plots.roc({long: CURVES["flat"]}), plots.precision_recall({long: CURVES["flat"]}), forest):
        words = "".join(ElementTree.fromstring(str(svg)).itertext())
        assert "…" in words and long in words  # the picture's description tells the whole name
    assert [str(one.message) for one in recwarn] == []
