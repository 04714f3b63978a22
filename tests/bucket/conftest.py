"""A bucket of the tests, on this machine."""

from collections.abc import Iterator

import pytest

from tests.bucket.fake_gcs import FakeStorage


@pytest.fixture
def storage(monkeypatch) -> Iterator[FakeStorage]:
    """The server that ``gs://`` leads to, also for what a test starts."""
    with FakeStorage() as server:
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", server.url)
        monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
        yield server
        server.shutdown()
