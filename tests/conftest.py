"""Fixtures for tests against real Lava and lava-dl's recordings; both skip, saying why, where these are missing."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nmtool import lava_env as environment
from nmtool.errors import BackendUnavailableError

# The generator of networks, the slow simulator and the published vectors serve tests in several folders.
sys.path.insert(0, str(Path(__file__).parent / "conformance"))


def missing(reason: str) -> None:
    """Skip, or fail where the surroundings promise that Lava is there."""
    if os.environ.get("NMTOOL_REQUIRE_LAVA"):
        pytest.fail(f"NMTOOL_REQUIRE_LAVA is set, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def lava_env() -> environment.LavaEnv:
    """A Python in which Lava works."""
    try:
        return environment.require()
    except BackendUnavailableError as e:
        missing(str(e))
        raise


@pytest.fixture(scope="module")
def lava_link(lava_env: environment.LavaEnv) -> Iterator[object]:
    """One Lava worker for many networks."""
    from nmtool.backends.worker_link import WorkerLink

    with WorkerLink(lava_env.worker_command, lava_env.worker_environment) as link:
        yield link


@pytest.fixture(scope="session")
def lava_dl_recordings(lava_env: environment.LavaEnv) -> Path:
    """The folder ``gts`` of lava-dl 0.6.0's own recordings; fetched once (68 MB), kept beside the Lava environment."""
    try:
        return environment.install_recordings()
    except BackendUnavailableError as e:
        missing(str(e))
        raise
