"""The repair protocol, proved on real servers: kills, cut connections, and other sessions."""

import pytest

pytest.register_assert_rewrite("tests.protocol.works", "tests.protocol.killing")
