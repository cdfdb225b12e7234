"""A server with a fake model, shared by a module's tests."""

from collections.abc import Iterator

import pytest
from viva_server import viva_server


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Its gRPC address."""
    with viva_server() as address:
        yield address
