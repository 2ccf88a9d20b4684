from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.config import Settings
from agent.errors import NotFound
from agent.server import host_logs
from agent.server.host_logs import open_below
from tests.unit.server.authority import Authority
from tests.unit.server.serving import Silent, served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "log"
    (made / "pods").mkdir(parents=True)
    (made / "syslog").write_text("one\ntwo\n")
    (made / "pods" / "0.log").write_text("inside\n")
    (made / "link").symlink_to(made / "pods" / "0.log")
    (tmp_path / "secret").write_text("secret")
    (made / "escape").symlink_to(tmp_path / "secret")
    (made / "up").symlink_to("..")
    (made / "<b>").write_text("")
    return made


async def test_files_and_folders_are_shown_where_the_owner_allows_it(
    settings: Settings, authority: Authority, admin: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_logs.HostLogs.__init__, "__defaults__", (folder,))
    async with served(settings, Silent(), authority.pem, admin) as api:
        assert await api.get("/logs/syslog") == (405, "logs endpoint is disabled.")
    async with served(replace(settings, enable_system_log_handler=True), Silent(), authority.pem, admin) as api:
        assert await api.get("/logs/syslog") == (200, "one\ntwo\n")
        assert await api.get("/logs/pods/0.log") == (200, "inside\n")
        assert await api.get("/logs/link") == (200, "inside\n")
        status, listed = await api.get("/logs/")
        assert (status, '<a href="pods/">pods/</a>' in listed, "<b>" in listed) == (200, True, False)
        assert (await api.get("/logs/none"))[0] == 404


@pytest.mark.parametrize(
    "path",
    ["../secret", "pods/../../secret", "/../secret", "escape", "up/secret", "up", "a\0b", "syslog/x", "x" * 5000],
)
def test_no_path_and_no_link_leads_out_of_the_folder(folder: Path, path: str) -> None:
    with pytest.raises(NotFound):
        open_below(folder, path)


def test_a_link_put_in_the_way_while_we_look_is_not_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = (folder / "pods" / "0.log").resolve()
    whole = Path.resolve

    def swap(self: Path, strict: bool = False) -> Path:
        found = whole(self, strict)
        if found == resolved:
            (folder / "pods" / "0.log").unlink()
            (folder / "pods" / "0.log").symlink_to(folder.parent / "secret")
        return found

    monkeypatch.setattr(Path, "resolve", swap)
    with pytest.raises(NotFound):
        open_below(folder, "pods/0.log")


def test_what_is_no_file_is_not_opened(folder: Path) -> None:
    import os

    os.mkfifo(folder / "pipe")
    with pytest.raises(NotFound):
        open_below(folder, "pipe")
