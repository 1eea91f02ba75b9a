from contextlib import contextmanager
from decimal import Decimal

import django
import pytest
from django.contrib.auth.models import User
from django.db.models import F, Q, Value
from django.db.models.functions import Concat
from django.db.models.signals import (
    class_prepared,
    m2m_changed,
    post_delete,
    post_migrate,
    post_save,
    pre_delete,
    pre_save,
)

from reconcile import EXTRA, MISSING, STALE, HaveRow, HaveValues, Resend, Rule, Satisfy
from reconcile.models import Change
from sample_project.shop import signals
from sample_project.shop.models import Access, Article, Customer, Group, Invoice, Notification, Order
from sample_project.shop.services import slug_of
from tests.helpers import assert_finds, assert_repairs, everything, repaired, statements, unaddressed
from tests.zoo.models import Badge, Car, Device, Page, Parcel, ParcelProxy, Shy, Stamp, Team

pytestmark = pytest.mark.django_db

OWED = HaveRow(Stamp, link={"parcel": F("pk")})
OPEN = Satisfy(Q(state="open"))


def rule(receiver, *, must=OWED, drift=MISSING, every=Parcel, **options):
    return Rule(name="resent", every=every, must=must, remedies={drift: Resend(receiver, **options)})


def faults(receiver=None, *, drift=MISSING, must=OWED, every=Parcel, **options):
    return [str(each) for each in rule(receiver, drift=drift, must=must, every=every, **options).faults()]


@contextmanager
def connected(receiver, *signals_of_models, sender=Parcel, **options):
    for signal in signals_of_models or (post_save,):
        signal.connect(receiver, sender=sender, **options)
    try:
        yield receiver
    finally:
        for signal in signals_of_models or (post_save,):
            signal.disconnect(receiver, sender=sender, dispatch_uid=options.get("dispatch_uid"))


def stamper():
    """A new receiver that gives the parcel its stamp, and remembers what it was sent."""

    def handle(**sent):
        if not isinstance(sent["instance"], Parcel):
            return
        handle.sent.append(sent)
        Stamp.objects.create(parcel=sent["instance"])

    handle.sent = []
    return handle


def parcels(number, **values):
    Parcel.objects.bulk_create([Parcel(**values) for _ in range(number)])
    return list(Parcel.objects.order_by("pk"))


def test_the_receiver_is_called_once_for_each_record_that_it_missed():
    made = parcels(3)
    Stamp.objects.create(parcel=made[1])
    with connected(stamper()) as handle:
        assert_repairs(rule(handle), called=2)
    assert [each["instance"] for each in handle.sent] == [made[0], made[2]]


def test_where_nothing_drifts_no_receiver_is_called():
    Stamp.objects.create(parcel=parcels(1)[0])
    with connected(stamper()) as handle:
        assert_repairs(rule(handle))
    assert handle.sent == []


def as_django_sends(signal, act, model=Parcel):
    seen = []

    def listen(**sent):
        seen.append(sent)

    with connected(listen, signal, sender=model):
        act()
    return seen


@pytest.mark.parametrize("created", [True, False])
def test_post_save_is_sent_as_django_sends_it(created):
    made = Parcel.objects.create()
    (real,) = as_django_sends(post_save, Parcel().save if created else made.save)
    Parcel.objects.exclude(pk=made.pk).delete()
    with connected(stamper()) as handle:
        assert_repairs(rule(handle, **({} if created else {"created": False})), called=1)
    assert handle.sent == [{**real, "instance": made}]


def test_pre_save_is_sent_as_django_sends_it():
    made = Parcel.objects.create(state="odd")
    (real,) = as_django_sends(pre_save, made.save)
    seen = []

    def handle(*, instance, **sent):
        seen.append({**sent, "instance": instance})
        instance.state = "open"

    with connected(handle, pre_save):
        assert_repairs(rule(handle, must=OPEN, drift=STALE), update=1)
    assert seen == [real]


def test_m2m_changed_is_sent_as_django_sends_it():
    parcel, other = Parcel.objects.create(), Parcel.objects.create()
    badges = [Badge.objects.create(device=Device.objects.create(name=name), name=name) for name in "ab"]
    through = Parcel.badges.through
    sent = as_django_sends(m2m_changed, lambda: parcel.badges.add(badges[0]), through)
    real = next(each for each in sent if each["action"] == "post_add")
    through.objects.all().delete()
    through.objects.bulk_create(
        [through(parcel=parcel, badge=badges[0]), through(parcel=other, badge=badges[1])]
    )
    seen = []

    def handle(*, instance, pk_set, **more):
        seen.append({**more, "instance": instance, "pk_set": pk_set})
        Badge.objects.filter(pk__in=pk_set).update(name="given")

    given = Satisfy(Q(badge__name="given"))
    with connected(handle, m2m_changed, sender=through):
        assert_repairs(rule(handle, must=given, drift=STALE, every=through), called=2)
    assert seen[0] == real
    assert [(each["instance"], each["pk_set"]) for each in seen] == [
        (parcel, {badges[0].pk}),
        (other, {badges[1].pk}),
    ]
    assert set(real) == {
        "signal", "sender", "instance", "action", "reverse", "model", "pk_set", "using",
        *(["raw"] if django.VERSION >= (6, 1) else []),
    }  # fmt: skip


