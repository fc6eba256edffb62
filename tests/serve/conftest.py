# SPDX-License-Identifier: MIT
"""What the tests of a running endpoint share."""

from __future__ import annotations

import pytest
from serving import Certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Made once for all tests."""
    return Certificates(tmp_path_factory.mktemp("certificates"))
