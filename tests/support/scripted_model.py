"""A language model for tests: at once or after a pause, keeps constraints; same request and seed, same answer."""

import asyncio
import hashlib
import random
import re._constants as op
import re._parser as regex_parser

from contracts.errors import ServerError
from contracts.generation import Generation

WORDS = ("mean", "arterial", "pressure", "falls", "lactate", "rises", "oxygen", "saturation", "stays", "low", "visits")


def render_characters(messages, prefill=""):
    """A chat template whose tokens are characters, so that a scripted model can read its prompt."""
    return [ord(letter) for letter in "\n".join(message["content"] for message in messages) + "\n" + prefill]


def drawn_from(regex, noise):
    """A random text that matches a regular expression of literals, classes, groups, alternatives and repeats."""
    return _draw(regex_parser.parse(regex), noise)


def _draw(parts, noise):
    return "".join(_piece(kind, value, noise) for kind, value in parts)


def _piece(kind, value, noise):
    if kind is op.LITERAL:
        return chr(value)
    if kind is op.SUBPATTERN:
        return _draw(value[-1], noise)
    if kind is op.BRANCH:
        return _draw(noise.choice(value[1]), noise)
    if kind is op.MAX_REPEAT:
        low, high, inner = value
        return "".join(_draw(inner, noise) for _ in range(noise.randint(low, min(high, low + 3))))
    if kind is op.IN:
        kind, value = noise.choice(value)
        return chr(value) if kind is op.LITERAL else chr(noise.randint(*value))
    raise NotImplementedError(f"regular expressions with {kind}")


class ScriptedModel:
    """Implements contracts.generation.Generate.

    Args:
        free: text of an unconstrained answer, from (prompt text, random source); default: a few words and "?".
        constrained: the same for constrained answers; default: drawn from the constraint.
        pause: seconds to wait for each call, from nothing; None: no wait.
        slots: calls served at once; None: any number.
    """

    def __init__(self, free=None, constrained=None, pause=None, slots=None):
        self.free, self.constrained, self.pause = free, constrained, pause
        self.calls, self.busy, self.most_busy = [], 0, 0
        self._slots = asyncio.Semaphore(slots) if slots else None

    async def __call__(self, prompt_ids, *, model, max_tokens, temperature=0.0, seed=None, stop=(), count=1,
                       top_logprobs=0, regex=None, choices=None):
        if len(stop) > 4 or (regex and choices):
            raise ServerError("HTTP 400", "at most four stop strings and one constraint, as in vLLM", "ask for less")
        prompt = "".join(map(chr, prompt_ids))
        self.calls.append({"prompt": prompt, "model": model, "max_tokens": max_tokens, "temperature": temperature,
                           "seed": seed, "stop": tuple(stop), "count": count, "top_logprobs": top_logprobs,
                           "regex": regex, "choices": choices})
        await self._serve()
        key = hashlib.sha256(f"{prompt}|{seed}|{regex}|{choices}".encode("utf-8", "surrogatepass")).hexdigest()
        noise = random.Random(key)
        texts = [self._text(prompt, noise, regex, choices) for _ in range(count)]
        return [self._generation(text, stop, max_tokens, len(prompt_ids)) for text in texts]

    async def _serve(self):
        if self._slots:
            await self._slots.acquire()
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            await asyncio.sleep(self.pause() if self.pause else 0)
        finally:
            self.busy -= 1
            if self._slots:
                self._slots.release()

    def _text(self, prompt, noise, regex, choices):
        if regex is None and choices is None:
            return self.free(prompt, noise) if self.free else " " + " ".join(noise.sample(WORDS, 5)) + "?"
        if self.constrained:
            return self.constrained(prompt, noise)
        return noise.choice(list(choices)) if choices else drawn_from(regex, noise)

    def _generation(self, text, stop, max_tokens, prompt_tokens):
        for mark in stop:
            text = text.partition(mark)[0]
        tokens = text.split()
        reason = "length" if len(tokens) > max_tokens else "stop"
        if reason == "length":
            text = " ".join(tokens[:max_tokens])
        return Generation(text, tuple(range(len(tokens[:max_tokens]))), finish_reason=reason,
                          prompt_tokens=prompt_tokens, completion_tokens=len(tokens[:max_tokens]))