def test_the_shop_s_receiver_gives_orders_what_bulk_create_skipped():
    orders = Order.objects.bulk_create([Order(total=3), Order(status="draft"), Order(total=5)])
    owed = rule(
        signals.handle_order_created,
        must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")}),
        every=Order.objects.exclude(status="draft"),
    )
    assert list(owed.faults()) == []
    assert_repairs(owed, called=2)
    assert [Invoice.objects.count(), Notification.objects.count()] == [2, 2]
    assert len(orders) == 3


def test_the_shop_s_pre_save_receiver_normalises_slugs():
    Article.objects.bulk_create([Article(title="One Two"), Article(title="three", slug="three")])
    assert slug_of("One Two") == "one-two"
    slugs = rule(signals.handle_article_saving, must=Satisfy(~Q(slug="")), drift=STALE, every=Article)
    assert_repairs(slugs, update=1)
    change = Change.objects.get()
    assert (change.verb, change.before, change.after) == ("update", {"slug": ""}, {"slug": "one-two"})


def test_the_shop_s_m2m_receiver_grants_access():
    group, user = Group.objects.create(name="g"), User.objects.create(username="u")
    through = Group.members.through
    through.objects.bulk_create([through(group=group, user=user)])
    access = HaveRow(Access, link={"user": F("user"), "group": F("group")})
    assert_repairs(rule(signals.handle_members_changed, must=access, every=through), called=1)
    group.refresh_from_db()
    assert (Access.objects.count(), group.member_count) == (1, 1)


def test_no_other_receiver_runs():
    parcels(1)
    others = []

    def other(**sent):
        others.append(sent)

    with connected(stamper()) as handle, connected(other), connected(other, sender=Stamp):
        assert_repairs(rule(handle), called=1)
    # The stamp is the receiver's own write, and has receivers of its own.
    assert [each["sender"] for each in others] == [Stamp]


def test_the_first_signal_is_meant_where_the_receiver_is_connected_to_several():
    parcels(1)
    with connected(stamper(), pre_save, post_save, post_delete) as handle:
        assert_repairs(rule(handle), called=1)
        assert handle.sent[0]["signal"] is post_save


def test_another_signal_can_be_named():
    Parcel.objects.create(state="odd")

    def handle(*, instance, signal, **_):
        assert signal is pre_save
        instance.state = "open"

    with connected(handle, pre_save, post_save):
        assert_repairs(rule(handle, must=OPEN, drift=STALE, signal=pre_save), update=1)


class Handler:
    def stamp(self, *, instance, **_):
        Stamp.objects.create(parcel=instance)


def test_a_receiver_is_known_however_it_was_connected():
    handler = Handler()
    ways = [
        (stamper(), {"weak": False}),
        (stamper(), {"dispatch_uid": "once"}),
        (stamper(), {"sender": None}),
        (stamper(), {"sender": "zoo.Parcel"}),
        (handler.stamp, {}),
    ]
    for receiver, options in ways:
        Parcel.objects.all().delete()
        parcels(1)
        with connected(receiver, **options):
            assert faults(receiver) == []
            assert_repairs(rule(receiver), called=1)


def test_an_async_receiver_is_waited_for():
    parcels(2)

    async def handle(*, instance, **_):
        await Stamp.objects.acreate(parcel=instance)

    with connected(handle):
        assert_repairs(rule(handle), called=2)


def test_a_record_that_makes_the_receiver_fail_is_set_aside():
    made = parcels(5)

    def handle(*, instance, **_):
        Stamp.objects.create(parcel=instance)
        if instance == made[2]:
            raise ValueError("no depot")

    with connected(handle):
        result = repaired(rule(handle))
    assert (result.written.called, result.left, result.skipped) == (4, 1, 1)
    assert f"{made[2].pk}: handle: ValueError: no depot" in result.why_stopped
    assert Stamp.objects.count() == Change.objects.count() == 4


