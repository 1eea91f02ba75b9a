import contextlib
import functools

import pytest
from django.db import DatabaseError, IntegrityError, OperationalError, connection, transaction
from django.db.models import F, Q

from reconcile import EXTRA, MISSING, STALE, Call, HaveRow, HaveValues, Rule, Satisfy
from reconcile.models import Change
from sample_project.shop.models import Item, PendingCharge
from sample_project.shop.services import archive_items
from tests.helpers import Session, assert_finds, assert_repairs, everything, repaired, statements, unaddressed
from tests.remedies.chunks import between_fence_and_cursor
from tests.repair.test_chunk import locked_by_another_session
from tests.zoo.models import (
    Badge,
    Device,
    Lorry,
    Page,
    Parcel,
    ParcelProxy,
    Shy,
    Stamp,
    Team,
    Trailer,
    Vehicle,
)

OWED = HaveRow(Stamp, link={"parcel": F("pk")})


def rule(function, *, must=OWED, drift=MISSING, every=Parcel, **options):
    return Rule(name="called", every=every, must=must, remedies={drift: Call(function, **options)})


def faults(*arguments, **options):
    return [
        str(each)
        for each in Rule(
            name="r", every=Parcel, must=OWED, remedies={MISSING: Call(*arguments, **options)}
        ).faults()
    ]


def parcels(number, **values):
    Parcel.objects.bulk_create([Parcel(**values) for _ in range(number)])
    return list(Parcel.objects.order_by("pk"))


def stamp(records):
    Stamp.objects.bulk_create([Stamp(parcel=each) for each in records])


class Recorder:
    """A service function that remembers what it was given."""

    def __init__(self, then=stamp):
        self.calls, self.then = [], then

    def __call__(self, records):
        self.calls.append([each.pk for each in records])
        self.then(records)


pytestmark = pytest.mark.django_db


def test_the_function_gets_the_records_that_lack_something_in_key_order():
    made = parcels(4)
    stamp(made[1:2])
    seen = []

    def service(records):
        assert connection.in_atomic_block
        seen.extend(records)
        stamp(records)

    assert_repairs(rule(service), called=3)
    assert seen == [made[0], made[2], made[3]]
    assert {each._state.db for each in seen} == {"default"}


def test_where_nothing_drifts_the_function_is_not_called():
    stamp(parcels(2))
    recorder = Recorder()
    assert_repairs(rule(recorder))
    assert recorder.calls == []


def test_a_service_of_the_shop_archives_what_its_signal_missed():
    wrong, right = (Item.objects.create(status="archived", on_sale_since=None) for _ in range(2))
    PendingCharge.objects.create(item=wrong), PendingCharge.objects.create(item=right, status="charged")
    Item.objects.filter(pk=wrong.pk).update(on_sale_since="2026-01-01T00:00Z")
    archived = rule(
        archive_items,
        must=HaveValues(on_sale_since=None),
        drift=STALE,
        every=Item.objects.filter(status="archived"),
    )
    assert_finds(archived, stale=[wrong])
    assert_repairs(archived, called=1)
    assert list(PendingCharge.objects.order_by("pk").values_list("status", flat=True)) == [
        "cancelled",
        "charged",
    ]


def test_stale_records_are_handed_over_too():
    wrong, _right = Parcel.objects.create(label="A"), Parcel.objects.create(label="a")

    def relabel(records):
        for each in records:
            each.label = "a"
        Parcel.objects.bulk_update(records, ["label"])

    assert_repairs(rule(relabel, must=HaveValues(label="a"), drift=STALE), called=1)
    change = Change.objects.get()
    assert (change.verb, change.model, change.key) == ("called", "zoo.Parcel", str(wrong.pk))
    assert (change.before, change.after) == (None, None)


