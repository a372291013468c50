"""Seeds that depend on where in a study something happens, never on when.

Requests of a search finish in any order. A seed drawn from a running generator would then depend on that order; a seed
hashed from the study's seed, the patient, the node and the kind of call does not (nor on Python's salted `hash`).
"""

from __future__ import annotations

import hashlib
import json


def derived_seed(*parts: object) -> int:
    """A seed in [0, 2^31) from JSON-ready parts, e.g. (study seed, stay, node path, "question", attempt)."""
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
