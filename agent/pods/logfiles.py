"""Where container logs lie: the kubelet's folders and links, which log shippers and crictl look for.

The runtime writes POD_LOGS/NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log, and LINKS/NAME_NAMESPACE_CONTAINER-ID.log points
there. All functions block and are called in threads. Nothing outside the two base folders is ever touched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from agent.config import Settings
from agent.model.pod import Pod
from agent.pods.translate.identity import container_log_path, pod_log_directory
from agent.pods.volumes.removal import remove_tree

_RUN = re.compile(r"(\d+)\.log")
_POD_FOLDER = re.compile(r"([a-z0-9-]+)_([a-z0-9.-]+)_([^_]+)")
_LONGEST_NAME = 255
"""Bytes in a file name (ext4 and most others); the kubelet cuts a longer link name before its `.log`."""


def _nobody(_: Path) -> None:
    return


class LogFiles(msgspec.Struct, frozen=True):
    pods: Path
    links: Path
    going: Callable[[Path], None] = _nobody
    """Called with a pod's folder before files of it go or are renamed."""

    @classmethod
    def of(cls, settings: Settings, going: Callable[[Path], None] = _nobody) -> LogFiles:
        return cls(settings.pod_logs_dir.absolute(), settings.container_log_links_dir.absolute(), going)

    def pod_folder(self, pod: Pod) -> Path:
        return Path(pod_log_directory(str(self.pods), pod))

    def file(self, pod: Pod, container: str, attempt: int) -> Path:
        """The log of one run of a container; `attempt` is its restart count."""
        return self.pod_folder(pod) / container_log_path(container, attempt)

    def attempts(self, pod: Pod) -> Mapping[str, set[int]]:
        """The runs of each container that left a log, rotated ones too; none where nothing can be read."""
        found: dict[str, set[int]] = {}
        try:
            folders = [entry for entry in os.scandir(self.pod_folder(pod)) if entry.is_dir(follow_symlinks=False)]
            for folder in folders:
                runs = (_RUN.match(entry.name) for entry in os.scandir(folder))
                found[folder.name] = {int(run[1]) for run in runs if run}
        except OSError:
            # A broken folder is told of by whoever must write there.
            return found
        return found

    def link(self, pod: Pod, container: str, container_id: str) -> Path:
        """Where the link of one run is, or would be."""
        name = f"{_link_prefix(pod)}{container}-{container_id}"
        return self.links / (name[: _LONGEST_NAME - len(".log")] + ".log")

    def make_pod_folder(self, pod: Pod) -> None:
        """Before the sandbox. Raises OSError."""
        self.pod_folder(pod).mkdir(mode=0o755, parents=True, exist_ok=True)

    def make_container_folder(self, pod: Pod, container: str) -> None:
        """Before the container. Raises OSError."""
        (self.pod_folder(pod) / container).mkdir(mode=0o755, parents=True, exist_ok=True)

    def make_link(self, pod: Pod, container: str, attempt: int, container_id: str) -> None:
        """After the container was made, its file need not be there yet; a link that stands there is replaced.

        Raises OSError.
        """
        link, target = self.link(pod, container, container_id), self.file(pod, container, attempt)
        self.links.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            link.symlink_to(target)
        except FileExistsError:
            if link.is_symlink() and link.readlink() == target:
                return
            link.unlink()
            link.symlink_to(target)

    def remove_run(self, pod: Pod, container: str, attempt: int, container_id: str) -> None:
        """The link, the file and the rotated files of a container that was removed. No error where there are none."""
        self.going(self.pod_folder(pod))
        self.link(pod, container, container_id).unlink(missing_ok=True)
        file = self.file(pod, container, attempt)
        for found in (file, *file.parent.glob(f"{attempt}.log.*")):
            found.unlink(missing_ok=True)

    def remove_pod(self, pod: Pod) -> None:
        """The pod's folder with all logs, and every link into it. No error where there is none. Raises OSError."""
        folder = self.pod_folder(pod)
        self.going(folder)
        for link, target in self._our_links(_link_prefix(pod)):
            if target.is_relative_to(folder):
                link.unlink(missing_ok=True)
        # The kernel renames no mount point: what is mounted here is not emptied. Links out of it are never followed.
        going = folder.with_name(f"{folder.name}.removed")
        remove_tree(going)  # what a removal that was broken off left
        if folder.is_dir():
            folder.rename(going)
            remove_tree(going)

    def pods_on_disk(self) -> Mapping[str, tuple[str, str]]:
        """Namespace and name of each pod that has a folder here, by UID. Folders of other names are others'."""
        try:
            with os.scandir(self.pods) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return {}
        found = (_POD_FOLDER.fullmatch(name) for name in names)
        return {parts[3]: (parts[1], parts[2]) for parts in found if parts}

    def stale_links(self) -> tuple[Path, ...]:
        """Links into the pods' folder whose log file is gone.

        A container that was just made has no file yet: remove only what was stale twice.
        """
        return tuple(link for link, target in self._our_links() if not target.exists())

    def _our_links(self, prefix: str = "") -> Iterator[tuple[Path, Path]]:
        if not self.links.is_dir():
            return
        prefix = prefix[: _LONGEST_NAME - len(".log")]
        for entry in self.links.iterdir():
            if entry.name.startswith(prefix) and entry.suffix == ".log" and entry.is_symlink():
                try:
                    target = entry.readlink()
                except FileNotFoundError:
                    continue  # another pod's clean-up has just taken it
                if ".." not in target.parts and target.is_relative_to(self.pods):
                    yield entry, target


def _link_prefix(pod: Pod) -> str:
    return f"{pod.metadata.name}_{pod.metadata.namespace}_"
