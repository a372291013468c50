"""Stage `cohort`: hospital files to stays and visits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from contracts.errors import DataError
from ehr import table_one, validity
from ehr.cohort import counts, prepare, read_source, write
from ehr.sources.drafts import discard
from ehr.sources.places import state_of
from lineage.artifact import file_digest, remembered_digest
from tasks.origins import cohort_files
from tasks.partitions import cache_of, engine_of
from tasks.session import Session
from tasks.stage import Made, Work, stage


def source_files(session: Session) -> Mapping[str, str]:
    """Digest of each source file, so that a new extract makes a new cohort.

    Raises:
        DataError: the reader of the source refuses the files.
    """
    memo = session.workspace / "cache" / "digests.json"
    return {name: file_digest(path) if session.config.cohort.source.startswith("tjh") else
            remembered_digest(path, state_of(path), memo) for name, path in cohort_files(session).items()}


@stage("cohort", settings=("cohort", "study.seed"), packages=("polars", "tableone"), external=source_files)
def cohort(work: Work) -> Made:
    """Reads the source, prepares the cohort, stops if it is not valid, and writes it with its Table 1."""
    section, seed = work.config.cohort, work.config.study.seed
    files = source_files(work.session)
    with work.progress("cohort") as advance:
        source = read_source(section, seed, work.session.data, work.session.workspace / "cache", files,
                             lambda name, done, total: advance(done, total, name),
                             parsed=cache_of(work.config.partitions, work.session.workspace),
                             engine=engine_of(work.config.partitions))
    _require_unchanged(work.session, files, source.parsed)
    prepared = prepare(source, section, seed)
    findings = validity.check(prepared, source)
    validity.require(findings)
    write(prepared, work.out)
    validity.write(findings, work.out)
    table_one.write(table_one.table_one(prepared), work.out, section.smallest_cell)
    if source.quarantine is not None:
        source.quarantine.write_parquet(work.out / "quarantine.parquet")
    table = counts(prepared)
    numbers = {f"{split}.{name}": float(value) for split, row in {**table["splits"], "total": table["total"]}.items()
               for name, value in row.items()}
    numbers |= {f"validity.{level}": float(count) for level, count in validity.tally(findings).items()}
    return Made(metrics=numbers, sources=files,
                show=("attrition.json", "meta.json", validity.FILE, *table_one.FILES),
                summary=_markdown(table["splits"]))


def _require_unchanged(session: Session, files: Mapping[str, str], parsed: Mapping[str, Path]) -> None:
    """What was read is what the digests say; tables parsed of a file that changed meanwhile are not kept.

    Raises:
        DataError: a source file is another now.
    """
    now = source_files(session)
    changed = sorted(name for name in {*files, *now} if files.get(name) != now.get(name))
    if not changed:
        return
    for name, folder in parsed.items():
        if name in changed or not name:
            discard(folder)
    raise DataError(f"{', '.join(changed[:3])} changed while the extract was read", "its files hold still",
                    "run again once they are copied: nothing of this reading is kept")


def _markdown(splits: Mapping[str, Mapping[str, int]]) -> str:
    names = list(next(iter(splits.values())))
    head = f"| split | {' | '.join(names)} |\n|---|{'---|' * len(names)}\n"
    return head + "\n".join(f"| {split} | {' | '.join(str(row[name]) for name in names)} |"
                            for split, row in splits.items())
