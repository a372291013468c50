"""Judging many patients at once on a running server, against one request after the other.

    python benchmarks/judging.py scripted                     a scripted server: every answer takes 0.25 s, 64 at once
    python benchmarks/judging.py vllm                         real vLLM, the tiny random policy of the tests
    python benchmarks/judging.py vllm --model smollm2-135m --alone 10    real vLLM, SmolLM2-135M (or any folder)
    python benchmarks/judging.py url --url http://127.0.0.1:8000 --model FOLDER      a server that already runs

200 patients are asked in the three prompt styles, 600 answers, through `evaluation.verdicts.judge`, client and HTTP.
First all patients of a style at once, as the stage `verdicts` does, then one request after the other. Patients are made
up anew for each of the two, so that neither finds the other's prompts in the server's cache; before both, a few others
warm the server. `--alone N` asks only N patients of each style one after the other and scales their time up. Needed:
8 times faster; the exit code is 1 where it is less.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from configs.schema import Evaluation, Serving  # noqa: E402
from contracts.features import catalogue  # noqa: E402
from contracts.patients import Patient  # noqa: E402
from evaluation.verdicts import judge  # noqa: E402
from models.policy.chat import ChatRenderer, load_tokenizer  # noqa: E402
from models.policy.loading import prepare_model  # noqa: E402
from serving.client import Client  # noqa: E402
from serving.server import KEY_VARIABLE, ExternalServer, Server, VllmServer, connect  # noqa: E402
from support.openai_server import KEY, ScriptedServer  # noqa: E402
from support.tiny_policy import tiny_policy  # noqa: E402

STYLES = ("vanilla", "think", "decomposition")
NEEDED, SECONDS, WARM = 8.0, 0.25, 4
CATALOGUE = catalogue("mimic_iv")


@dataclass(frozen=True)
class Taken:
    """What asking took: answers, wall seconds, seconds of a core in this process (with a scripted server also its),
    tokens of the answers, and of the prompts."""

    answers: int
    seconds: float
    core_seconds: float
    completion_tokens: int
    prompt_tokens: int


def patients_of(count: int, seed: str, visits: int = 2) -> list[Patient]:
    """Made-up patients whose evidence is as long as that of a study's: every feature at two visits."""
    noise = random.Random(seed)
    lines = [f"{name}: " + ", ".join(f"{noise.uniform(1, 200):.3g}" for _ in range(visits)) for name in CATALOGUE.names]
    found = []
    for number in range(count):
        noise.shuffle(lines)
        evidence = f"Age & Sex: {noise.randint(20, 90)} years, male\n" + "\n".join(
            f"{line}, {noise.uniform(1, 200):.4g}" for line in lines)
        found.append(Patient(f"{seed}-{number}", "test", number % 2, evidence, CATALOGUE.tokens, CATALOGUE.tokens[:5]))
    return found


async def judged(server: Server, render: ChatRenderer, section: Evaluation, patients: Sequence[Patient],
                 at_once: bool) -> Taken:
    """Asks for all patients in all styles: a style at once, or each request after the answer to the one before."""
    answers = prompts = tokens = 0
    started, cores = time.perf_counter(), time.process_time()
    client = connect(server)
    with tempfile.TemporaryDirectory() as folder:
        for style in STYLES:
            groups = [patients] if at_once else [[one] for one in patients]
            for group in groups:
                frame = await _asked(client, server, render, section, group, style, Path(folder))
                answers += frame.height
                tokens += int(frame["completion_tokens"].sum())
                prompts += int(frame["prompt_tokens"].sum())
    await client.close()
    return Taken(answers, time.perf_counter() - started, time.process_time() - cores, tokens, prompts)


async def _asked(client: Client, server: Server, render: ChatRenderer, section: Evaluation, group: Sequence[Patient],
                 style: str, folder: Path):  # noqa: ANN202 - the frame of verdicts
    return await judge(style, style, group, client.generate, render, server.model_name, section, "mortality", 5, 42,
                       folder)


