"""The exception tree. Every error a user can cause carries the value found, the rule it breaks and the next step.

`eag-rl` prints these three lines without a traceback and exits with `exit_code`.
"""

from __future__ import annotations

from contracts.redaction import printable, redacted


class EagRlError(Exception):
    """Root of all errors that a user, a file or a machine can cause.

    Args:
        value: what was found, with the name of the thing that holds it.
        rule: what would have been right.
        next_step: what the user can do now.
    """

    exit_code = 2
    title = "error"

    def __init__(self, value: str, rule: str, next_step: str) -> None:
        self.value, self.rule, self.next_step = (redacted(printable(text)) for text in (value, rule, next_step))
        super().__init__(f"{self.value} | rule: {self.rule} | next: {self.next_step}")

    def __reduce__(self) -> tuple[type[EagRlError], tuple[str, str, str]]:
        return type(self), (self.value, self.rule, self.next_step)

    def as_dict(self) -> dict[str, str]:
        """The error as JSON-ready fields."""
        return {"error": self.title, "value": self.value, "rule": self.rule, "next": self.next_step}


class ConfigError(EagRlError):
    """A configuration that the schema refuses."""

    title = "configuration"


class DataError(EagRlError):
    """A source file or a frame that breaks its contract."""

    title = "data"


class MissingFileError(DataError):
    """A file that is needed and not there."""

    title = "missing file"


class ContractError(DataError):
    """A frame that does not hold what its contract says."""

    title = "contract"


class PromptTooLongError(EagRlError):
    """A prompt that does not fit the context. Prompts are never cut."""

    title = "prompt too long"


class ServerError(EagRlError):
    """The language-model server does not start, dies or answers with an error."""

    title = "model server"


class ModelError(EagRlError):
    """A model folder, adapter or checkpoint that cannot be used."""

    title = "model"


class JobError(EagRlError):
    """A training job in a child process ended with an error."""

    title = "training job"


class ArtifactError(EagRlError):
    """An artifact that is missing, unfinished or altered."""

    title = "artifact"


class StorageError(EagRlError):
    """The disk is full or not writable."""

    title = "storage"


class NetworkError(EagRlError):
    """A public source that cannot be reached."""

    title = "network"


class TrackingError(EagRlError):
    """MLflow's server cannot be reached."""

    title = "tracking"
