"""What leads to itself: the answers don't depend on what was asked for first."""

import pytest

from reconcile.audit.memo import Memo
from reconcile.audit.trail import Asked, Trail

pytestmark = pytest.mark.once


@pytest.fixture
def graph():
    """Names that lead to others, each with what it holds itself; the names that were read, in their order."""
    memo = Memo(frozenset(), Trail())
    read = []

    def ask(leads, holds, name):
        def evaluate():
            read.append(name)
            memo.trail.note(Asked.HELD, name)
            found = frozenset(holds.get(name, ()))
            return found.union(*(ask(leads, holds, each) for each in leads.get(name, ())))

        return memo.once(name, name, evaluate)

    ask.read, ask.memo = read, memo
    return ask


CIRCLE = {"a": ["b", "d"], "b": ["c"], "c": ["a"]}
HOLDS = {"a": [1], "b": [2], "d": [4]}


@pytest.mark.parametrize("order", ["abc", "bca", "cab", "acb"])
def test_each_name_of_a_circle_has_all_that_it_leads_to(graph, order):
    for name in order:
        assert graph(CIRCLE, HOLDS, name) == {1, 2, 4}
    assert all(name in graph.memo for name in order)


def test_what_is_cut_short_is_used_again_while_what_it_lacks_is_read(graph):
    leads = {"a": ["b", "e"], "b": ["a"], "e": ["b"]}
    assert graph(leads, {"e": [5], "b": [2]}, "a") == {2, 5}
    assert graph.read == ["a", "b", "e"]


def test_it_stays_if_what_it_lacks_turned_out_to_be_nothing_and_depends_on_that(graph):
    leads = {"a": ["b"], "b": ["a"]}
    assert graph(leads, {}, "a") == frozenset()
    found, mask = graph.memo.trail.made(lambda: graph(leads, {}, "b"))
    assert (found, graph.read) == (frozenset(), ["a", "b"])
    assert {name for _, name in graph.memo.trail.things(mask)} == {"a", "b"}
    assert "b" in graph.memo