def test_extra_rows_are_handed_over_themselves():
    (parcel,) = parcels(1)
    kept, surplus = (Stamp.objects.create(parcel=parcel) for _ in range(2))
    seen = []

    def remove(rows):
        seen.extend(rows)
        Stamp.objects.filter(pk__in=[each.pk for each in rows]).delete()

    assert_repairs(rule(remove, drift=EXTRA), called=1)
    assert seen == [surplus]
    assert Stamp.objects.get() == kept
    assert Change.objects.get().model == "zoo.Stamp"


def test_a_record_that_was_mended_meanwhile_is_not_handed_over():
    made = parcels(3)
    recorder = Recorder()

    def stamps_the_next_too(records):
        recorder(records)
        if records[0] == made[0]:
            stamp(made[1:2])

    result = repaired(rule(stamps_the_next_too, batch=1))
    assert recorder.calls == [[made[0].pk], [made[2].pk]]
    assert (result.written.called, result.left) == (2, 0)


def test_a_batch_is_one_call_and_one_transaction():
    made = parcels(5)
    recorder = Recorder()
    assert_repairs(rule(recorder, batch=2), called=5)
    keys = [each.pk for each in made]
    assert recorder.calls == [keys[:2], keys[2:4], keys[4:]]


def test_other_rows_stay_untouched():
    stamp(parcels(2))
    Parcel.objects.create(label="lonely")
    before = everything()
    assert_repairs(rule(stamp), called=1)
    after = everything()
    assert {label for label in after if after[label] != before[label]} == {"zoo.Stamp"}
    assert {*before["zoo.Stamp"]} < {*after["zoo.Stamp"]}


def test_a_record_that_makes_the_function_fail_is_set_aside_with_what_it_said():
    made = parcels(7)

    def picky(records):
        stamp(records)
        if made[3] in records:
            raise ValueError("no such depot")

    result = repaired(rule(picky))
    assert (result.written.called, result.left, result.skipped) == (6, 1, 1)
    assert f"{made[3].pk}: picky: ValueError: no such depot" in result.why_stopped
    assert not Stamp.objects.filter(parcel=made[3]).exists()
    assert Change.objects.count() == 6


def test_an_exception_without_a_text_is_named():
    parcels(1)

    def mute(records):
        raise LookupError

    assert repaired(rule(mute)).why_stopped.endswith("mute: LookupError")


def test_what_the_function_left_drifting_is_rolled_back():
    made = parcels(3)
    result = repaired(rule(lambda records: stamp(records[:1] if made[2] not in records else [])))
    assert result.left == 1
    assert f"zoo.Parcel {made[2].pk} is still missing after the repair" in result.why_stopped
    assert Stamp.objects.count() == Change.objects.count() == 2


def test_a_durable_function_says_what_to_do():
    parcels(1)

    @transaction.atomic(durable=True)
    def durable(records):
        stamp(records)

    result = repaired(rule(durable))
    assert (result.written.total, result.skipped) == (0, 1)
    assert "durable: RuntimeError: A durable atomic block" in result.why_stopped
    assert "take durable=True away, or call what is inside" in result.why_stopped


def test_a_refused_row_is_set_aside_under_the_function_s_name():
    good, bad = parcels(2)

    def badge(records):
        Stamp.objects.bulk_create(
            [Stamp(parcel=each) if each == good else Stamp(parcel_id=None) for each in records]
        )

    result = repaired(rule(badge))
    assert (result.written.called, result.skipped) == (1, 1)
    assert f"{bad.pk}: badge: IntegrityError" in result.why_stopped


def test_an_error_of_the_database_that_the_function_swallows_is_not_committed():
    good, bad = parcels(2)

    def careless(records):
        stamp(records)
        if bad in records:
            with contextlib.suppress(DatabaseError):
                Stamp().save()

    result = repaired(rule(careless))
    assert (result.written.called, result.skipped) == (1, 1)
    assert "careless: it has caught an error of the database and gone on" in result.why_stopped
    assert Stamp.objects.get().parcel == good


def test_an_error_that_the_function_contains_is_its_own_affair():
    parcels(2)

    def careful(records):
        try:
            with transaction.atomic():
                Stamp().save()
        except IntegrityError:
            stamp(records)

    assert_repairs(rule(careful), called=2)


