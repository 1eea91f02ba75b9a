import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import Error, connection, transaction
from django.db.models import F
from django.utils import timezone

from reconcile import EXTRA, AtMost, BeUnique, Delete, HaveRow, Insert, Rule, runs
from reconcile.core.drift import MISSING, STALE
from reconcile.models import Change, Outcome, Run, WorkItem
from reconcile.repair import journal as journal_module
from reconcile.repair.chunk import ChunkExecutor
from reconcile.repair.journal import ChunkJournal
from tests.helpers import (
    Session,
    assert_finds,
    assert_repairs,
    everything,
    found_by_the_night,
    repaired,
    statements,
)
from tests.repair.test_chunk import executor_of, locked_by_another_session
from tests.zoo.models import (
    Aside,
    Badge,
    Basket,
    Bill,
    Car,
    Card,
    Contact,
    Coupon,
    Device,
    Letter,
    Loose,
    Member,
    Memo,
    Page,
    Shy,
    Tag,
    Team,
    Vehicle,
)

pytestmark = pytest.mark.django_db

ALIKE = Rule(name="alike", every=Contact, must=BeUnique("email"), remedies={EXTRA: Delete()})
BILL = Rule(
    name="bill",
    every=Basket,
    must=HaveRow(Bill, link={"basket_number": F("pk")}),
    remedies={EXTRA: Delete(), MISSING: Insert()},
)


def alike(number=2, **values):
    for _ in range(number):
        Contact.objects.create(email="a", **values)
    return list(Contact.objects.filter(email="a").order_by("pk"))


def test_surplus_rows_are_deleted_and_the_first_stays():
    first, _, _ = alike(3)
    other = Contact.objects.create(email="b")
    before = everything()
    assert_repairs(ALIKE, delete=2)
    assert {each.pk for each in Contact.objects.all()} == {first.pk, other.pk}
    after = everything()
    assert {label for label in after if after[label] != before[label]} == {"zoo.Contact"}


def test_a_row_that_nothing_owes_is_deleted_and_one_that_is_owed_stays():
    basket = Basket.objects.create()
    owed = Bill.objects.create(basket_number=basket.pk)
    surplus, unowed = Bill.objects.create(basket_number=basket.pk), Bill.objects.create(basket_number=-7)
    assert_finds(BILL, extra=[surplus, unowed])
    assert_repairs(BILL, delete=2)
    assert Bill.objects.get().pk == owed.pk


def test_the_journal_holds_the_whole_row():
    team = Team.objects.create(name="x")
    _, gone = alike(visits=7, team=team, phone="12")
    assert_repairs(ALIKE, delete=1)
    change = Change.objects.get()
    assert (change.verb, change.model, change.key, change.after) == (
        "delete",
        "zoo.Contact",
        str(gone.pk),
        None,
    )
    assert change.before.keys() == {each.attname for each in Contact._meta.concrete_fields}
    assert (change.before["visits"], change.before["team_id"], change.before["phone"]) == (7, team.pk, "12")


def refer_by_key(contact):
    Letter.objects.create(contact=contact)


def refer_by_second_key(contact):
    Letter.objects.create(contact=Contact.objects.create(email="else"), copy_to=contact)


def refer_by_one_to_one(contact):
    Card.objects.create(contact=contact)


def refer_by_primary_key(contact):
    Member.objects.create(contact=contact)


def refer_by_other_column(contact):
    Contact.objects.filter(pk=contact.pk).update(code="code")
    Coupon.objects.create(contact_id="code")


def refer_by_many_to_many(contact):
    contact.tags.add(Tag.objects.create(name="t"))


def refer_by_many_to_many_to_itself(contact):
    contact.friends.add(Contact.objects.create(email="friend"))


def refer_by_itself(contact):
    Contact.objects.create(email="child", parent=contact)


def refer_by_generic_key(contact):
    Aside.objects.create(kind=ContentType.objects.get_for_model(Contact), target_key=str(contact.pk))


@pytest.mark.parametrize(
    ("refer", "said"),
    [
        (refer_by_key, "zoo.Letter by contact refers to it."),
        (refer_by_second_key, "zoo.Letter by copy_to refers to it."),
        (refer_by_one_to_one, "zoo.Card by contact refers to it."),
        (refer_by_primary_key, "zoo.Member by contact refers to it."),
        (refer_by_other_column, "zoo.Coupon by contact refers to it."),
        (refer_by_many_to_many, "zoo.Contact_tags by contact refers to it."),
        (refer_by_many_to_many_to_itself, "zoo.Contact_friends by"),
        (refer_by_itself, "zoo.Contact by parent refers to it."),
        (refer_by_generic_key, "zoo.Aside by target_key refers to it."),
    ],
)
def test_a_row_that_is_referred_to_is_refused_and_the_others_are_deleted(refer, said):
    first, _, referred, _ = alike(4)
    refer(referred)
    referring = everything()
    result = repaired(ALIKE)
    assert (result.written.delete, result.left, result.skipped) == (2, 1, 1)
    assert f"1 record could not be repaired, {referred.pk}: {said}" in result.why_stopped
    assert [each.pk for each in Contact.objects.filter(email="a").order_by("pk")] == [first.pk, referred.pk]
    after = everything()
    assert {label for label in after if after[label] != referring[label]} == {"zoo.Contact"}


