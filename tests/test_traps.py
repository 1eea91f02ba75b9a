"""Traps that other tools fell into are in `tests/traps/`; here is that what they leave to other files is there."""

import re
from pathlib import Path

import pytest

from tests.helpers import ROOT

pytestmark = pytest.mark.once


def left_to_others():
    for path in sorted((Path(__file__).parent / "traps").glob("test_*.py")):
        yield from re.findall(r"^(\S.*) -> (\S+)::(\S+)$", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("trap", "file", "name"), list(left_to_others()))
def test_a_trap_that_is_tested_elsewhere_is(trap, file, name):
    assert f"\ndef {name}(" in (ROOT / file).read_text(), trap


def test_traps_are_listed():
    assert len(list(left_to_others())) > 30
