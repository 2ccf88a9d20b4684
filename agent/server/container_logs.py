"""A container's log as the answer to a request, whoever asks: the API server or a client of this machine.

In: the request with a kubelet's query, and whose log. Out: the log as it comes. Errors are a status as long as nothing
was sent, then a broken connection.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator

from aiohttp import web
from loguru import logger

from agent.errors import NotFound
from agent.providers.contract import ReadsLogs
from agent.server.log_query import log_options
from agent.server.ports import Pods


async def container_log(
    request: web.Request, provider: Pods, namespace: str, name: str, container: str
) -> web.StreamResponse:
    """Raises NotFound, Permanent, Retryable."""
    # The runtime dates the lines by the machine's clock, right or wrong.
    options = log_options(request.query, time.time())
    if not isinstance(provider, ReadsLogs):
        return web.Response(status=501, text="container logs are not implemented by this node's provider")
    try:
        record = await provider.get_pod(namespace, name)
    except NotFound as error:
        raise NotFound(f'pod "{name}" does not exist') from error
    spec = record.pod.spec
    if container not in (c.name for c in spec.all_containers):
        raise NotFound(f'container "{container}" not found in pod "{name}"')
    log = provider.get_container_logs(namespace, name, container, options)
    try:
        return await _stream(request, log)
    finally:
        if isinstance(log, AsyncGenerator):
            await log.aclose()


async def _stream(request: web.Request, blocks: AsyncIterator[bytes]) -> web.StreamResponse:
    # The first block tells that there is a log: until then an error is still a status.
    first = await anext(blocks, b"")
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    try:
        if first:
            await response.write(first)
        async for block in blocks:
            if block:
                await response.write(block)
        await response.write_eof()
    except ConnectionError:
        logger.debug("{}: the reader went away", request.path)
    except Exception as error:  # too late for a status: a broken connection is not mistaken for the end
        logger.error("{}: {}: {}", request.path, type(error).__name__, error)
        if request.transport is not None:
            request.transport.abort()
    return response