def test_a_receiver_that_does_not_mend_is_rolled_back():
    parcels(1)

    def handle(*, instance, created, **_):
        if not created:
            Stamp.objects.create(parcel=instance)

    with connected(handle):
        result = repaired(rule(handle))
        assert (result.written.total, result.left, result.skipped) == (0, 1, 1)
        assert_repairs(rule(handle, created=False), called=1)


def test_pre_save_writes_only_what_the_receiver_changed():
    same = Parcel.objects.create(state="odd", label="x", price="1.50", weight=1, extra={"a": 1})
    more = Parcel.objects.create(state="odd", label="y", price="1.50", weight=2, extra={"a": 1})

    def handle(*, instance, **_):
        instance.state = "open"
        instance.price = "1.50"
        instance.label = str(instance.label)
        if instance == more:
            instance.price = Decimal("2.5")
            instance.extra["a"] = 2
            instance.weight = F("weight") + 1
        Parcel.objects.filter(pk=instance.pk).update(label="meanwhile")

    with connected(handle, pre_save):
        assert_repairs(rule(handle, must=OPEN, drift=STALE), update=2)
    first, second = Change.objects.order_by("pk")
    assert (first.key, first.before, first.after) == (str(same.pk), {"state": "odd"}, {"state": "open"})
    assert (set(second.before), second.after["weight"]) == ({"state", "price", "extra", "weight"}, 3)
    more.refresh_from_db()
    assert (more.state, more.price, more.extra, more.weight) == ("open", Decimal("2.5"), {"a": 2}, 3)
    assert more.label == "meanwhile"


def test_pre_save_does_not_save():
    Parcel.objects.create(state="odd")
    saved = []

    def handle(*, instance, **_):
        instance.state = "open"

    def listen(**sent):
        saved.append(sent)

    with connected(handle, pre_save), connected(listen, post_save, pre_save):
        assert_repairs(rule(handle, must=OPEN, drift=STALE), update=1)
    assert saved == []


def test_pre_save_that_changes_nothing_leaves_the_record():
    Parcel.objects.create(state="odd")

    def handle(**_):
        """Changes nothing."""

    with connected(handle, pre_save):
        result = repaired(rule(handle, must=OPEN, drift=STALE))
    assert (result.written.total, result.left, result.skipped) == (0, 1, 1)


@pytest.mark.parametrize(
    ("every", "column", "said"),
    [
        (Parcel, "pk", "it has changed the primary key from"),
        (Car, "wheels", "it has changed 'wheels', which is stored in a parent's table"),
        (Parcel, "price", "ValidationError"),
    ],
)
def test_pre_save_that_changes_what_cannot_be_written_is_set_aside(every, column, said):
    record = every.objects.create()

    def handle(*, instance, **_):
        setattr(instance, column, "cheap" if column == "price" else 77)

    with connected(handle, pre_save, sender=every):
        result = repaired(rule(handle, must=Satisfy(Q(pk__lt=0)), drift=STALE, every=every))
    assert (result.written.total, result.skipped) == (0, 1)
    assert f"{record.pk}: handle: " in result.why_stopped
    assert said in result.why_stopped


def test_the_plan_counts_calls_and_updates():
    parcels(2, state="odd")

    def handle(**_):
        """Does nothing."""

    with connected(handle, pre_save, post_save):
        for signal, verb in ((post_save, "called"), (pre_save, "update")):
            plan = repaired(rule(handle, must=OPEN, drift=STALE, signal=signal)).planned
            assert getattr(plan, verb) == plan.total == 2


def test_other_rows_stay_untouched():
    lonely = parcels(2)
    Stamp.objects.create(parcel=lonely[0])
    before = everything()
    with connected(stamper()) as handle:
        assert_repairs(rule(handle), called=1)
    after = everything()
    assert {label for label in after if after[label] != before[label]} == {"zoo.Stamp"}
    assert {*before["zoo.Stamp"]} < {*after["zoo.Stamp"]}


def test_records_that_the_default_manager_hides_are_sent():
    hidden = Shy._base_manager.create(visible=False, value=1)
    team = Team.objects.create(name="x")
    stamped = Parcel.objects.create(team=team)
    assert stamped.team == team

    def handle(*, instance, **_):
        instance.value = 2

    with connected(handle, pre_save, sender=Shy):
        assert_repairs(rule(handle, must=HaveValues(value=2), drift=STALE, every=Shy), update=1)
    assert Shy._base_manager.get(pk=hidden.pk).value == 2


