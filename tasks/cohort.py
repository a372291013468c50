"""Stage `cohort`: hospital files to stays and visits."""

from __future__ import annotations

from collections.abc import Mapping

from ehr.cohort import counts, prepare, read_source, write
from ehr.sources.tjh_workbook import locate
from lineage.artifact import file_digest
from tasks.session import Session
from tasks.stage import Made, Work, stage


def _source_files(session: Session) -> Mapping[str, str]:
    """Digest of each source file, so that a new extract makes a new cohort."""
    if session.config.cohort.source == "synthetic":
        return {}
    path = locate(session.data)
    return {path.name: file_digest(path)}


@stage("cohort", settings=("cohort", "study.seed"), packages=("polars",), external=_source_files)
def cohort(work: Work) -> Made:
    """Reads the source, prepares the cohort and writes it."""
    section, seed = work.config.cohort, work.config.study.seed
    prepared = prepare(read_source(section, seed, work.session.data), section, seed)
    write(prepared, work.out)
    table = counts(prepared)
    numbers = {f"{split}.{name}": float(value) for split, row in {**table["splits"], "total": table["total"]}.items()
               for name, value in row.items()}
    return Made(metrics=numbers, sources=_source_files(work.session), show=("attrition.json", "meta.json"),
                summary=_markdown(table["splits"]))


def _markdown(splits: Mapping[str, Mapping[str, int]]) -> str:
    names = list(next(iter(splits.values())))
    head = f"| split | {' | '.join(names)} |\n|---|{'---|' * len(names)}\n"
    return head + "\n".join(f"| {split} | {' | '.join(str(row[name]) for name in names)} |"
                            for split, row in splits.items())
