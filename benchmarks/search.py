"""How well the tree search fills a server's request slots: a scripted model, 50 ms a call, 32 calls at once.

    python benchmarks/search.py [--patients 96] [--depth 7] [--json]

Reported: the share of the slots busy while more than 32 patients are unfinished; requests per patient; the speed-up,
per call, over a search with one call in flight; what the search itself costs in CPU time per call. Texts are scripted
and a token is four characters; all else is real.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.schema import Rewards, Search  # noqa: E402
from contracts.features import catalogue  # noqa: E402
from contracts.generation import Generation  # noqa: E402
from contracts.patients import Patient  # noqa: E402
from prompts.mentions import MentionFinder  # noqa: E402
from rewards.mixture import Scorer  # noqa: E402
from search.forest import grow  # noqa: E402
from search.harvest import statistics  # noqa: E402
from search.reasoning import Reasoner  # noqa: E402

SLOTS, SECONDS = 32, 0.05
CATALOGUE = catalogue("mimic_iv")


class TimedModel:
    """Answers each call after `SECONDS`, `slots` at once, and keeps the integral of busy slots over time.

    Like a server, it takes the next call from its own queue the moment a slot falls free, before the answer is read.
    """

    def __init__(self, slots: int) -> None:
        self._slots, self._queue = slots, deque[asyncio.Future[None]]()
        self.busy, self.busy_seconds, self._since = 0, 0.0, time.perf_counter()

    async def __call__(self, prompt_ids: Any, *, seed: int = 0, count: int = 1, regex: str | None = None,
                       choices: Any = None, **_: Any) -> list[Generation]:
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(answered)
        self._fill()
        await answered
        noise = random.Random(seed)
        return [Generation(_text(noise, regex, choices), (0,), prompt_tokens=len(prompt_ids), completion_tokens=1)
                for _ in range(count)]

    def note(self) -> None:
        """Brings the integral up to now."""
        now = time.perf_counter()
        self.busy_seconds += self.busy * (now - self._since)
        self._since = now

    def _fill(self) -> None:
        self.note()
        while self._queue and self.busy < self._slots:
            self.busy += 1
            asyncio.get_running_loop().call_later(SECONDS, self._finish, self._queue.popleft())

    def _finish(self, answered: asyncio.Future[None]) -> None:
        self.note()
        self.busy -= 1
        self._fill()
        if not answered.done():
            answered.set_result(None)


def _text(noise: random.Random, regex: str | None, choices: Any) -> str:
    if choices:
        return noise.choices(list(choices), weights=[3, 1])[0]
    if regex is None:
        return " What does the " + " ".join(noise.sample(CATALOGUE.names, 2)) + " say about the course?"
    if CATALOGUE.names[0] in regex:
        return " " + ", ".join(noise.sample(CATALOGUE.tokens, 5))
    return f" 0.{noise.randint(1, 99):02d}" if "0" in regex[:3] else str(noise.randint(1, 99))


def _render(messages: Sequence[Mapping[str, str]], prefill: str = "") -> list[int]:
    return [0] * (sum(len(message["content"]) for message in messages) // 4 + len(prefill) // 4)


def _patients(count: int) -> list[Patient]:
    names = CATALOGUE.tokens
    return [Patient(f"stay-{number}", "train", number % 2, "Age: 60 years\n" * 40, names, names[:5])
            for number in range(count)]


async def _measure(patients: list[Patient], section: Search, slots: int) -> dict[str, float]:
    model = TimedModel(slots)
    scorer = Scorer(MentionFinder(CATALOGUE), Rewards())
    reasoner = Reasoner(model, _render, scorer, section, "scripted", seed=42)
    start, crowded = time.perf_counter(), [0.0, 0.0]

    def on_done(done: int, total: int) -> None:
        if total - done > SLOTS:
            model.note()
            crowded[:] = [time.perf_counter() - start, model.busy_seconds]

    cpu = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        grown = await grow(patients, reasoner, Path(folder), on_done=on_done)
    numbers = statistics(grown, section.keep)
    wall = time.perf_counter() - start
    return {"wall_seconds": wall, "calls_per_patient": numbers["calls_per_patient"],
            "slots_busy": crowded[1] / (slots * crowded[0]) if crowded[0] else float("nan"),
            "cpu_ms_per_call": 1000.0 * (time.process_time() - cpu) / numbers["calls"],
            "well_formed": numbers["well_formed"], "seconds_per_call": wall / numbers["calls"]}


def main() -> None:
    """Runs both searches and prints their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=96)
    parser.add_argument("--depth", type=int, default=7)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    section = Search(depth=options.depth, rollouts=options.rollouts)
    many = asyncio.run(_measure(_patients(options.patients), section, SLOTS))
    serial = asyncio.run(_measure(_patients(1), section, slots=1))
    figures = {**many, "serial_seconds_per_call": serial["seconds_per_call"],
               "speed_up": serial["seconds_per_call"] / many["seconds_per_call"]}
    if options.json:
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        print(f"{name:28} {figure:10.4f}")


if __name__ == "__main__":
    main()