def test_a_text_key_and_a_uuid_key():
    Page.objects.create(code="a "), Device.objects.create(name="x")

    def visit(*, instance, **_):
        instance.visits += 1

    def rename(*, instance, **_):
        instance.name += "!"

    with connected(visit, pre_save, sender=Page), connected(rename, pre_save, sender=Device):
        assert_repairs(rule(visit, must=HaveValues(visits=1), drift=STALE, every=Page), update=1)
        longer = Satisfy(Q(name=Concat(Value("x"), Value("!"))))
        assert_repairs(rule(rename, must=longer, drift=STALE, every=Device), update=1)


def test_a_proxy_is_a_sender_of_its_own():
    parcels(1)
    with connected(stamper()) as handle:
        assert (
            "connected to post_save of zoo.Parcel; not to post_save, pre_save or m2m_changed of zoo.ParcelProxy."
            in faults(handle, every=ParcelProxy)[0]
        )
    with connected(stamper(), sender=ParcelProxy) as handle:
        assert_repairs(rule(handle, every=ParcelProxy), called=1)
        assert type(handle.sent[0]["instance"]) is handle.sent[0]["sender"] is ParcelProxy


def test_what_grows_with_the_records_is_the_receiver_s_own():
    sizes = []
    with connected(stamper()) as handle:
        for number in (10, 100):
            Parcel.objects.all().delete()
            parcels(number)
            with statements() as sent:
                assert repaired(rule(handle)).written.called == number
            sizes.append(len(sent) - number)
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("number", [10, 1_000])
def test_a_chunk_of_a_pre_save_receiver_costs_the_same_number_of_statements(number):
    parcels(number, state="odd")

    def handle(*, instance, **_):
        instance.state = "open"

    with connected(handle, pre_save), statements() as sent:
        assert repaired(rule(handle, must=OPEN, drift=STALE, batch=5_000)).written.update == number
    updates = [
        each["sql"] for each in sent if each["sql"].startswith("UPDATE") and "zoo_parcel" in each["sql"][:20]
    ]
    # SQLite takes no more than so many parameters in one statement.
    assert len(updates) == 1 or sent.connection.vendor == "sqlite"


def unconnected(**_):
    """Connected to nothing."""


@pytest.mark.parametrize(
    ("receiver", "options", "said"),
    [
        (None, {}, "Resend: receiver= is None. Give the function that is connected to the signal."),
        ("handle", {}, "Resend: receiver= is 'handle'."),
        (unconnected, {}, "unconnected is connected to no signal of a model; not to post_save, pre_save or m2m_changed of zoo.Parcel. Write the rule over"),
        (signals.handle_item_changed, {}, "handle_item_changed is connected to post_save of shop.Item; not to"),
        (signals.handle_order_saved, {}, "post_save of shop.Order, post_delete of shop.Order; not to"),
        (signals.handle_order_created, {"every": Order, "must": HaveValues(total=1), "drift": STALE, "signal": pre_save},
         "connected to post_save of shop.Order; not to pre_save of shop.Order."),
        (signals.handle_members_changed, {"every": Group, "must": HaveValues(member_count=1), "drift": STALE},
         "m2m_changed of shop.Group_members; not to post_save"),
        (unconnected, {"signal": post_delete}, "signal= is post_delete. It is sent for records that are gone"),
        (unconnected, {"signal": pre_delete}, "signal= is pre_delete. It is sent for records that are gone"),
        (unconnected, {"signal": post_migrate}, "Give post_save, pre_save, m2m_changed."),
        (unconnected, {"signal": class_prepared}, "Give post_save, pre_save, m2m_changed."),
        (unconnected, {"signal": ["post_save"]}, "signal= is ['post_save']. Give post_save"),
        (unconnected, {"drift": EXTRA}, "Resend() does not mend extra drift. Use Report(), or Call("),
        (unconnected, {"created": "yes"}, "created= is 'yes'. Give True or False."),
        (unconnected, {"batch": 0}, "batch= is 0."),
    ],
    ids=unaddressed,
)  # fmt: skip
def test_each_fault_says_what_and_the_way_out(receiver, options, said):
    assert any(said in each for each in faults(receiver, **options)), faults(receiver, **options)


def test_a_receiver_of_deletes_alone_is_refused():
    def handle(**_):
        """For what is gone."""

    with connected(handle, post_delete):
        (fault,) = faults(handle)
    assert (
        "handle is connected to post_delete of zoo.Parcel; not to post_save, pre_save or m2m_changed" in fault
    )


def test_a_good_receiver_has_no_fault():
    customers = HaveValues(customer_name=F("customer__name"))
    assert_finds(rule(signals.handle_order_saving, must=customers, drift=STALE, every=Order))
    assert faults(signals.handle_order_saving, must=customers, drift=STALE, every=Order) == []
    assert Customer.objects.count() == 0
