"""The addresses that the cluster gave this node for its pods, told to the runtime: it may write its network with them.

In: the own Node as the API server shows it. Out: UpdateRuntimeConfig, once for each change, tried again until it is
taken. Nobody waits for it: a runtime without a template for its network does nothing with them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from loguru import logger

from agent.cri.runtime import RuntimeClient
from agent.errors import Permanent, Retryable

RETRY_S = 10.0


def pod_cidrs(node: dict[str, Any]) -> str:
    """With commas between; empty: the cluster gives none."""
    spec = node.get("spec") or {}
    return ",".join(spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else []))


class PodCidr:
    def __init__(self) -> None:
        self._wanted = ""
        self._news = asyncio.Event()

    def node_changed(self, node: dict[str, Any]) -> None:
        if (found := pod_cidrs(node)) and found != self._wanted:
            self._wanted = found
            self._news.set()

    async def run(self, runtime: RuntimeClient) -> None:
        """For as long as the runtime's clients live."""
        told = ""
        while True:
            await self._news.wait()
            self._news.clear()
            while told != self._wanted:
                wanted = self._wanted
                try:
                    await runtime.update_runtime_config(wanted)
                except (Retryable, Permanent) as error:
                    logger.debug("the runtime does not take the pods' addresses {} yet: {}", wanted, error)
                    await asyncio.sleep(RETRY_S)
                else:
                    logger.info("the cluster's addresses for pods of this node: {}", wanted)
                    told = wanted