def test_a_transient_error_is_tried_again():
    parcels(2)
    failed = []

    def unlucky(records):
        if not failed:
            failed.append(records)
            raise_transient()
        stamp(records)

    assert_repairs(rule(unlucky), called=2)
    assert len(failed) == 1


def raise_transient():
    if connection.vendor == "sqlite":
        raise OperationalError("database is locked")
    if connection.vendor == "mysql":
        raise OperationalError(1213, "Deadlock found when trying to get lock")
    from psycopg.errors import DeadlockDetected

    raise OperationalError("deadlock detected") from DeadlockDetected()


def test_an_async_function_takes_part_in_the_transaction():
    made = parcels(3)

    async def service(records):
        for each in records:
            await Stamp.objects.acreate(parcel=each)
        if made[1] in records:
            raise ValueError("no")

    result = repaired(rule(service))
    assert (result.written.called, result.left, result.skipped) == (2, 1, 1)
    assert "service: ValueError: no" in result.why_stopped
    assert {each.parcel for each in Stamp.objects.all()} == {made[0], made[2]}


def test_arguments_can_be_bound():
    parcels(1)

    def named(records, *, count):
        stamp(records * count)

    bound = Rule(
        name="r",
        every=Parcel,
        must=HaveRow(Stamp, link={"parcel": F("pk")}, count=2),
        remedies={MISSING: Call(functools.partial(named, count=2))},
    )
    assert list(bound.faults()) == []
    assert_repairs(bound, called=1)


@pytest.mark.django_db(transaction=True)
def test_what_waits_for_the_commit_runs_once_and_only_for_what_was_committed():
    made = parcels(3)
    sent = []

    def service(records):
        stamp(records)
        keys = [each.pk for each in records]
        transaction.on_commit(lambda: sent.extend(keys))
        if made[0] in records:
            raise ValueError("no")

    repaired(rule(service))
    assert sorted(sent) == [made[1].pk, made[2].pk]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "error", [ZeroDivisionError, IntegrityError, OperationalError], ids=lambda each: each.__name__
)
def test_what_fails_after_the_commit_ends_the_rule_and_leaves_the_data(error):
    parcels(2)

    def fail():
        raise error("database is locked")

    def service(records):
        stamp(records)
        transaction.on_commit(fail)

    result = repaired(rule(service))
    assert f"{error.__name__}: database is locked" in result.why_stopped
    assert result.incomplete
    assert (Stamp.objects.count(), Change.objects.count()) == (2, 2)


def test_records_that_the_default_manager_hides_are_handed_over():
    hidden = Shy._base_manager.create(visible=False, value=1)
    recorder = Recorder(
        lambda records: Shy._base_manager.filter(pk__in=[each.pk for each in records]).update(value=2)
    )
    assert_repairs(rule(recorder, must=HaveValues(value=2), drift=STALE, every=Shy), called=1)
    assert recorder.calls == [[hidden.pk]]


def test_a_text_key_and_a_uuid_key():
    Page.objects.create(code="a "), Page.objects.create(code="b")
    visited = Recorder(lambda pages: Page.objects.filter(pk__in=[each.pk for each in pages]).update(visits=1))
    assert_repairs(rule(visited, must=HaveValues(visits=1), drift=STALE, every=Page), called=2)
    devices = [Device.objects.create(name=name) for name in "abc"]
    badged = Recorder(lambda records: [Badge.objects.create(device=each, name="") for each in records])
    owing = HaveRow(Badge, link={"device": F("pk")}, values={"name": ""})
    assert_repairs(rule(badged, must=owing, every=Device), called=3)
    assert sorted(badged.calls[0]) == sorted(each.pk for each in devices)


def test_records_of_a_proxy_are_of_the_proxy():
    parcels(1)
    seen = []

    def service(records):
        seen.extend(map(type, records))
        stamp(records)

    assert_repairs(rule(service, every=ParcelProxy), called=1)
    assert seen == [ParcelProxy]


