"""What happens when MLflow's server is away: its client asks again for about a minute, then says what to do.

In: an MlflowClient. Out: the same client, whose failures to reach the server are `TrackingError`s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, cast

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from requests.exceptions import ConnectionError as NoConnection
from requests.exceptions import Timeout

from contracts.errors import TrackingError

# How MLflow's REST client words a request that never got an answer, retries included.
_UNANSWERED = "API request to "
_FAILED = ("failed with exception", "failed with timeout exception")


def reaching(client: MlflowClient, place: str) -> MlflowClient:
    """The client, with `TrackingError` for requests that reach no server.

    Args:
        place: the address, for the message.
    """
    return cast(MlflowClient, _Reaching(client, place))


class _Reaching:
    def __init__(self, client: MlflowClient, place: str) -> None:
        self._client, self._place = client, place

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return self._guarded(found) if callable(found) else found

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            with tracking_errors(self._place):
                return method(*arguments, **named)

        return call


@contextmanager
def tracking_errors(place: str) -> Iterator[None]:
    """Turns "no answer from MLflow's server" into a TrackingError; all else stays what it is.

    Raises:
        TrackingError: as said.
    """
    try:
        yield
    except (NoConnection, Timeout) as error:
        raise _away(place, error) from error
    except MlflowException as error:
        text = str(error)
        if not (text.startswith(_UNANSWERED) and any(words in text for words in _FAILED)):
            raise
        raise _away(place, error) from error


def _away(place: str, error: Exception) -> TrackingError:
    return TrackingError(f"MLflow's server at {place} does not answer ({type(error).__name__})",
                         "it answers within about a minute (MLFLOW_HTTP_REQUEST_MAX_RETRIES) while a study runs",
                         "start it, then run the same command again: finished stages and parts of stages are kept")
