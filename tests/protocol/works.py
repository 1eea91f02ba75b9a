"""Repairs of each verb, in chunks of a few records, and what must be true of them after anything that may happen."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from django.db.models import F, Model

from reconcile import EXTRA, MISSING, STALE, Delete, HaveRow, HaveValues, Insert, Rule, Update, runs
from reconcile.db.images import image
from reconcile.models import Change, Chunk, Outcome, Run, WorkItem
from reconcile.repair.pacing import LEAST
from reconcile.runs import written_rows
from sample_project.shop.models import Invoice, Order
from tests.helpers import found_by_the_night
from tests.zoo.models import Basket, Bill, Match, Team

# Other sessions and processes see what is written. Without the signals that make content types anew, and with few tables
# to be emptied, cleaning up takes a fraction of the time.
committing = [
    pytest.mark.django_db(transaction=True, available_apps=["reconcile", "sample_project.shop", "tests.zoo"]),
    pytest.mark.usefixtures("few_tables"),
]

RECORDS, CHUNK, CHUNKS = 25, LEAST, 3
"""A chunk of the least size stays at it, however slow the machine is."""


class InChunks:
    """Makes a remedy take few records a chunk."""

    @property
    def chunk(self):
        return CHUNK


class SmallInsert(InChunks, Insert):
    pass


class SmallUpdate(InChunks, Update):
    pass


class SmallDelete(InChunks, Delete):
    pass


@dataclass(kw_only=True)
class Work:
    """A rule, and records that all drift from it."""

    rule: Rule
    drift: object
    model: type[Model]
    verb: str
    make: Callable[[], object]
    before: dict = field(default_factory=dict)

    @property
    def rules(self):
        return {self.rule.name: self.rule}

    def prepare(self):
        self.make()
        if self.verb == "delete":
            found_by_the_night(self.rule)
        self.before = images(self.model)

    def repair(self):
        return runs.repair(self.rules, using="default")

    def resume(self):
        return runs.resume(self.run, self.rules, using="default")

    @property
    def run(self):
        return Run.objects.get(kind="repair")

    @property
    def work_item(self):
        return WorkItem.objects.get(outcome__run=self.run, drift=self.drift)

    def assert_sound(self, *, chunks):
        """Just these chunks are there, each whole: data, journal, cursor, proof and counts say the same."""
        work_item = self.work_item
        outcome = Outcome.objects.get(run=self.run)
        records = min(chunks * CHUNK, RECORDS)
        changes = Change.objects.filter(work_item=work_item)
        proofs = list(Chunk.objects.filter(work_item=work_item).order_by("number"))
        keys = [key for proof in proofs for key in proof.keys]
        made = difference(self.before, images(self.model), written_columns(changes))
        noted = sorted((each.verb, each.key, each.before or {}, each.after or {}) for each in changes)

        assert len(made) == records
        assert noted == made
        assert {verb for verb, *_ in made} <= {self.verb}
        assert (work_item.chunks, written_rows(outcome).total, work_item.quarantined) == (chunks, records, 0)
        assert [proof.number for proof in proofs] == [*range(1, chunks + 1)]
        assert Counter(changes.values_list("chunk", flat=True)) == {
            proof.number: len(proof.keys) for proof in proofs
        }
        assert len(keys) == len({*keys}) == records
        assert work_item.cursor == (str(keys[-1]) if keys else None)
        assert written_rows(outcome)[self.verb] == records

    def assert_whole(self):
        """All is repaired, once, and a further repair finds nothing to write."""
        self.assert_sound(chunks=CHUNKS)
        assert self.run.state == "finished"
        _, (again,) = self.repair()
        assert (again.written.total, again.left, again.why_stopped) == (0, 0, "")


def images(model):
    """Each row of the model as the journal would have it, by key."""
    rows = model._base_manager.annotate(_image=image(model._meta.local_concrete_fields))
    return {str(key): made for key, made in rows.values_list("pk", "_image")}


def written_columns(changes):
    """The columns that updates have in their images."""
    return {
        column for after in changes.filter(verb="update").values_list("after", flat=True) for column in after
    }


def difference(before, after, columns):
    """What happened between two times, row by row: (verb, key, image before, image after)."""

    def part(made):
        return {column: made[column] for column in columns}

    inserted = [("insert", key, {}, after[key]) for key in after.keys() - before.keys()]
    deleted = [("delete", key, before[key], {}) for key in before.keys() - after.keys()]
    updated = [
        ("update", key, part(before[key]), part(after[key]))
        for key in before.keys() & after.keys()
        if before[key] != after[key]
    ]
    return sorted([*inserted, *deleted, *updated])


def invoices():
    """One for each order; unique (guarantee `constraint`)."""
    must = HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})
    rule = Rule(name="invoice", every=Order, must=must, remedies={MISSING: SmallInsert()})
    return Work(
        rule=rule, drift=MISSING, model=Invoice, verb="insert",
        make=lambda: Order.objects.bulk_create([Order(total=3) for _ in range(RECORDS)]),
    )  # fmt: skip


def matches():
    """One for each team, without a unique constraint: the table is locked on PostgreSQL (guarantee `lock`)."""
    must = HaveRow(Match, link={"team": F("pk")})
    rule = Rule(name="match", every=Team, must=must, remedies={MISSING: SmallInsert()})
    return Work(
        rule=rule, drift=MISSING, model=Match, verb="insert",
        make=lambda: Team.objects.bulk_create([Team(name="x") for _ in range(RECORDS)]),
    )  # fmt: skip


def scores():
    """A column that is to equal another."""
    must = HaveValues(score=F("quantity"))
    rule = Rule(name="score", every=Basket, must=must, remedies={STALE: SmallUpdate()})
    return Work(
        rule=rule, drift=STALE, model=Basket, verb="update",
        make=lambda: Basket.objects.bulk_create([Basket(quantity=2, score=7) for _ in range(RECORDS)]),
    )  # fmt: skip


def bills():
    """Rows that are owed for some records only, and are there for others."""
    must = HaveRow(Bill, link={"basket_number": F("pk")})
    every = Basket.objects.filter(changed=True)
    rule = Rule(name="bill", every=every, must=must, remedies={EXTRA: SmallDelete()}, max_deletes=RECORDS)
    return Work(rule=rule, drift=EXTRA, model=Bill, verb="delete", make=_bill_everybody)


def _bill_everybody():
    Basket.objects.bulk_create([Basket() for _ in range(RECORDS)])
    keys = Basket.objects.values_list("pk", flat=True)
    Bill.objects.bulk_create([Bill(basket_number=key) for key in keys])


WORKS = {"insert": invoices, "insert_locked": matches, "update": scores, "delete": bills}