@pytest.mark.parametrize("number", [10, 1_000])
def test_it_costs_the_same_number_of_statements(number):
    parcels(number, state="odd")
    update = Recorder(lambda records: Parcel.objects.filter(state="odd").update(state="open"))
    opened = rule(update, must=Satisfy(Q(state="open")), drift=STALE, batch=5_000)
    with statements() as sent:
        assert repaired(opened).written.called == number
    # Lock, what drifts still, the records, the journal, the function's own, the verification.
    assert len(between_fence_and_cursor(sent)) == 6


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("holder", [Vehicle, Lorry, Trailer], ids=lambda each: each.__name__)
def test_a_record_of_which_another_session_holds_a_parent_s_row_is_not_handed_over(holder):
    held, free = Trailer.objects.create(axles=3), Trailer.objects.create(axles=3)
    recorder = Recorder(
        lambda rows: Trailer.objects.filter(pk__in=[each.pk for each in rows]).update(axles=2)
    )
    called = rule(recorder, must=HaveValues(axles=2), drift=STALE, every=Trailer)
    with locked_by_another_session(
        holder.objects.non_polymorphic() if False else holder.objects.filter(pk=held.pk)
    ):
        session = Session(lambda: repaired(called))
        session.start()
        assert session.join().written.called == 1
    assert recorder.calls == [[free.pk]]
    assert_repairs(called, called=1)


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_record_that_another_session_holds_is_not_handed_over():
    held, free = parcels(2)
    recorder = Recorder()
    with locked_by_another_session(Parcel.objects.filter(pk=held.pk)):
        session = Session(lambda: repaired(rule(recorder)))
        session.start()
        assert session.join().written.called == 1
    assert recorder.calls == [[free.pk]]
    assert_repairs(rule(recorder), called=1)


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_records_are_read_after_the_lock():
    made = parcels(2, weight=1)
    weights = []

    def service(records):
        weights.extend(each.weight for each in records)
        if records[0] == made[0]:
            # The check has found both; the second is written before its own chunk begins.
            live = Session(lambda: Parcel.objects.filter(pk=made[1].pk).update(weight=2))
            live.start()
            live.join()
        stamp(records)

    assert_repairs(rule(service, batch=1), called=2)
    assert weights == [1, 2]


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_lock_that_the_function_waits_for_yields_to_the_live_session():
    (parcel,) = parcels(1)
    team = Team.objects.create(name="busy")

    def service(records):
        stamp(records)
        Team.objects.filter(pk=team.pk).update(points=F("points") + 1)

    with locked_by_another_session(Team.objects.filter(pk=team.pk)):
        session = Session(lambda: repaired(rule(service)))
        session.start()
        result = session.join()
    assert (result.written.total, result.skipped) == (0, 1)
    assert not Stamp.objects.filter(parcel=parcel).exists()
    assert_repairs(rule(service), called=1)


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((None,), {}, "Call: function= is None. Give a function that takes a list of records."),
        (("archive",), {}, "Call: function= is 'archive'."),
        ((lambda: None,), {}, "can't be called with one list of records."),
        ((lambda records, depot: None,), {}, "functools.partial binds the rest."),
        ((lambda *, records: None,), {}, "can't be called with one list of records."),
        ((stamp,), {"batch": 0}, "Call: batch= is 0. Give a number of records, 1 or more."),
        ((stamp,), {"batch": "all"}, "Call: batch= is 'all'."),
        ((stamp,), {"batch": True}, "Call: batch= is True."),
    ],
    ids=unaddressed,
)  # fmt: skip
def test_each_fault_says_what_and_the_way_out(arguments, options, said):
    found = faults(*arguments, **options)
    assert len(found) == 1, found
    assert said in found[0]


def test_a_good_call_has_no_fault():
    assert faults(stamp) == faults(Recorder(), batch=1) == faults(lambda records, depot=None: None) == []
