"""Records that the database can't evaluate: counted and named, and the others are checked and repaired."""

import pytest
from django.db.models import F, FloatField, IntegerField, Q
from django.db.models.functions import Cast, Coalesce, Exp
from django.db.models.lookups import GreaterThan
from django.utils import timezone

from reconcile import EXTRA, AtLeast, Delete, FromPython, HaveRow, HaveValues, Rule, Satisfy
from reconcile.core.drift import MISSING, STALE, Status
from reconcile.detect import unevaluable
from reconcile.detect.checking import check
from reconcile.detect.inspecting import inspect_record
from tests.helpers import checked, repaired
from tests.zoo.models import Basket, Bill, Ghost, Node, Page

pytestmark = pytest.mark.django_db(transaction=True)

TOO_LARGE = 1000.0


class Power(Exp):
    """e to this power; an error for a large one on SQLite too, which would say that it is infinite."""

    def as_sqlite(self, compiler, connection, **_):
        sql, params = compiler.compile(self.get_source_expressions()[0])
        return f"ABS(CASE WHEN {sql} > 500 THEN -9223372036854775807 - 1 ELSE 1 END) * EXP({sql})", (
            *params,
            *params,
        )


POWER = Rule(name="power", every=Basket, must=HaveValues(score=Power("rate")))
BILLED = Rule(
    name="billed",
    every=Basket,
    must=HaveRow(Bill, link={"basket_number": F("pk")}, values={"score": Power("rate")}),
    remedies={EXTRA: Delete()},
)


def baskets(number, *, bad=()):
    """So many baskets, of which those at the places `bad` have a rate whose power no database can compute."""
    made = [Basket(rate=TOO_LARGE if place in bad else 0, score=1) for place in range(number)]
    Basket.objects.bulk_create(made)
    return list(Basket.objects.order_by("pk"))


@pytest.mark.parametrize("bad", [(0,), (29,), (7, 8), (3, 17, 29)])
def test_the_others_are_counted_and_repaired(bad):
    made = baskets(30, bad=bad)
    Basket.objects.filter(pk__in=[made[10].pk, made[20].pk]).update(score=9)
    found = checked(POWER)
    assert (found.status, found.tally[STALE], found.unrepairable) == (Status.FAIL, 2 + len(bad), len(bad))
    assert f"{len(bad)} of the stale records can't be evaluated" in found.notes[0]
    assert str(made[bad[0]].pk) in found.notes[0]
    assert str(made[bad[0]].pk) in {each.key for each in found.samples}
    result = repaired(POWER)
    assert (result.written.update, result.left, result.error) == (2, len(bad), None)
    assert "can't be evaluated" in result.why_stopped
    assert str(made[bad[0]].pk) in result.why_stopped
    again = repaired(POWER)
    assert (again.written.total, again.left) == (0, len(bad))


def test_a_record_that_is_right_beside_one_that_fails_is_not_drift():
    baskets(30, bad=(4,))
    found = checked(POWER)
    assert (found.tally.checked, found.tally[STALE], found.unrepairable) == (30, 1, 1)


def test_rows_are_inserted_and_updated_around_it():
    made = baskets(30, bad=(4, 5))
    Bill.objects.create(basket_number=made[0].pk, score=1)
    Bill.objects.create(basket_number=made[1].pk, score=8)
    Bill.objects.create(basket_number=made[5].pk, score=8)
    result = repaired(BILLED)
    assert result.error is None
    assert (result.written.insert, result.written.update) == (26, 1)
    assert result.left == 2
    assert repaired(BILLED).written.total == 0


def test_a_condition_is_judged_around_it():
    made = baskets(30, bad=(4,))
    Basket.objects.filter(pk=made[9].pk).update(rate=-3)
    rule = Rule(name="condition", every=Basket, must=Satisfy(GreaterThan(Power("rate"), 0.5)))
    found = checked(rule)
    assert (found.tally[STALE], found.unrepairable) == (2, 1)


def test_columns_beside_what_python_computes():
    made = baskets(30, bad=(4,))
    Basket.objects.filter(pk=made[9].pk).update(score=8)
    shouted = FromPython(str.upper, reads=["label"])
    rule = Rule(name="beside", every=Basket, must=HaveValues(label=shouted, score=Power("rate")))
    Basket.objects.filter(pk__in=[made[2].pk, made[25].pk]).update(label="a")
    found = checked(rule)
    assert (found.tally[STALE], found.unrepairable) == (4, 1)
    result = repaired(rule)
    assert (result.written.update, result.left) == (3, 1)