def test_a_reference_to_the_row_that_stays_doesn_t_matter():
    first, _ = alike()
    refer_by_key(first)
    refer_by_generic_key(first)
    assert_repairs(ALIKE, delete=1)


def test_a_row_that_refers_to_itself_is_refused_too_since_innodb_would_not_let_it_go():
    _, stuck = alike()
    Contact.objects.filter(pk=stuck.pk).update(parent=stuck)
    assert "zoo.Contact by parent refers to it." in repaired(ALIKE).why_stopped


def test_a_row_that_refers_to_itself_or_others_by_a_generic_key_may_go():
    first, itself, other, kept = (Memo.objects.create(number=1) for _ in range(4))
    Memo.objects.filter(pk=itself.pk).update(
        content_type=ContentType.objects.get_for_model(Memo), object_id=itself.pk
    )
    Memo.objects.filter(pk=other.pk).update(
        content_type=ContentType.objects.get_for_model(Team), object_id=first.pk
    )
    Memo.objects.create(target=kept)
    result = repaired(Rule(name="m", every=Memo, must=BeUnique("number"), remedies={EXTRA: Delete()}))
    assert (result.written.delete, result.skipped) == (2, 1)
    assert "zoo.Memo by object_id refers to it." in result.why_stopped
    assert {*Memo.objects.filter(number=1)} == {first, kept}


def test_a_loose_reference_without_a_constraint_keeps_no_row():
    _, gone = alike()
    Loose.objects.create(contact=gone)
    assert_repairs(ALIKE, delete=1)
    assert Loose.objects.get().contact_id == gone.pk


def test_a_generic_key_of_another_kind_keeps_no_row():
    _, gone = alike()
    Aside.objects.create(kind=ContentType.objects.get_for_model(Team), target_key=str(gone.pk))
    Aside.objects.create(kind=ContentType.objects.get_for_model(Contact), target_key="no number")
    assert_repairs(ALIKE, delete=1)


def test_no_content_type_is_created():
    alike()
    ContentType.objects.all().delete()
    ContentType.objects.clear_cache()
    assert_repairs(ALIKE, delete=1)
    assert not ContentType.objects.exists()


def test_a_parent_row_whose_child_row_is_in_another_table_is_refused():
    Vehicle.objects.create(wheels=3)
    car = Car.objects.create(wheels=3)
    plain = Vehicle.objects.create(wheels=3)
    result = repaired(Rule(name="v", every=Vehicle, must=BeUnique("wheels"), remedies={EXTRA: Delete()}))
    assert (result.written.delete, result.skipped) == (1, 1)
    assert "zoo.Car by vehicle_ptr refers to it." in result.why_stopped
    assert Car.objects.get().pk == car.pk
    assert not Vehicle.objects.filter(pk=plain.pk).exists()


def test_rows_with_uuid_and_text_keys_are_deleted_or_refused():
    for _ in range(3):
        Device.objects.create(name="x")
    _, referred, _ = Device.objects.order_by("pk")
    Badge.objects.create(device=referred, name="x")
    Aside.objects.create(kind=ContentType.objects.get_for_model(Device), target_key=str(referred.pk))
    devices = Rule(name="d", every=Device, must=BeUnique("name"), remedies={EXTRA: Delete()})
    result = repaired(devices)
    assert (result.written.delete, result.skipped) == (1, 1)
    Badge.objects.all().delete()
    assert "zoo.Aside" in repaired(devices).why_stopped
    for code in "abc":
        Page.objects.create(code=code)
    Aside.objects.create(kind=ContentType.objects.get_for_model(Page), target_key="b")
    pages = Rule(name="p", every=Page, must=BeUnique("visits"), remedies={EXTRA: Delete()})
    result = repaired(pages)
    assert (result.written.delete, result.skipped) == (1, 1)
    assert "b: zoo.Aside" in result.why_stopped


def test_a_row_that_the_default_manager_hides_is_deleted():
    Shy._base_manager.create(value=1)
    Shy._base_manager.create(value=1, visible=False)
    assert_repairs(Rule(name="s", every=Shy, must=BeUnique("value"), remedies={EXTRA: Delete()}), delete=1)


