from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.story import Story


@pytest.fixture
def story() -> Iterator[Story]:
    """A story that fails if something came of its last sentence that nobody said."""
    told = Story()
    yield told
    told.finish()
