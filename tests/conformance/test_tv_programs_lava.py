"""The vectors as programs on real Lava, through the worker."""

import numpy as np
import pytest
from tv_programs import PROGRAMS

from nmtool.backends.base import RunOptions
from nmtool.backends.lava import LavaBackend

pytestmark = pytest.mark.lava


@pytest.mark.parametrize("vector", PROGRAMS, ids=lambda v: v.name)
def test_lava_gives_the_vector(vector, lava_env, lava_link):
    result = LavaBackend(vector.program, lava_env, lava_link).run(vector.x, RunOptions(record=("all",)))
    for name, quantities in vector.expected.items():
        for key, wanted in quantities.items():
            found = np.asarray(getattr(result.traces[name], key)).reshape(len(wanted), -1)
            np.testing.assert_array_equal(found, wanted, err_msg=f"{name}.{key}")
