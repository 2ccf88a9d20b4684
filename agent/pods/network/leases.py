"""Take addresses out of host-local's hands, in its own folder, and hand them to our CNI plugin `edgelet-ipam`.

host-local gives an address by making a file of its name, exclusively, and frees it by the file's content, a container's
ID. So a file with another content is an address that it neither gives nor frees. Everything here blocks for moments.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from agent.errors import Permanent
from agent.pods.network.pod_network import Address, AddressRange, PodNetwork

_MARK = "edgelet fixed-ip"
OWNER_BYTES = 4096


class Leases:
    """Of the pods of one Node. All raise OSError."""

    def __init__(self, node_name: str, handed_over: Path) -> None:
        """`handed_over`: the folder that the plugin looks into."""
        self._mark = f"{_MARK} {node_name} "
        self._handed_over = handed_over

    def take(self, network: PodNetwork, asked: Address | None, owner: str) -> tuple[str, ...]:
        """One address of each range set, that which is asked for among them, for `owner` (NAMESPACE/NAME).

        Raises Permanent: it is none of the network's, somebody has it, or none is left. Then nothing is taken.
        """
        network.leases.mkdir(parents=True, exist_ok=True)
        if asked is not None and network.range_of(asked) is None:
            raise Permanent("", f"{asked} is not in the range of the pod network {network.name} ({network.subnets})")
        taken: list[str] = []
        try:
            for ranges in network.range_sets:
                if asked is not None and any(asked in one for one in ranges):
                    self.hold(network.leases, str(asked), owner)
                    taken.append(str(asked))
                else:
                    taken.append(self._any(network, ranges, owner))
        except BaseException:
            self.free(network.leases, taken, owner)
            raise
        return tuple(taken)

    def _any(self, network: PodNetwork, ranges: Iterable[AddressRange], owner: str) -> str:
        in_use = {path.name for path in network.leases.iterdir()}
        for one in ranges:
            for address in one.downwards():
                if str(address) in in_use:
                    continue
                with suppress(Permanent):  # host-local was quicker
                    self.hold(network.leases, str(address), owner)
                    return str(address)
        raise Permanent("", f"no address is left in the pod network {network.name} ({network.subnets})")

    def hold(self, folder: Path, address: str, owner: str) -> None:
        """Have the address, where it is free or has been the owner's before. Raises Permanent."""
        folder.mkdir(parents=True, exist_ok=True)
        # Under a name that is no address, then linked: a file without content would be nobody's after a power cut.
        new = folder / f".{address}.new"
        with new.open("w") as file:
            file.write(self._mark + owner)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(new, folder / address)
        except FileExistsError:
            holder = self._content(folder / address)
            if holder != self._mark + owner:
                raise Permanent("", f"{address} is in use by {self._who(holder)}") from None
        finally:
            new.unlink()

    def free(self, folder: Path, addresses: Iterable[str], owner: str) -> None:
        """Give back what is the owner's of these."""
        for address in addresses:
            if self._content(folder / address) == self._mark + owner:
                (folder / address).unlink()

    def held(self, folder: Path) -> Iterator[tuple[str, str]]:
        """(address, owner) of all that this Node took."""
        for path in folder.iterdir() if folder.is_dir() else ():
            content = self._content(path)
            if content.startswith(self._mark):
                yield path.name, content.removeprefix(self._mark)

    def hand_over(self, network: PodNetwork, addresses: Iterable[str], uid: str) -> None:
        """Tell the plugin, which is asked for this pod next; again before each sandbox, for the folder is in memory."""
        ranges = [(text, network.range_of(ip_address(text))) for text in addresses]
        known = [(text, one) for text, one in ranges if one is not None]
        own = ",".join(f"{text}/{one.subnet.prefixlen}" for text, one in known)
        gateways = ",".join(str(one.gateway) for _, one in known)
        self._handed_over.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._handed_over / uid).write_text(f"IP={own};GATEWAY={gateways}\n")

    def take_back(self, uid: str) -> None:
        """The next sandbox of this pod gets any address."""
        if uid:
            (self._handed_over / uid).unlink(missing_ok=True)

    def _who(self, content: str) -> str:
        if content.startswith(_MARK):
            return f"pod {content.split()[-1]}, which keeps it"
        return f"another pod (sandbox {content.split()[0][:13]})" if content.split() else "another pod"

    def _content(self, path: Path) -> str:
        try:
            with path.open() as file:
                return file.read(OWNER_BYTES).strip()
        except (FileNotFoundError, IsADirectoryError):
            return ""
