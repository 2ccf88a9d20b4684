import socket
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from agent.node.facts import default_addresses, go_architecture, hugepages, nearest_existing, os_image, read_facts


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_the_machine_is_read_from_its_files(tmp_path: Path) -> None:
    _write(tmp_path / "etc/machine-id", "abc\n")
    _write(tmp_path / "etc/os-release", 'NAME=x\nPRETTY_NAME="Edge OS 3"\n')
    _write(tmp_path / "sys/class/dmi/id/product_uuid", "EC2-1\n")
    _write(tmp_path / "proc/sys/kernel/random/boot_id", "boot\n")
    _write(tmp_path / "proc/sys/kernel/pid_max", "4194304\n")
    _write(tmp_path / "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "3\n")

    facts = read_facts(tmp_path / "not/there/yet", top=tmp_path)

    assert (facts.machine_id, facts.system_uuid, facts.boot_id) == ("abc", "EC2-1", "boot")
    assert (facts.os_image, facts.pid_max) == ("Edge OS 3", 4194304)
    assert facts.hugepages_bytes == {"2Mi": 3 * 2**21}
    assert facts.cpus >= 1
    assert facts.memory_bytes > 2**20
    assert facts.ephemeral_storage_bytes > 0


def test_a_machine_without_those_files_still_has_facts(tmp_path: Path) -> None:
    facts = read_facts(tmp_path, top=tmp_path)
    assert (facts.machine_id, facts.system_uuid, facts.boot_id) == ("", "", "")
    assert (facts.os_image, facts.pid_max) == ("Linux", 32768)
    assert facts.hugepages_bytes == {}


def test_a_board_without_smbios_is_known_by_its_serial_number_then_by_its_machine_id(tmp_path: Path) -> None:
    _write(tmp_path / "etc/machine-id", "abc\n")
    assert read_facts(tmp_path, top=tmp_path).system_uuid == "abc"
    _write(tmp_path / "proc/device-tree/serial-number", "10000000abcdef\0")
    assert read_facts(tmp_path, top=tmp_path).system_uuid == "10000000abcdef"


@pytest.mark.parametrize(
    ("machine", "go"),
    [
        ("x86_64", "amd64"),
        ("aarch64", "arm64"),
        ("armv7l", "arm"),
        ("armv6l", "arm"),
        ("i686", "386"),
        ("mips", "mips"),
    ],
)
def test_architectures_have_gos_names(machine: str, go: str) -> None:
    assert go_architecture(machine) == go


def test_every_page_size_of_the_kernel_is_named_as_its_resource(tmp_path: Path) -> None:
    for kib, pages in ((64, 1), (2048, 0), (1048576, 2)):
        _write(tmp_path / f"sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages", f"{pages}\n")
    assert hugepages(tmp_path) == {"64Ki": 65536, "2Mi": 0, "1Gi": 2 * 2**30}


def test_os_release_may_be_in_usr_lib(tmp_path: Path) -> None:
    _write(tmp_path / "usr/lib/os-release", "PRETTY_NAME='Other OS'\n")
    assert os_image(tmp_path) == "Other OS"


def test_there_is_always_an_address() -> None:
    assert default_addresses()


def test_a_folder_that_is_not_there_yet_counts_as_its_parent(tmp_path: Path) -> None:
    assert nearest_existing(tmp_path / "a/b") == tmp_path


def test_without_a_default_route_the_first_address_that_is_not_loopback_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(self: socket.socket, address: object) -> None:
        raise OSError("Network is unreachable")

    def interfaces(*addresses: str) -> dict[str, list[SimpleNamespace]]:
        return {f"if{n}": [SimpleNamespace(family=socket.AF_INET, address=one)] for n, one in enumerate(addresses)}

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: interfaces("127.0.0.1", "169.254.7.7", "10.8.0.5"))
    assert default_addresses() == ("10.8.0.5",)
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: interfaces("127.0.0.1"))
    assert default_addresses() == ("127.0.0.1",)