def test_a_source_that_a_cast_refuses():
    Page.objects.bulk_create([Page(code=code) for code in ("1", "2", "abc", "3")])
    Basket.objects.bulk_create([Basket() for _ in range(3)])
    number = Cast("code", IntegerField())
    rule = Rule(name="pages", every=Page, must=HaveValues(visits=number))
    found = checked(rule)
    assert (found.tally[STALE], found.unrepairable) == (4, 1)
    assert "abc" in found.notes[0]
    assert repaired(rule).written.update == 3


def test_more_than_a_few_are_an_error_of_the_rule():
    baskets(60, bad=range(10, 10 + unevaluable.MOST + 1))
    found = check(POWER, using="default", now=timezone.now())
    assert (found.status, found.tally[MISSING], found.tally[STALE]) == (Status.ERROR, 0, 0)
    assert "More than 20 records can't be evaluated. The first of them, " in found.error
    assert repaired(POWER).written.total == 0


def test_where_all_fail_none_is_taken_for_the_cause():
    baskets(3, bad=(0, 1, 2))
    assert check(POWER, using="default", now=timezone.now()).status is Status.ERROR


def test_a_missing_table_is_no_record_s_fault():
    baskets(3)
    rule = Rule(name="haunted", every=Basket, must=HaveRow(Ghost, link={"value": F("pk")}))
    assert check(rule, using="default", now=timezone.now()).status is Status.ERROR


def test_the_repair_passes_it_in_windows_too(monkeypatch):
    made = baskets(30, bad=(4,))
    Basket.objects.exclude(pk=made[4].pk).update(score=5)
    monkeypatch.setattr("reconcile.runs.one_rule.KEEP", 3)
    monkeypatch.setattr("reconcile.core.scopes.SIZE", 10)
    result = repaired(POWER)
    assert (result.written.update, result.left, result.error) == (29, 1, None)
    assert "can't be evaluated" in result.why_stopped


def test_rows_without_a_window(monkeypatch):
    made = baskets(30, bad=(4,))
    rule = Rule(
        name="by.power",
        every=Basket,
        must=HaveRow(Bill, link={"score": Power("rate")}, count=AtLeast(1)),
    )
    Basket.objects.filter(pk=made[9].pk).update(rate=2)
    monkeypatch.setattr("reconcile.runs.one_rule.KEEP", 1)
    found = checked(rule)
    assert (found.tally[MISSING], found.unrepairable) == (30, 1)
    result = repaired(rule)
    # Those of the same rate owe the same row.
    assert (result.written.insert, result.left, result.error) == (2, 1, None)


def test_who_asks_for_the_record_is_told_why():
    made = baskets(3, bad=(1,))
    found = inspect_record(POWER, str(made[1].pk), using="default", now=timezone.now())
    (subject,) = found.subjects
    (verdict,) = subject.verdicts
    assert subject.named_by_every
    assert {cell.column: cell.there for cell in subject.row.cells}["rate"] == TOO_LARGE
    assert (verdict.state, verdict.would.total) == ("drifted", 0)
    assert verdict.refusal.startswith("it can't be evaluated: ")
    other = inspect_record(POWER, str(made[0].pk), using="default", now=timezone.now())
    assert other.subjects[0].verdicts[0].state == "fine"


def test_a_row_without_a_record_that_fails_is_an_error_of_the_rule():
    """No key of a record tells which of the rows it is, and others may lie beside it."""
    made = baskets(10)
    Bill.objects.bulk_create([Bill(basket_number=each.pk, score=1) for each in made])
    Bill.objects.bulk_create(
        [Bill(basket_number=made[-1].pk + more, score=1_000 if more == 3 else 1) for more in range(1, 6)]
    )
    where = Q(GreaterThan(Power(Cast("score", FloatField())), 0.5))
    rule = Rule(name="rows", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}, where=where))
    found = check(rule, using="default", now=timezone.now())
    assert found.status is Status.ERROR
    Bill.objects.filter(score=1_000).delete()
    assert checked(rule).tally[EXTRA] == 4


def test_a_tree_with_a_record_that_fails_names_no_other():
    root = Node.objects.create(name="r", size=0, depth=9)
    bad = Node.objects.create(name="a", size=1_000, parent=root, depth=9)
    below = Node.objects.create(name="b", size=0, parent=bad, depth=9)
    value = Coalesce(F("parent__depth"), 0) + Cast(Power(Cast("size", FloatField())), IntegerField())
    rule = Rule(name="tree", every=Node, must=HaveValues(depth=value))
    result = repaired(rule)
    told = {each["key"] for each in result.refused}
    assert told <= {str(bad.pk)}
    assert result.left > 0
    assert str(below.pk) not in told
