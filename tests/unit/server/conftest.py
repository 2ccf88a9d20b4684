from pathlib import Path

import pytest

from agent.config import Settings
from tests.unit.server.authority import Authority


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def admin(authority: Authority, tmp_path: Path) -> Path:
    return authority.issue(tmp_path / "admin.pem", "admin", "system:masters")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node_name="n1", root_dir=tmp_path / "root")