def test_only_surplus_goes_where_at_most_so_many_rows_are_asked_for():
    most = Rule(
        name="m",
        every=Basket,
        must=HaveRow(Bill, link={"basket_number": F("pk")}, count=AtMost(1)),
        remedies={EXTRA: Delete()},
    )
    basket = Basket.objects.create()
    for number in (basket.pk, basket.pk, basket.pk, -1):
        Bill.objects.create(basket_number=number)
    assert_repairs(most, delete=2)


def test_a_row_that_was_mended_after_the_check_stays():
    _, second = alike()
    chunks, _ = chunks_for(ALIKE)
    Contact.objects.filter(pk=second.pk).update(email="b")
    assert chunks.execute([second.pk]) == 0
    assert (Contact.objects.count(), chunks.quarantine.failures, chunks.quarantine.to_retry) == (2, {}, [])


def test_a_cap_is_held_on_deleted_rows():
    alike(5)
    result = repaired(ALIKE, max_repairs=3)
    assert result.why_stopped.startswith("4 repairs are planned, and the cap is 3")
    assert Contact.objects.count() == 5


def test_the_statements_are_as_many_for_10_as_for_1000_rows():
    def sent(number):
        Contact.objects.bulk_create([Contact(email="a") for _ in range(number)])
        with statements() as captured:
            assert repaired(ALIKE, max_deletes="100%").written.delete in {number, number - 1}
        return len(captured)

    # A slow machine gives a sign of life between, or takes smaller chunks; a statement for each record would be hundreds.
    few = sent(10)
    assert sent(1000) - few < 30


@pytest.mark.parametrize("drift", [MISSING, STALE])
def test_what_is_missing_or_stale_can_t_be_deleted(drift):
    (fault,) = Delete().faults(drift, None)
    assert (fault.id, fault.message) == ("reconcile.E012", f"Delete() does not mend {drift} drift.")
    assert list(Delete().faults(EXTRA, None)) == []


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("deletes", [True, False], ids=["deletes", "moves"])
def test_surplus_stays_while_another_session_takes_the_first_away(deletes):
    basket, free = Basket.objects.create(), Basket.objects.create()
    for each in (basket, free):
        Bill.objects.create(basket_number=each.pk), Bill.objects.create(basket_number=each.pk)
    first = Bill.objects.filter(pk=Bill.objects.filter(basket_number=basket.pk).order_by("pk").first().pk)
    with in_flight(first.delete if deletes else lambda: first.update(basket_number=None)) as handler:
        repairer = Session(lambda: repaired(BILL))
        repairer.start()
        result = repairer.join()
    handler.join()
    assert (result.written.delete, result.left, result.skipped) == (1, 1, 1)
    assert "other sessions hold these records" in result.why_stopped
    assert Bill.objects.filter(basket_number=basket.pk).count() == 1
    assert repaired(BILL).left == 0
    assert Bill.objects.filter(basket_number__in=[basket.pk, free.pk]).count() == 2


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_row_whose_survivor_another_session_holds_is_left_for_later():
    first, *_ = alike(3)
    with locked_by_another_session(Contact.objects.filter(pk=first.pk)):
        result = repaired(ALIKE)
    assert (result.written.delete, result.left, result.skipped) == (0, 2, 2)
    assert_repairs(ALIKE, delete=2)


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_two_repairs_at_once_delete_each_row_once():
    Contact.objects.bulk_create([Contact(email=f"{number % 100}") for number in range(400)])
    found_by_the_night(ALIKE)
    rules = {ALIKE.name: replace(ALIKE, max_deletes=None)}
    sessions = [Session(lambda: runs.repair(rules, using="default")[1][0]) for _ in range(2)]
    for session in sessions:
        session.start()
    results = [session.join() for session in sessions]
    assert sum(result.written.delete for result in results) == Change.objects.count() == 300
    assert Contact.objects.count() == 100


def chunks_for(rule, kind=ChunkExecutor):
    run = Run.objects.create(kind="repair", now=timezone.now())
    outcome = Outcome.objects.create(run=run, rule=rule.name, position=0, state="repairing")
    work_item = WorkItem.objects.create(outcome=outcome, drift="extra", token=run.pk)
    finder = next(each for each in rule.compile(using="default", now=run.now).finders if each.drift is EXTRA)
    return executor_of(rule, finder, rule.remedy(EXTRA), work_item, kind)


