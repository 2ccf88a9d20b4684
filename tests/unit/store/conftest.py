from collections.abc import Callable, Iterator

import pytest
from loguru import logger


@pytest.fixture
def said() -> Iterator[Callable[[], str]]:
    """Everything that was logged since the test began."""
    lines: list[str] = []
    number = logger.add(lambda line: lines.append(str(line)), level="DEBUG", format="{message}")
    yield lambda: "".join(lines)
    logger.remove(number)
