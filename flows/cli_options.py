"""What the commands of `eag-rl` share: their common options, and the consoles they print to."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.console import Console

# Where no terminal says how wide it is (a log, a pipe), tables are as wide as their rows need.
console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)
notes = Console(stderr=True)  # for what is not the result

ConfigName = Annotated[str, typer.Option("--config", "-c", help="demo, tjh_small, tjh, mimic_demo, or a YAML file.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", "-s", help="Dotted setting, e.g. policy.grpo.lr=1e-5.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
