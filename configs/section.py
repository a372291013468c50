"""What all sections of the configuration have in common."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Setting = bool | int | float | str | list[int | float | str]
# user:password@ in an address, also a password with signs that ought to be escaped; host:port is none.
_PASSWORD = re.compile(r"://[^/?#@\[:\s]*:(?!:|\d+(?:[/?#]|$))[^@]+@")
# Of these a name or path, not a user, stands before the colon.
_REPOSITORY = re.compile(r"(?:^|::)(?:github|git)://[^:]*")


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def require_no_password(address: str | None, instead: str) -> None:
    """Refuses an address with a password, which would be recorded with all other settings; does not repeat it.

    Args:
        instead: where the password belongs.

    Raises:
        ValueError: there is one.
    """
    if address is not None and _PASSWORD.search(_REPOSITORY.sub("", address)):
        raise ValueError(f"a password in the address would be recorded with the settings; {instead}")
