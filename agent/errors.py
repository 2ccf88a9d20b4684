"""The few errors that carry a decision.

An adapter raises one of these `from` its library's own error; a caller branches on the class, never on a
message. Everything else is a bug and ends the task that met it.
"""


class EdgeletError(Exception):
    """Base of every error that this project raises on purpose."""


class ConfigError(EdgeletError):
    """A setting, flag or file is wrong: the agent refuses to start (exit code 2). One line, names the key or file."""


class Retryable(EdgeletError):
    """The other side is away, slow or overloaded: the same call may succeed later.

    `after` is the other side's own wish in seconds (Retry-After), None where it named none.
    """

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class NotFound(EdgeletError):
    """The object, container, image or file does not exist (HTTP 404, gRPC NOT_FOUND).

    `resource` and `name` are what the API server says that it looked for; empty from everybody else.
    """

    def __init__(self, message: str, resource: str = "", name: str = "") -> None:
        super().__init__(message)
        self.resource = resource
        self.name = name


class Conflict(EdgeletError):
    """It exists already, or a precondition (UID, resourceVersion) does not hold (HTTP 409, gRPC ALREADY_EXISTS)."""


class Gone(EdgeletError):
    """A resourceVersion is too old to watch from (HTTP 410): list again."""


class Permanent(EdgeletError):
    """The other side understood and refused: the same call will be refused again.

    `reason` is a CamelCase word fit for a status or an event (may be empty), `str()` the message.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Forbidden(Permanent):
    """The credential was not accepted or may not do this (HTTP 401 and 403)."""
