"""The node's own Kubernetes API in the place of the cluster's, as programs in pods see it.

In: where it listens and the file of its certificate. Out: the variables by which in-cluster clients find an API server,
and the cluster's CA bundle with that certificate added. A listener on loopback serves pods on the host's network only.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import msgspec

from agent.model.pod import Pod

ROOT_CA = "kube-root-ca.crt"
"""The ConfigMap that every pod's token volume has its CA from."""
ROOT_CA_KEY = "ca.crt"


class InjectedApi(msgspec.Struct, frozen=True):
    address: str
    port: int
    certificate: Path

    def is_reached_by(self, pod: Pod) -> bool:
        return bool(pod.spec.hostNetwork) or not ip_address(self.address).is_loopback

    def variables(self) -> Mapping[str, str]:
        port = str(self.port)
        return {
            "KUBERNETES_SERVICE_HOST": self.address,
            "KUBERNETES_SERVICE_PORT": port,
            "KUBERNETES_SERVICE_PORT_HTTPS": port,
        }

    def bundle(self, authorities: bytes) -> bytes:
        """Read each time: the certificate is made anew every year. Raises ValueError where it is not there yet."""
        try:
            return authorities.rstrip(b"\n") + b"\n" + self.certificate.read_bytes()
        except OSError as error:
            raise ValueError(f"the local API's certificate {self.certificate}: {error.strerror}") from error
