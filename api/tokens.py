"""Bearer tokens: who may ask. From the environment or a file, or made new; compared in constant time, never printed.

A file holds one token a line, one for each client; blank lines and those that begin with # are passed over.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from contracts.errors import ConfigError, StorageError

VARIABLE = "EAG_RL_SERVE_TOKEN"
SHORTEST = 32


class Tokens:
    """The tokens that open the door, kept as hashes.

    Raises:
        ConfigError: there is none, or one is too short to resist guessing.
    """

    def __init__(self, tokens: Sequence[str], source: str) -> None:
        weak = [token for token in tokens if len(token) < SHORTEST or not token.isascii() or not token.isprintable()]
        if weak or not tokens:
            found = f"{len(weak)} weak tokens" if tokens else "no token"
            raise ConfigError(f"{source} holds {found}", f"tokens of at least {SHORTEST} printable ASCII characters, "
                              "one a line", "remove the file: a good token is then made")
        self._hashes = [_hash(token.encode()) for token in tokens]

    def __len__(self) -> int:
        return len(self._hashes)

    def owner(self, authorization: bytes) -> int | None:
        """Number of the token in a header `Bearer <token>`, None if it is none of them; all are always compared."""
        scheme, _, given = authorization.partition(b" ")
        offered = _hash(given.strip())
        found = None
        for number, known in enumerate(self._hashes):
            if hmac.compare_digest(offered, known):
                found = number
        return found if scheme.lower() == b"bearer" else None


def load_tokens(file: Path, environment: Mapping[str, str] | None = None) -> tuple[Tokens, str]:
    """The tokens and, in words, where they come from (never themselves).

    Args:
        file: read unless the environment variable EAG_RL_SERVE_TOKEN is set; made, readable by its owner only, with a
            new token where it is missing.

    Raises:
        ConfigError: a token is weak, or others may read the file.
        StorageError: the file cannot be written.
    """
    given = (os.environ if environment is None else environment).get(VARIABLE)
    if given:
        return Tokens([given.strip()], VARIABLE), f"the variable {VARIABLE}"
    if not file.exists():
        _make(file)
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{file} has mode {stat.S_IMODE(file.stat().st_mode):o}", "only its owner may read it",
                          f"chmod 600 {file}; if others could have read it, remove it: a new token is then made")
    lines = (line.strip() for line in file.read_text(encoding="ascii", errors="replace").splitlines())
    return Tokens([line for line in lines if line and not line.startswith("#")], str(file)), str(file)


def _make(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        place = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise StorageError(f"cannot write {file}: {error.strerror}", "the token is kept in a file",
                           f"free space, correct paths.workspace, or set {VARIABLE}") from error
    with os.fdopen(place, "w", encoding="ascii") as stream:
        stream.write(secrets.token_urlsafe(32) + "\n")


def _hash(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
