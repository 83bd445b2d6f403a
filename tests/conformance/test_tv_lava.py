"""TV1-TV22 on bare Lava Processes: that the Lava here is the one that our rules were taken from."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from vectors import VECTORS

pytestmark = pytest.mark.lava


@pytest.fixture(scope="module")
def readings(lava_env):
    script = Path(__file__).with_name("bare_lava.py")
    done = subprocess.run(
        [str(lava_env.python), "-I", str(script)],
        input=json.dumps([v.network for v in VECTORS]),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip((v.name for v in VECTORS), json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.name)
def test_bare_lava_gives_the_vector(vector, readings):
    found = readings[vector.name]
    assert vector.expected
    for name, wanted in vector.expected.items():
        got = np.asarray(found[name])
        if name == "d.weights":
            got = got[-1]
        elif "." in name:
            got = got.T
        np.testing.assert_array_equal(got, wanted, err_msg=f"{vector.name}: {name}")
