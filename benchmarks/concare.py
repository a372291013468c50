"""ConCare with a prediction at every visit: one causal pass against a loop over features and prefixes.

    .venv/bin/python benchmarks/concare.py compare           (64, 50, 17): both, with equal outputs; the factor
    .venv/bin/python benchmarks/concare.py alone             (256, 50, 17): time and peak memory of the process
    .venv/bin/python benchmarks/concare.py alone --features 75 --visits 10

H = 128, float32, forward and backward, dropout off. The loop is how peers work: for each visit t the prefix of t visits
is read anew, by a `torch.nn.GRU` and a time attention for each feature. It shares the weights of the model.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from configs.schema import Expert
from models.expert.batches import Batch
from models.expert.concare import ConCare

SECTION = Expert(hidden=128, heads=4, feed_forward=256, dropout=0.0)


def random_batch(stays: int, visits: int, features: int, seed: int = 0) -> Batch:
    """Made-up stays of 1 to `visits` visits (the first has all of them), four fifths of the values observed."""
    made = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, visits + 1, (stays,), generator=made)
    lengths[0] = visits
    steps = torch.arange(visits) < lengths.unsqueeze(1)
    mask = (torch.rand(stays, visits, features, generator=made) < 0.8) & steps.unsqueeze(2)
    return Batch(torch.randn(stays, visits, features, generator=made) * mask, mask,
                 torch.randint(1, 4, (stays, visits), generator=made).cumsum(1).float(), steps,
                 torch.randn(stays, 2, generator=made), torch.randint(0, 2, (stays,), generator=made).float())


def feature_grus(model: ConCare) -> list[torch.nn.GRU]:
    """The model's F recurrences as F modules of torch."""
    recurrence, grus = model.recurrence, []
    for feature in range(model.features):
        gru = torch.nn.GRU(1, model.hidden, batch_first=True)
        with torch.no_grad():
            gru.weight_ih_l0.copy_(recurrence.weight_input[feature].unsqueeze(1))
            gru.weight_hh_l0.copy_(recurrence.weight_hidden[feature].T)
            gru.bias_ih_l0.copy_(recurrence.bias_input[feature])
            gru.bias_hh_l0.copy_(recurrence.bias_hidden[feature])
        grus.append(gru)
    return grus


def loop_over_prefixes(model: ConCare, grus: list[torch.nn.GRU], batch: Batch) -> Tensor:
    """Logits (B, T): each prefix read anew, feature by feature."""
    static = torch.tanh(model.static(batch.static)).unsqueeze(1)
    logits = []
    for visit in range(batch.days.shape[1]):
        prefix = slice(0, visit + 1)
        elapsed = (batch.days[:, visit:visit + 1] - batch.days[:, prefix]).clamp(min=0.0)
        tokens = [_one_feature(model, gru, feature, batch.values[:, prefix, feature], batch.mask[:, prefix, feature],
                               batch.steps[:, prefix], elapsed) for feature, gru in enumerate(grus)]
        known = functional.pad(batch.mask[:, prefix].any(dim=1), (0, 1), value=True)
        logits.append(model.mixer(torch.cat([torch.stack(tokens, dim=1), static], dim=1), known, None)[0])
    return torch.stack(logits, dim=1)


def _one_feature(model: ConCare, gru: torch.nn.GRU, feature: int, values: Tensor, mask: Tensor, steps: Tensor,
                 elapsed: Tensor) -> Tensor:
    """Token (B, H) of one feature at the last visit of a prefix (B, t)."""
    attention = model.time_attention
    states = gru((values * mask).unsqueeze(2))[0]
    query = (states[:, -1] @ attention.query[feature]).unsqueeze(1)
    score = torch.sigmoid((query * (states @ attention.key[feature])).sum(dim=2))
    logit = score / (torch.sigmoid(attention.rate[feature]) * torch.log(3.72 - score) * (elapsed + 1.0))
    counts = torch.where((mask & steps).any(dim=1, keepdim=True), mask & steps, steps)
    weights = logit.masked_fill(~counts, -torch.inf).softmax(dim=1)
    return (weights.unsqueeze(1) @ states).squeeze(1)


@dataclass(frozen=True)
class Cost:
    """Median seconds of several passes: on the clock, and of all cores together (steadier on a busy machine)."""

    clock: float
    cores: float

    def __str__(self) -> str:
        return f"{self.clock:.2f} s ({self.cores:.2f} core seconds)"


def cost(run: Callable[[], Tensor], batch: Batch, repeats: int) -> Cost:
    """Forward and backward of the loss over all valid visits, after one warm-up."""
    times = []
    for _ in range(repeats + 1):
        start, cores = time.perf_counter(), time.process_time()
        loss = functional.binary_cross_entropy_with_logits(run(), batch.labels.unsqueeze(1).expand_as(batch.steps),
                                                           weight=batch.steps.float())
        loss.backward()
        times.append((time.perf_counter() - start, time.process_time() - cores))
    return Cost(*(statistics.median(column) for column in zip(*times[1:], strict=True)))


def compare(stays: int, visits: int, features: int, repeats: int) -> None:
    """Prints the largest difference of the logits, the times of both and their ratio."""
    torch.manual_seed(0)
    model, batch = ConCare(features, SECTION), random_batch(stays, visits, features)
    grus = feature_grus(model)
    with torch.no_grad():
        gap = (model(batch).logits - loop_over_prefixes(model, grus, batch))[batch.steps].abs().max()
    ours = cost(lambda: model(batch).logits, batch, repeats)
    loop = cost(lambda: loop_over_prefixes(model, grus, batch), batch, max(1, repeats // 2))
    print(f"({stays}, {visits}, {features}) H=128 float32, forward and backward, prediction at every visit")
    print(f"largest difference of the logits: {gap:.1e} (allclose at 1e-4: {bool(gap < 1e-4)})")
    print(f"one causal pass: {ours}\nloop over features and prefixes: {loop}")
    print(f"factor: {loop.clock / ours.clock:.1f} ({loop.cores / ours.cores:.1f} in core seconds)")


def alone(stays: int, visits: int, features: int, repeats: int) -> None:
    """Prints the time of one pass and the peak memory of this process."""
    torch.manual_seed(0)
    model, batch = ConCare(features, SECTION), random_batch(stays, visits, features)
    ours = cost(lambda: model(batch).logits, batch, repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"({stays}, {visits}, {features}) H=128 float32, forward and backward, prediction at every visit")
    print(f"one causal pass: {ours}   peak memory of the process: {peak:.2f} GiB")


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description="Measures ConCare.")
    parser.add_argument("what", choices=("compare", "alone"))
    parser.add_argument("--stays", type=int)
    parser.add_argument("--visits", type=int, default=50)
    parser.add_argument("--features", type=int, default=17)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    measured = {"compare": compare, "alone": alone}[given.what]
    measured(given.stays or {"compare": 64, "alone": 256}[given.what], given.visits, given.features, given.repeats)


if __name__ == "__main__":
    main()
