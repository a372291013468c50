"""The GPU as a thing that one flow run has at a time: a global concurrency limit on Prefect's server.

A run takes its slot with the first training job or model server and gives it back with the last one that ends. The slot
is leased: a run that was killed loses it within `_LEASE_SECONDS`. Where the machine has no GPU, nothing is taken; where
the server does not know the limit (a run without `./scripts/up`), nothing is waited for.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

from prefect.concurrency.sync import concurrency

LIMIT = "eag-rl-gpu"
_LEASE_SECONDS = 120.0


class Slot:
    """One slot of a limit, held by this process while any of its users needs it.

    Args:
        limit: name of the global concurrency limit.
    """

    def __init__(self, limit: str) -> None:
        self.limit, self.users, self._held = limit, set[str](), ExitStack()

    def take(self, user: str) -> None:
        """Waits for the slot, unless another user of this process holds it already."""
        if not self.users:
            self._held.enter_context(concurrency(self.limit, occupy=1, lease_duration=_LEASE_SECONDS, strict=False))
        self.users.add(user)

    def give_back(self, user: str) -> None:
        """Gives the slot back with the last user; a user that does not hold it gives nothing."""
        if self.users == {user}:
            self._held.close()
        self.users.discard(user)


_slot = Slot(LIMIT)


@cache
def there_is_one() -> bool:
    """Whether this machine has an NVIDIA GPU that answers."""
    if shutil.which("nvidia-smi") is None:
        return False
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "GPU" in listed.stdout


def take(user: str) -> None:
    """Waits until this process may use the GPU, if there is one."""
    if there_is_one():
        _slot.take(user)


def give_back(user: str) -> None:
    """This user of the GPU has ended."""
    _slot.give_back(user)


@contextmanager
def used_by(user: str) -> Iterator[None]:
    """The GPU for the time of a training job."""
    take(user)
    try:
        yield
    finally:
        give_back(user)
