"""For `preexec_fn`: a child that may write only where its user may, also where tests run as root."""

from __future__ import annotations

import ctypes
import os

_DROP_FROM_BOUNDS, _WRITE_EVERYWHERE = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


def ordinary_user() -> None:
    """Takes from this process the right of root to write everywhere, as of its next exec.

    Raises:
        OSError: the kernel refuses.
    """
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).prctl(_DROP_FROM_BOUNDS, _WRITE_EVERYWHERE, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "CAP_DAC_OVERRIDE cannot be dropped")
