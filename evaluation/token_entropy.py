"""How unsure a model was while it wrote: a lower bound of the entropy at each token of an answer.

A server reports the likeliest tokens of each position, not all. With their probabilities p_1 .. p_k and what is left,
m = 1 - sum p_i, taken as one further outcome,

    H >= - sum p_i ln p_i - m ln m        [nat],

since to tell outcomes apart that were taken together can only add entropy. With k = 20 the bound is close where the
model is nearly sure and may fall far short where it is not; so these values rank answers, and are not those of
training, which are of the whole vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from contracts.generation import Generation
from prompts.mentions import Mention
from prompts.token_risk import token_spans

# Characters [start, end) of a token in the answer, and the bound there; one list for each answer.
TOKENS = pl.List(pl.Struct({"start": pl.Int32, "end": pl.Int32, "entropy": pl.Float32}))


def at_least(logprobs: Mapping[str, float]) -> float:
    """The bound of one position from the log-probabilities of its likeliest tokens; 0 where none are known."""
    shares = [math.exp(min(value, 0.0)) for value in logprobs.values()]
    left = 1.0 - sum(shares) if shares else 0.0
    return sum(-share * math.log(share) for share in (*shares, left) if share > 0.0) + 0.0


def bounds(answer: Generation) -> tuple[float, ...]:
    """The bound at each token, before any alternatives are thrown away; empty where none were reported."""
    return tuple(at_least(known) for known in answer.top)


def placed(answer: Generation, entropies: Sequence[float]) -> list[dict[str, Any]]:
    """Rows of `TOKENS`; none if the tokens do not spell the text."""
    spans = token_spans(answer.text, answer.tokens) if entropies else None
    return [{"start": span[0], "end": span[1], "entropy": value}
            for span, value in zip(spans or (), entropies, strict=False) if span is not None]


def mention_entropy(tokens: Sequence[Mapping[str, Any]], mentions: Sequence[Mention]) -> float | None:
    """Mean bound over the tokens with a character in a mention of a clinical feature; None without any."""
    found = [token["entropy"] for token in tokens
             if any(token["start"] < mention.end and mention.start < token["end"] for mention in mentions)]
    return sum(found) / len(found) if found else None
