"""Risk from the tokens: the expected value of the answered number under the model's own distribution of its digits.

A number is written as "0." and digits. At the token that holds the first digit after the point, the model gave a
probability to every alternative; those that spell digits are kept and renormalised. An alternative that makes the
number read 0.d1..dn leaves an interval of width 10^-n open and stands for its middle,

    v(u) = 0.d1..dn + 0.5 * 10^-n,                        risk = sum_u p(u) v(u) / sum_u p(u),

and for the alternative that was sampled v is replaced by the same expectation one token later, as long as the number
goes on. So a tokeniser with one digit a token, one with two or three digits a token, and one that joins "0." or "0.7"
into one token all give the risk to the precision that was written. The reading is conditional on the number's first
characters ("0."), which were sampled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from contracts.generation import Generation
from prompts.grammar import Parsed

TOP_LOGPROBS = 20  # alternatives asked for at each token: ten digits, and what else is likely
Span = tuple[int, int]
_DECIMAL = re.compile(r"0?\.([0-9]+)")


def risk_of_tokens(answer: Generation, parsed: Parsed) -> float | None:
    """The risk of a parsed answer from its tokens, by `token_probability`.

    None also where no number was found, or where it is not the risk as it stands ("85 %" and "0.85 %" are not).
    """
    span = parsed.probability_span
    if span is None or float(answer.text[span[0]:span[1]]) != parsed.probability:
        return None
    return token_probability(answer, span)


def token_spans(text: str, tokens: Sequence[str]) -> list[Span | None] | None:
    """Where each token's ASCII characters stand in the text.

    Token texts need not concatenate to the text: a token that holds part of a UTF-8 character decodes to replacement
    characters or to nothing, special tokens are left out of the text, and a stop string cuts it. But an ASCII
    character is always whole, so the ASCII characters of the tokens, in order, are those of the text: they are matched
    one by one.

    Args:
        text: the decoded text.
        tokens: texts of its L tokens.

    Returns:
        L spans [start, end) of characters in `text`, from a token's first to its last ASCII character; None for a token
        without any in the text. None altogether if the tokens do not spell the text.
    """
    places = [place for place, character in enumerate(text) if character.isascii()]
    letters = "".join(text[place] for place in places)
    spans: list[Span | None] = []
    at = 0
    for token in tokens:
        wanted = "".join(character for character in token if character.isascii())
        start = _match(letters, at, wanted)
        if start is None:
            spans.append(None)
            continue
        at = min(start + len(wanted), len(letters))
        spans.append((places[start], places[at - 1] + 1))
    return spans if at == len(letters) else None


def _match(letters: str, at: int, wanted: str) -> int | None:
    """Where `wanted` begins: here, after white space that its tokeniser hides, or cut by the end; None: not here."""
    if not wanted or at >= len(letters):
        return None
    if letters.startswith(wanted, at) or wanted.startswith(letters[at:]):
        return at
    later = at + len(letters[at:]) - len(letters[at:].lstrip())
    return later if later > at and letters.startswith(wanted, later) else None


def token_probability(generation: Generation, span: Span) -> float | None:
    """The risk as the expected value of the number's digits (see the module's header for the formula).

    Args:
        generation: with `tokens`, `logprobs` and `top`, where a position that holds no digit may have an empty `top`.
        span: characters [start, end) of the number in `generation.text`.

    Returns:
        A risk in [0, 1]; None where it cannot be read: no alternatives were reported, the tokens do not spell the text,
        or the number has no decimals ("1", "0").
    """
    number = generation.text[span[0]:span[1]]
    decimal = _DECIMAL.match(number)
    spans = token_spans(generation.text, generation.tokens)
    if decimal is None or spans is None or not generation.top:
        return None
    digit = span[0] + decimal.start(1)
    first = next((place for place, found in enumerate(spans) if found and found[0] <= digit < found[1]), None)
    if first is None:
        return None
    start = _start(spans[first])
    lead, before = generation.text[start:span[0]], generation.text[span[0]:start]
    value = _expected(generation, spans, first, lead, before)
    return None if value is None else min(max(value, 0.0), 1.0)


def _start(span: Span | None) -> int:
    return -1 if span is None else span[0]


def _expected(generation: Generation, spans: Sequence[Span | None], place: int, lead: str, before: str
              ) -> float | None:
    """Expected value of the number whose characters `before` are written, from token `place` on.

    Args:
        lead: characters of this token that precede the number; every alternative must share them.
    """
    sampled = generation.tokens[place]
    total = weight = 0.0
    for token, probability in _alternatives(generation, place).items():
        value = _middle(token, lead, before)
        if value is None:
            continue
        if token == sampled:
            finer = _next(generation, spans, place, before + token[len(lead):])
            value = value if finer is None else finer
        total += probability * value
        weight += probability
    return total / weight if weight > 0.0 else None


def _alternatives(generation: Generation, place: int) -> Mapping[str, float]:
    """Token texts at one position to probabilities, the sampled one among them; empty where none were reported."""
    if not generation.top[place]:
        return {}
    known = dict(generation.top[place])
    if generation.logprobs:
        known.setdefault(generation.tokens[place], generation.logprobs[place])
    return {token: math.exp(value) for token, value in known.items()}


def _middle(token: str, lead: str, before: str) -> float | None:
    """Middle of the interval that the number leaves open after this token; None if the token adds no decimals."""
    if not token.startswith(lead):
        return None
    found = _DECIMAL.match(before + token[len(lead):])
    if found is None or found.end() <= len(before):
        return None
    return (int(found[1]) + 0.5) / 10 ** len(found[1])


def _next(generation: Generation, spans: Sequence[Span | None], place: int, written: str) -> float | None:
    """The expectation one token later, where the number goes on there with a digit."""
    later, span = place + 1, spans[place]
    if not _DECIMAL.fullmatch(written) or later >= len(spans) or span is None or _start(spans[later]) != span[1]:
        return None
    goes_on = generation.text[span[1]] in "0123456789"
    return _expected(generation, spans, later, "", written) if goes_on else None
