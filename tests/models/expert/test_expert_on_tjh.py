"""The expert on the real TJH patients, with the settings of configs/tjh.yaml."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from configs.load import dump, load
from ehr.cohort import prepare, read_source, write
from models.expert.training import train

pytestmark = pytest.mark.slow

DATA = os.environ.get("EAG_RL_DATA", "")


@pytest.mark.real_data
@pytest.mark.skipif(not DATA, reason="EAG_RL_DATA names no folder of real data")
def test_the_mean_auroc_over_three_seeds_passes_the_target(tmp_path: Path) -> None:
    config = load("tjh")
    cohort = prepare(read_source(config.cohort, config.study.seed, Path(DATA)), config.cohort, config.study.seed)
    write(cohort, tmp_path / "cohort")
    done = train({"cohort": str(tmp_path / "cohort"), "out": str(tmp_path / "out"), "section": dump(config.expert),
                  "seed": config.study.seed})
    assert config.expert.seeds == 3
    assert done["metrics"]["test_auroc_mean"] >= 0.95
    assert done["metrics"]["test_auprc_mean"] >= 0.93