async def measure(server: Server, render: ChatRenderer, section: Evaluation, count: int, alone: int
                  ) -> tuple[Taken, Taken]:
    """All at once, and one after the other."""
    await judged(server, render, section, patients_of(WARM, "warm"), at_once=True)
    together = await judged(server, render, section, patients_of(count, "together"), at_once=True)
    return together, await judged(server, render, section, patients_of(alone, "alone"), at_once=False)


@contextmanager
def opened(options: argparse.Namespace, model: Path, folder: Path) -> Iterator[Server]:
    """The server that the mode names, started."""
    section = Serving(context=2048, slots=options.slots, kv_cache_gib=options.kv_cache_gib, start_seconds=900.0)
    if options.mode == "vllm":
        with VllmServer(model, section, folder, options.dtype, 8, 42) as server:
            yield server
        return
    if options.mode == "url":
        with ExternalServer(section.model_copy(update={"url": options.url})) as server:
            yield server
        return
    # The client keeps twice its slots in flight, and this server answers all of them at the same time.
    os.environ[KEY_VARIABLE] = KEY
    with ScriptedServer(lambda _: "<Final answer> 0.42 </Final answer>", seconds=options.seconds) as scripted, \
            ExternalServer(section.model_copy(update={"url": scripted.url, "slots": options.slots // 2})) as server:
        yield server


def figures(together: Taken, alone: Taken) -> dict[str, float]:
    """Seconds an answer, and how many times faster judging at once is for the same answers; rates of tokens."""
    each = {"together": together.seconds / together.answers, "alone": alone.seconds / alone.answers}
    return {"times_faster": each["alone"] / each["together"], "seconds_together": together.seconds,
            "seconds_alone": each["alone"] * together.answers, "answers_measured_alone": alone.answers,
            "core_ms_per_answer": 1000 * together.core_seconds / together.answers,
            "tokens_per_second_together": together.completion_tokens / together.seconds,
            "tokens_per_second_alone": alone.completion_tokens / alone.seconds,
            "tokens_per_answer_together": together.completion_tokens / together.answers,
            "tokens_per_answer_alone": alone.completion_tokens / alone.answers}


def main() -> int:
    """Measures, prints, and says whether it is fast enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("scripted", "vllm", "url"))
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--alone", type=int, default=0, help="patients asked one after the other; 0: all of them")
    parser.add_argument("--model", default="tiny", help="tiny, smollm2-135m, or a folder")
    parser.add_argument("--tokens", type=int, default=96, help="most tokens of an answer")
    parser.add_argument("--slots", type=int, default=Serving().slots)
    parser.add_argument("--kv-cache-gib", type=float, default=2.0)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="what a scripted answer takes")
    parser.add_argument("--url", help=f"of a running server; its key stands in {KEY_VARIABLE}")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = tiny_policy(folder / "policy", context=2048) if options.model == "tiny" else prepare_model(
            options.model, folder / "models", options.dtype)
        render, section = ChatRenderer(load_tokenizer(model)), Evaluation(completion_tokens=options.tokens)
        with opened(options, model, folder) as server:
            together, alone = asyncio.run(measure(server, render, section, options.patients,
                                                  options.alone or options.patients))
    found = figures(together, alone)
    if options.json:
        print(json.dumps({**found, "together": asdict(together), "alone": asdict(alone)}))
    else:
        print(f"{together.answers} answers at once {found['seconds_together']:.1f} s, one after the other "
              f"{found['seconds_alone']:.1f} s ({alone.answers} measured): {found['times_faster']:.1f} times faster "
              f"(needed: {NEEDED:g}); {found['core_ms_per_answer']:.1f} ms of a core an answer; "
              f"{found['tokens_per_second_together']:.0f} against "
              f"{found['tokens_per_second_alone']:.0f} tokens a second, {found['tokens_per_answer_together']:.0f} and "
              f"{found['tokens_per_answer_alone']:.0f} tokens an answer, prompts of "
              f"{together.prompt_tokens / together.answers:.0f}")
    return 0 if found["times_faster"] >= NEEDED else 1


if __name__ == "__main__":
    sys.exit(main())