class Interrupted(ChunkExecutor):
    """A chunk of which each journal entry of a deletion is preceded by something that another session does."""

    def meanwhile(self):
        raise NotImplementedError

    def _journal(self, tried):
        outer, journal = self, super()._journal(tried)

        class Meanwhile(ChunkJournal):
            def record_deletes(self, model, rows, **verb):
                outer.meanwhile()
                return super().record_deletes(model, rows, **verb)

        return Meanwhile(work_item=journal.work_item, chunk=journal.chunk, using=journal.using)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_reference_that_is_committed_between_lock_and_delete_is_seen_at_the_next_try():
    """On MariaDB the handler's insert waits for the locked row, so there is no such moment."""
    _, second, third = alike(3)
    done = []

    class Meddled(Interrupted):
        def meanwhile(self):
            if not done:
                done.append(Session(lambda: Letter.objects.create(contact_id=second.pk)))
                done[0].start()
                done[0].join()

    chunks, paused = chunks_for(ALIKE, Meddled)
    assert chunks.execute([second.pk, third.pk]) == 1
    assert len(paused) == 1
    assert chunks.quarantine.failures == {
        second.pk: "zoo.Letter by contact refers to it. Delete that first, or leave this one."
    }
    assert Letter.objects.get().contact_id == second.pk
    assert Change.objects.get().key == str(third.pk)


@contextmanager
def in_flight(act):
    """A handler that has acted and not committed yet."""
    acted, go_on = threading.Event(), threading.Event()

    def handler():
        with transaction.atomic():
            act()
            acted.set()
            assert go_on.wait(30)

    session = Session(handler)
    session.start()
    assert acted.wait(30)
    yield session
    go_on.set()


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_no_row_is_left_that_refers_to_a_deleted_one_by_a_handler_in_flight():
    """On MariaDB the handler's lock makes the repair skip the row. On PostgreSQL its key is checked at COMMIT, and fails."""
    _, second = alike()
    with in_flight(lambda: Letter.objects.create(contact_id=second.pk)) as session:
        result = repaired(ALIKE)
    if connection.vendor == "mysql":
        session.join()
        assert (result.written.delete, result.skipped) == (0, 1)
    else:
        with pytest.raises(Exception, match="violates foreign key"):
            session.join()
        assert result.written.delete == 1
    assert (
        Letter.objects.filter(contact_id=second.pk).exists() is Contact.objects.filter(pk=second.pk).exists()
    )


@contextmanager
def cascading():
    """The letters' foreign key as Django makes it for DB_CASCADE: the database deletes them along with their contact."""
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, "zoo_letter")
        name = next(
            key for key, each in found.items() if each["foreign_key"] and each["columns"] == ["contact_id"]
        )
        deferred = " DEFERRABLE INITIALLY DEFERRED" if connection.vendor == "postgresql" else ""
        kind = "CONSTRAINT" if connection.vendor == "postgresql" else "FOREIGN KEY"

        def make(action):
            cursor.execute(f"ALTER TABLE zoo_letter DROP {kind} {name}")
            cursor.execute(
                f"ALTER TABLE zoo_letter ADD CONSTRAINT {name} FOREIGN KEY (contact_id) REFERENCES zoo_contact (id) "
                f"{action}{deferred}"
            )

        make("ON DELETE CASCADE")
        try:
            yield
        finally:
            Letter.objects.all().delete()
            make("")


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_what_the_database_would_delete_along_keeps_its_row():
    _, second, third = alike(3)
    with cascading():
        Letter.objects.create(contact_id=second.pk)
        result = repaired(ALIKE)
        assert (result.written.delete, result.skipped) == (1, 1)
        assert "zoo.Letter by contact refers to it" in result.why_stopped
        assert Letter.objects.count() == 1
    assert not Contact.objects.filter(pk=third.pk).exists()


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("undoing", [False, True], ids=["a repair", "an undo"])
def test_a_row_that_refers_to_one_deleted_just_then_is_never_lost_without_a_word(undoing, monkeypatch):
    first, second = alike()
    run = None
    if undoing:
        Contact.objects.filter(email="a").delete()
        bill = Rule(name="card", every=Device, must=HaveRow(Contact, link={"email": F("name")}))
        Device.objects.create(name="a")
        run, _ = runs.repair({"card": bill}, using="default")
        second = Contact.objects.get()
    sessions = []
    delete = journal_module.ChunkJournal.record_deletes

    def meanwhile(self, model, rows, **verb):
        if model is Contact and not sessions:
            sessions.append(Session(lambda: Letter.objects.create(contact_id=second.pk)))
            sessions[0].start()
            threading.Thread.join(sessions[0], 1.0)
        return delete(self, model, rows, **verb)

    monkeypatch.setattr(journal_module.ChunkJournal, "record_deletes", meanwhile)
    with cascading():
        if undoing:
            runs.undo(run, using="default")
        else:
            repaired(ALIKE)
        (session,) = sessions
        try:
            session.join()
            told = False
        except Error:
            told = True
        assert told is not Letter.objects.filter(contact_id=second.pk).exists()
        assert not told or not Contact.objects.filter(pk=second.pk).exists()
    assert first
