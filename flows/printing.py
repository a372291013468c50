"""Results for a terminal: tables and trees from plain values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree


def print_results(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """The result table, one line an arm and reading; what is too wide for a terminal stands in the report."""
    unshown = {"AUPRC vs reference", *({"Seeds"} if all(row.get("Seeds") == "1" for row in rows) else ())}
    names = [name for name in rows[0] if name not in unshown] if rows else []
    table = Table(title="Results on the test stays (percent, ± sd of the bootstraps)", title_justify="left",
                  padding=(0, 1, 0, 0), box=None)
    for name in names:
        table.add_column(name, justify="left" if name == "Arm" else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(_brief(str(row[name] or ""))) for name in names))
    console.print(table)


def _brief(cell: str) -> str:
    """Point and sd of "point [interval] (mean ± sd; seeds ± sd)", a difference without its p: the rest stands in the
    report."""
    return re.sub(r"(?: \[[^]]*\])? \(\S+ ± ([^\s;)]+)(?:; (seeds ± [^)]+))?\)", _short_spread, cell
                  ).partition(", p =")[0]


def _short_spread(found: re.Match[str]) -> str:
    return f" ± {found[1]}" + (f" ({found[2]})" if found[2] else "")


def print_robustness(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """AUROC and AUPRC of each arm, kind and share with 95 % intervals; changes to p = 0 stand on the page."""
    table = Table(title="Robustness on the perturbed test stays (percent, 95 % interval)", title_justify="left",
                  padding=(0, 1, 0, 0), box=None)
    for name in ("perturbation", "p", "arm", "risk", "parsed", "AUROC", "AUPRC"):
        table.add_column(name, justify="left" if name in ("perturbation", "arm", "risk") else "right", overflow="fold")
    for row in rows:
        texts = [row["kind"], f"{row['share']:g}", row["arm"], row["reading"],
                 "–" if row["reading"] == "model" else f"{100 * row['parse_rate']:.0f} %"]
        table.add_row(*map(escape, [*texts, *(_bounded(row, name) for name in ("auroc", "auprc"))]))
    console.print(table)


def print_transfer(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """AUROC and AUPRC of each line with 95 % intervals, and the difference to the arm trained on the target."""
    table = Table(title="Transfer (percent, 95 % interval)", title_justify="left", padding=(0, 1, 0, 0), box=None)
    for name in ("arm", "trained on", "reads", "risk", "parsed", "AUROC", "AUPRC", "AUROC vs trained there"):
        table.add_column(name, justify="left" if name in ("arm", "trained on", "reads", "risk") else "right",
                         overflow="fold")
    for row in rows:
        texts = [row["arm"], row["study"], row["reads"], row["reading"],
                 "–" if row["reading"] == "model" else f"{100 * row['parse_rate']:.0f} %"]
        figures = [_bounded(row, name) for name in ("auroc", "auprc")]
        gap = "–" if row["auroc_target_point"] is None else _bounded(row, "auroc_target", "+")
        table.add_row(*map(escape, [*texts, *figures, gap]))
    console.print(table)


def _bounded(row: Mapping[str, Any], name: str, sign: str = "") -> str:
    point, low, high = (100 * row[f"{name}_{what}"] for what in ("point", "low", "high"))
    return f"{point:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def print_decisions(console: Console, decisions: Sequence[Any]) -> None:
    """Why each stage ran or was skipped: `tasks.session.Decision`s."""
    table = Table(title="Stages", title_justify="left")
    for name in ("stage", "", "why", "artifact", "seconds"):
        table.add_column(name, justify="right" if name == "seconds" else "left", overflow="fold")
    for one in decisions:
        word = "ran" if one.ran else "skipped"
        table.add_row(one.stage, word, escape(_short(one.why)), one.artifact, f"{one.seconds:.1f}")
    console.print(table)


def _short(text: str, length: int = 160) -> str:
    return text if len(text) <= length else f"{text[:length]} ..."


def print_cohort(console: Console, table: Mapping[str, Any]) -> None:
    """What was read, dropped and kept, then the counts of each split."""
    steps = Table(title="Attrition", title_justify="left")
    for name in ("rule", "unit", "found", "dropped", "kept"):
        steps.add_column(name, justify="right" if name in ("found", "dropped", "kept") else "left")
    for step in table["attrition"]:
        steps.add_row(*(escape(str(step.get(name, ""))) for name in ("rule", "unit", "found", "dropped", "kept")))
    console.print(steps)
    rows = {**table["splits"], "total": table["total"]}
    counts = Table(title="Cohort", title_justify="left")
    counts.add_column("split")
    for name in rows["total"]:
        counts.add_column(name, justify="right")
    for split, row in rows.items():
        counts.add_row(split, *(str(value) for value in row.values()))
    console.print(counts)


def print_metrics(console: Console, metrics: Mapping[str, Mapping[str, float]]) -> None:
    """Final numbers of stages."""
    table = Table("stage", "metric", "value")
    for stage, values in metrics.items():
        for name, value in values.items():
            table.add_row(stage, escape(name), f"{value:.4g}")
    console.print(table)


def print_rows(console: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of plain values under the names of all of them."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        values = (row.get(name, "") for name in names)
        table.add_row(*(escape(f"{value:.4g}" if isinstance(value, float) else str(value)) for value in values))
    console.print(table)


def print_artifacts(console: Console, entries: Sequence[Mapping[str, Any]]) -> None:
    """All artifacts of a workspace."""
    table = Table("id", "study", "sha256", "inputs", "commit")
    for entry in entries:
        table.add_row(entry["artifact"]["id"], str(entry.get("study")), entry["artifact"]["sha256"][:12],
                      " ".join(source["id"] for source in entry["inputs"].values()), str(entry.get("commit"))[:12])
    console.print(table)


def lineage_tree(node: Mapping[str, Any], broken: Mapping[str, str] | None = None) -> Tree:
    """The chain behind an artifact as a tree that ends in source files; what stands above is not unfolded again.

    Args:
        broken: source file to what is wrong with it.
    """
    tree = Tree(_title(node))
    _grow(tree, node, broken or {}, set())
    return tree


def _grow(tree: Tree, node: Mapping[str, Any], broken: Mapping[str, str], seen: set[int]) -> None:
    seen.add(id(node))
    for name, value in (node.get("facts") or {}).items():
        tree.add(f"{escape(name)}: {escape(f'{value:.4f}' if isinstance(value, float) else str(value))}")
    for role, source in node["inputs"].items():
        if id(source) in seen:
            tree.add(f"{role}: {source['id']} (see above)")
        else:
            _grow(tree.add(f"{role}: {_title(source)}"), source, broken, seen)
    for name, digest in (node["sources"] or {}).items():
        wrong = f"  [red]ALTERED: {broken[name]}[/red]" if name in broken else ""
        tree.add(f"source {escape(name)}  sha256 {digest}{wrong}")


def _title(node: Mapping[str, Any]) -> str:
    altered = f"  [red]ALTERED: {escape(', '.join(node['altered']))}[/red]" if node.get("altered") else ""
    return f"[bold]{node['id']}[/bold]  sha256 {node['sha256'][:12]}  commit {str(node['commit'])[:12]}{altered}"


def print_prediction(console: Console, result: Mapping[str, Any]) -> None:
    """One patient's risk, features and reasoning."""
    console.print(f"[bold]Risk[/bold] stated {result['risk']}, by token probability {result['token_risk']}; "
                  f"expert {result['expert_risk']}", highlight=False)
    if span := result["interval"]:
        console.print(f"[bold]Interval[/bold] {span['low']:.2f} to {span['high']:.2f}: {escape(span['method'])}, "
                      f"{span['level']:.0%} of {span['readable']} readable ones of {span['answers']}", highlight=False)
    console.print(f"[bold]Important features[/bold] {escape(', '.join(result['features']))}", highlight=False)
    console.print(f"[bold]Expert's features[/bold] {escape(', '.join(result['expert_features']))}", highlight=False)
    console.print(escape(result["reasoning"]), highlight=False)
    console.print(f"model {result['model']}, lineage {result['lineage']}; research software, not a medical device",
                  highlight=False)
