"""The table of verbs: each is one statement for the database, and what takes it back is in the table, too."""

import pytest

from reconcile.core.verbs import DELETE, INSERT, UNDOABLE, UPDATE, VERBS, Verb, Written, verbs_of
from reconcile.models import Change, WrittenRows
from reconcile.runs.undo_run import planned_writes

pytestmark = pytest.mark.once

OPPOSITES = {INSERT: DELETE, UPDATE: UPDATE, DELETE: INSERT, "": ""}


@pytest.mark.parametrize("name", VERBS)
def test_the_inverse_of_a_verb_is_the_opposite_statement(name):
    verb = VERBS[name]
    assert verb.statement in OPPOSITES
    assert bool(verb.inverse) is bool(verb.statement) is (name in UNDOABLE)
    if verb.inverse:
        assert VERBS[verb.inverse].statement == OPPOSITES[verb.statement]


@pytest.mark.parametrize("model", [Change, WrittenRows])
def test_the_tables_have_room_for_each_verb(model):
    assert max(map(len, VERBS)) <= model._meta.get_field("verb").max_length


def test_rows_are_counted_by_statement_whatever_the_verb(monkeypatch):
    assert (Written(insert=3, called=2).by(INSERT), Written(insert=3).by(DELETE)) == (3, 0)
    monkeypatch.setitem(VERBS, "archive", Verb(act="archive", statement=UPDATE, inverse=UPDATE))
    assert verbs_of(UPDATE) == ["update", "archive"]
    assert Written(update=1, archive=2).by(UPDATE) == 3


def test_an_undo_plans_the_rows_of_all_verbs_with_one_inverse(monkeypatch):
    monkeypatch.setitem(VERBS, "archive", Verb(act="archive", statement=UPDATE, inverse=UPDATE))
    monkeypatch.setattr("reconcile.runs.undo_run.UNDOABLE", (*UNDOABLE, "archive"))
    assert planned_writes({"update": 3, "archive": 4, "called": 1}).as_dict()["update"] == 7
