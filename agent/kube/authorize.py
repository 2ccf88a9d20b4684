"""The Node authorizer learns of a pod's references a moment after the pod is bound: a refusal then is asked again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from agent.errors import EdgeletError, Forbidden

ATTEMPTS = 4
FIRST_WAIT_S = 0.05


async def authorized(
    call: Callable[[], Awaitable[bytes]],
    sleep: Callable[[float], Awaitable[None]],
    *also: type[EdgeletError],
) -> bytes:
    """The answer of `call`, tried again 50, 100 and 200 ms after Forbidden (or `also`); then that is raised."""
    retrying = AsyncRetrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(FIRST_WAIT_S, max=1.0),
        retry=retry_if_exception_type((Forbidden, *also)),
        sleep=sleep,
        reraise=True,
    )
    return await retrying(call)
