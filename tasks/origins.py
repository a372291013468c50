"""Where the source files of artifacts lie: of a cohort in the data folder, of a base model in its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ehr.sources.meds.source import source_files
from ehr.sources.mimic_iv.layout import open_extract
from ehr.sources.tjh_workbook import EXTERNAL, MAIN, locate
from lineage.artifact import Artifact
from tasks.session import Session


def cohort_files(session: Session) -> Mapping[str, Path]:
    """Name and place of each file that the cohort of a configuration is read from.

    Raises:
        DataError: the data folder does not hold them.
    """
    section = session.config.cohort
    if section.source == "synthetic":
        return {}
    if section.source in ("tjh", "tjh_external"):
        path = locate(session.data, MAIN if section.source == "tjh" else EXTERNAL)
        return {path.name: path}
    if section.source == "meds":
        return source_files(session.data, section)
    extract = open_extract(session.data, section.mimic_iv.allow_extra_columns)
    return {name: table.path for name, table in extract.tables.items()}


def model_files(session: Session, base: Artifact) -> Mapping[str, Path]:
    """Name and place of each file of the language model that a `base` artifact recorded."""
    entry = json.loads((session.store.folder(base) / "model.json").read_text(encoding="utf-8"))
    return {f"{entry['name']}/{name}": Path(entry["folder"]) / name for name in entry["files"]}
