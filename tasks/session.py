"""What the tasks of one process share: the configuration, the store, the tracker and the model servers.

Prefect passes only JSON between flows and tasks; the handles behind it are looked up here by that JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.load import dump
from configs.schema import Config
from contracts.errors import MissingFileError
from contracts.features import catalogue
from ehr.sources.places import is_local, place_of
from lineage.leases import Lease
from lineage.store import Store

if TYPE_CHECKING:
    from lineage.tracking import Tracker


@dataclass(frozen=True)
class Decision:
    """Why a stage ran or was skipped, for the table at the end of a run.

    Attributes:
        cost: of `tasks.meter.Cost.metrics`; of a skipped stage: what was spent when it was made.
    """

    stage: str
    ran: bool
    why: str
    artifact: str
    seconds: float
    cost: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Session:
    """The handles behind one configuration in this process.

    Attributes:
        config: the study.
        study_run: id of the parent run in MLflow, while a study runs.
        last_study_run: id of the last one.
        sweep_run: id of the run above it, in a sweep.
        decisions: one for each stage so far.
        lease: says what this study uses, while it runs.
    """

    config: Config
    study_run: str | None = None
    last_study_run: str | None = None
    sweep_run: str | None = None
    decisions: list[Decision] = field(default_factory=list)
    lease: Lease | None = None

    @property
    def workspace(self) -> Path:
        """The folder of artifacts, caches, logs and databases."""
        return Path(self.config.paths.workspace).resolve()

    def of(self, config: Config) -> Session:
        """The session of another configuration of the same study (an arm's), in the same run of the study."""
        other = session_of(dump(config))
        other.study_run, other.decisions, other.lease = self.study_run, self.decisions, self.lease
        return other

    @cached_property
    def store(self) -> Store:
        """The artifact store of the workspace."""
        return Store(self.workspace)

    @cached_property
    def tracker(self) -> Tracker:
        """MLflow (imported only when first used: it takes seconds)."""
        from lineage.tracking import Tracker

        return Tracker(self.workspace, self.config.study.name)

    @property
    def data(self) -> Path | None:
        """The folder of real data: paths.data, else EAG_RL_DATA, else none.

        Raises:
            MissingFileError: the folder named is not there, or not where this source can read it.
        """
        named = self.config.paths.data or os.environ.get("EAG_RL_DATA")
        if not named:
            return None
        folder = place_of(named)
        if not is_local(folder) and self.config.cohort.source != "mimic_iv":
            source = self.config.cohort.source
            raise MissingFileError(f"data folder {named}", f"cohort.source={source} reads a folder of this machine; "
                                   "only mimic_iv also an fsspec URL", "copy the files here and name that folder")
        if not folder.exists():
            raise MissingFileError(f"data folder {folder} does not exist", "paths.data or EAG_RL_DATA names a folder",
                                   "correct the setting, or get the data with `eag-rl data fetch tjh`")
        return folder.resolve()


_sessions: dict[str, Session] = {}


def session_of(config: Mapping[str, Any]) -> Session:
    """The session of a dumped configuration, made at first use in this process.

    Raises:
        ConfigError: it names a feature that the source does not have.
    """
    key = json.dumps(config, sort_keys=True)
    if key not in _sessions:
        _sessions[key] = Session(_with_known_features(Config.model_validate(config)))
    return _sessions[key]


def _with_known_features(config: Config) -> Config:
    """The configuration, whose named features exist (its own and its arms'): found now, and not once the expert is
    trained. Of MEDS the mapping names the catalogue, which is read with the data."""
    if config.cohort.source == "meds":
        return config
    known = catalogue("tjh" if config.cohort.source.startswith("tjh") else "mimic_iv")
    arms = [config.arms[arm].prepare.get("prompts.features") for arm in config.evaluation.arms if arm in config.arms]
    for named in (config.prompts.features, *arms):
        for name in named if isinstance(named, tuple | list) else ():
            known[str(name)]
    return config
