import re
from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db.models import Avg, Case, Count, F, Max, Min, Q, Sum, TextField, Value, When
from django.db.models.functions import Cast, Coalesce, Length, Lower, Now
from django.utils import timezone

from reconcile import (
    BeUnique,
    FromPython,
    HaveRow,
    HaveValues,
    Latest,
    LookedUp,
    Rule,
    Satisfy,
    Settle,
    Within,
)
from reconcile.rules.order import sort_rules
from sample_project.shop.models import Order
from tests.helpers import (
    assert_clean,
    assert_finds,
    assert_repairs,
    checked,
    everything,
    repaired,
    statements,
)
from tests.zoo.models import Basket, Bill, Device, Page, Remark, Reply, Shy, Tariff, Thread, Visit

pytestmark = pytest.mark.django_db
BY_PREFIX = LookedUp(Tariff, link={"prefix__prefix_of": F("zip")}, value="name", by=[Length("prefix").desc()])
BY_WEIGHT = LookedUp(
    Tariff, link={"more_than__lt": F("weight"), "upto__gte": F("weight")}, value="price", by=["more_than"]
)
VISITS = LookedUp(Visit, link={"page_code": F("code")}, value=Count("pk"))


def rule(every=Thread, settle=None, **columns):
    return Rule(name="looked up", every=every, must=HaveValues(**columns), settle=settle)


def remarks(model, value=None, **link):
    link = link or {"object_id": Cast("pk", TextField())}
    return LookedUp(
        Remark, link={**link, "content_type__model": model}, value=Count("pk") if value is None else value
    )


def remark(record, score=1):
    Remark.objects.create(
        content_type=ContentType.objects.get_for_model(type(record)), object_id=str(record.pk), score=score
    )


def regions(*prefixes):
    Tariff.objects.bulk_create([Tariff(prefix=each, name=f"region {each}") for each in prefixes])


@pytest.mark.parametrize(
    ("zip_code", "region"),
    [
        ("1234", "region 12"),
        ("12", "region 12"),
        ("1", "region 1"),
        ("9", None),
        (None, None),
        ("ab", "region ab"),
        ("Ab", None),
        ("aB", None),
        ("50%x", "region 50%"),
        ("50xx", None),
        ("a_c", "region a_"),
        ("abc", "region ab"),
        ("back\\slash", "region back\\"),
        ("Ünicode", "region Ü"),
        ("x y", "region x "),
        ("xy", None),
    ],
)
def test_the_longest_prefix_is_found_to_the_character(zip_code, region):
    regions("1", "12", "129", "ab", "50%", "a_", "back\\", "Ü", "x ")
    thread = Thread.objects.create(zip=zip_code, region="wrong")
    assert_finds(rule(region=BY_PREFIX), stale=[thread])
    assert_repairs(rule(region=BY_PREFIX), update=1)
    thread.refresh_from_db()
    assert thread.region == region


def test_a_right_prefix_is_not_found():
    regions("1", "12")
    Thread.objects.create(zip="123", region="region 12"), Thread.objects.create(zip="13", region="region 1")
    Thread.objects.create(zip="2", region=None)
    assert_clean(rule(region=BY_PREFIX))


@pytest.mark.parametrize(
    ("weight", "price"), [("0.01", "1.00"), ("5", "1.00"), ("5.01", "2.35"), ("11", None), ("0", None)]
)
def test_a_range_of_the_row_s(weight, price):
    Tariff.objects.create(more_than=0, upto=5, price=1)
    Tariff.objects.create(more_than=5, upto=10, price=Decimal("2.346"))
    Tariff.objects.create(more_than=0, upto=None, price=9)
    thread = Thread.objects.create(weight=Decimal(weight), postage=7)
    assert_finds(rule(postage=BY_WEIGHT), stale=[thread])
    assert_repairs(rule(postage=BY_WEIGHT), update=1)
    thread.refresh_from_db()
    assert thread.postage == (None if price is None else Decimal(price))


def test_of_several_rows_the_first_by_the_order_and_then_the_key():
    for price in (3, 1, 2):
        Tariff.objects.create(prefix="1", price=price)
    Tariff.objects.create(prefix="2", price=0)
    thread = Thread.objects.create(zip="1")
    for by, price in (
        (["price"], 1),
        (["-price"], 3),
        (["prefix"], 3),
        (["-prefix"], 2),
        (["prefix", "pk"], 3),
    ):
        looked = LookedUp(Tariff, link={"prefix": F("zip")}, value="price", by=by)
        assert_repairs(rule(postage=looked), update=1) if thread.postage != price else None
        thread.refresh_from_db()
        assert thread.postage == price, by


def test_rows_of_a_generic_relation_are_counted_by_their_text_key():
    many, none, right = (Thread.objects.create(reply_count=count) for count in (0, 2, 1))
    remark(many), remark(many), remark(right)
    for other in (Basket, Device):
        remark(other.objects.create())
    Remark.objects.create(content_type=ContentType.objects.get_for_model(Basket), object_id=str(right.pk))
    Remark.objects.create(content_type=ContentType.objects.get_for_model(Thread), object_id="no number")
    counted = rule(reply_count=remarks("thread"))
    assert_finds(counted, stale=[many, none])
    assert_repairs(counted, update=2)
    many.refresh_from_db(), none.refresh_from_db()
    assert (many.reply_count, none.reply_count) == (2, 0)


def test_a_number_is_linked_as_the_text_that_the_column_stores():
    thread = Thread.objects.create()
    remark(thread)
    assert_repairs(rule(reply_count=remarks("thread", object_id=F("pk"))), update=1)


def test_the_key_of_a_record_may_be_a_text():
    wrong, right = Page.objects.create(code="A b"), Page.objects.create(code="c", visits=1)
    for code in ("A b", "A b", "a b", "A b ", "c"):
        Visit.objects.create(page_code=code)
    assert_finds(rule(Page, visits=VISITS), stale=[wrong])
    assert_repairs(rule(Page, visits=VISITS), update=1)
    wrong.refresh_from_db(), right.refresh_from_db()
    assert (wrong.visits, right.visits) == (2, 1)


def test_the_key_of_a_record_may_be_a_uuid():
    device = Device.objects.create(name="x")
    Reply.objects.create(device=device, text="told")
    told = LookedUp(Reply, link={"device": F("pk")}, value=Lower("text"), by=["pk"])
    assert_repairs(rule(Device, name=told), update=1)
    device.refresh_from_db()
    assert device.name == "told"


def test_a_link_that_holds_the_record_s_key_carries_the_range(monkeypatch):
    monkeypatch.setattr("reconcile.core.scopes.SIZE", 3)
    baskets = [Basket.objects.create(quantity=0) for _ in range(10)]
    Bill.objects.bulk_create([Bill(basket_number=each.pk, amount=5) for each in baskets])
    Bill.objects.create(basket_number=None)
    billed = LookedUp(Bill, link={"basket_number": F("pk")}, value=Count("pk"))
    assert checked(rule(Basket, quantity=billed)).tally.total == 10
    assert_repairs(rule(Basket, quantity=billed), update=10)


def test_null_matches_nothing():
    Tariff.objects.create(prefix="", price=1)
    unknown = Thread.objects.create(zip=None, postage=3)
    looked = LookedUp(Tariff, link={"prefix": F("zip")}, value="price", by=["pk"])
    assert_repairs(rule(postage=looked), update=1)
    unknown.refresh_from_db()
    assert unknown.postage is None


@pytest.mark.parametrize(
    ("value", "some", "none"),
    [
        (Count("pk"), 2, 0),
        (Sum("score"), 7, 0),
        (Max("score"), 5, 0),
        (Sum("score") + Count("pk"), 9, 0),
        (Sum("score", default=4), 7, 4),
        (Coalesce(Min("score"), 9), 2, 0),
        (Count("pk", filter=Q(score__gt=2)), 1, 0),
        (Sum(F("score") * 2), 14, 0),
        (Avg("score"), 3, 0),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "link", [{"object_id": Cast("pk", TextField())}, {"object_id__prefix_of": Cast("pk", TextField())}]
)
def test_an_aggregate_of_the_rows_that_match(value, some, none, link):
    has, bare = Thread.objects.create(reply_count=99), Thread.objects.create(reply_count=99)
    remark(has, score=2), remark(has, score=5)
    summed = rule(
        Thread.objects.filter(pk__in=[has.pk, bare.pk]), reply_count=remarks("thread", value, **link)
    )
    assert repaired(summed).written.update == 2
    has.refresh_from_db(), bare.refresh_from_db()
    assert has.reply_count == pytest.approx(some, abs=1 if isinstance(value, Avg) else 0)
    assert bare.reply_count == none
    assert_clean(summed)


def test_the_sum_of_nothing_is_null_where_the_column_can_be():
    thread = Thread.objects.create(postage=3)
    summed = LookedUp(Tariff, link={"prefix": F("zip")}, value=Sum("price"))
    assert_repairs(rule(postage=summed), update=1)
    thread.refresh_from_db()
    assert thread.postage is None


def test_only_rows_that_count():
    thread = Thread.objects.create()
    remark(thread, score=1), remark(thread, score=9)
    few = LookedUp(
        Remark,
        link={"object_id": F("pk"), "content_type__model": "thread"},
        value=Count("pk"),
        where=Q(score__gt=3),
    )
    assert_repairs(rule(reply_count=few), update=1)
    thread.refresh_from_db()
    assert thread.reply_count == 1


def test_rows_that_a_default_manager_hides_count_too():
    Shy._base_manager.create(visible=False, value=3)
    Thread.objects.create(reply_count=3)
    Basket.objects.create(quantity=0, score=3)
    shy = LookedUp(Shy, link={"value": F("score")}, value=Count("pk"))
    assert_repairs(rule(Basket, quantity=shy), update=1)
    hidden = Shy._base_manager.get()
    assert_finds(
        rule(Shy, value=LookedUp(Thread, link={"reply_count": F("value")}, value=Count("pk"))), stale=[hidden]
    )


def test_an_expression_over_what_the_record_refers_to():
    thread = Thread.objects.create(zip="1")
    regions("1")
    Reply.objects.create(thread=thread), Reply.objects.create()
    named = LookedUp(Tariff, link={"prefix": F("thread__zip")}, value="name", by=["pk"])
    assert_repairs(rule(Reply, text=Coalesce(F("text"), Value(""))))
    assert_repairs(rule(Reply.objects.filter(thread__isnull=False), text=named), update=1)


def test_a_path_over_what_the_row_refers_to():
    page = Page.objects.create(code="x", visits=1)
    thread = Thread.objects.create(zip="x")
    Reply.objects.create(page=page, thread=thread, text="said")
    said = LookedUp(Reply, link={"page__code": F("zip")}, value="text", by=["thread__weight"])
    assert_repairs(rule(last_text=said), update=1)
    thread.refresh_from_db()
    assert thread.last_text == "said"


def test_a_clock_is_the_run_s():
    thread = Thread.objects.create()
    for days in (-1, 1):
        Reply.objects.create(text=f"in {days}", at=timezone.now() + timedelta(days=days))
    past = LookedUp(Reply, link={"at__lte": Now()}, value="text", by=["-at"])
    assert_repairs(rule(last_text=past), update=1)
    thread.refresh_from_db()
    assert thread.last_text == "in -1"


def test_two_values_beside_an_aggregate_of_related_rows():
    regions("1")
    thread = Thread.objects.create(zip="1", reply_count=9)
    Reply.objects.create(thread=thread), remark(thread)
    together = rule(region=BY_PREFIX, reply_count=Count("replies"), ratio=remarks("thread"), postage=Value(2))
    assert_finds(together, stale=[thread])
    assert_repairs(together, update=1)
    thread.refresh_from_db()
    assert (thread.region, thread.reply_count, thread.ratio, thread.postage) == ("region 1", 1, 1.0, 2)


def test_each_record_counts_once_where_every_joins_to_many():
    thread = Thread.objects.create()
    Reply.objects.create(thread=thread), Reply.objects.create(thread=thread), remark(thread)
    counted = rule(Thread.objects.filter(replies__hidden=False), reply_count=remarks("thread"))
    assert_finds(counted, stale=[thread])
    assert_repairs(counted, update=1)


def test_young_records_are_left_alone():
    for at in (timezone.now(), timezone.now() - timedelta(days=1)):
        remark(Thread.objects.create(last_at=at))
    assert_repairs(rule(reply_count=remarks("thread"), settle=Settle("last_at", hours=1)), update=1)


def test_only_the_rule_s_column_of_stale_records_is_written():
    regions("1")
    Thread.objects.create(zip="1"), Thread.objects.create(zip="2")
    before = everything()
    assert_repairs(rule(region=BY_PREFIX), update=1)
    after = everything()
    assert {label for label in after if after[label] != before[label]} == {"zoo.Thread"}


@pytest.mark.parametrize("columns", [{"region": BY_PREFIX}, {"reply_count": remarks("thread")}], ids=str)
def test_a_thousand_records_take_as_many_statements_as_ten(columns):
    regions("1")
    counts = []
    for size in (1, 10, 1_000):
        Thread.objects.all().delete()
        Thread.objects.bulk_create([Thread(zip="1") for _ in range(size)])
        for each in Thread.objects.all() if "reply_count" in columns else ():
            Remark(content_type=ContentType.objects.get_for_model(Thread), object_id=str(each.pk)).save()
        with statements() as captured:
            assert repaired(rule(**columns)).written.update == size
        counts.append(len(captured))
    assert counts[1] == counts[2]


@pytest.mark.postgresql
def test_what_a_range_or_an_array_of_the_row_s_contains():
    from tests.zoo.models import Span

    Span.objects.create(numbers=(10, 20), codes=["a", "b"], name="tens")
    Span.objects.create(numbers=(20, None), codes=[], name="more")
    thread = Thread.objects.create(reply_count=20, zip="a")
    by_number = LookedUp(Span, link={"numbers__contains": F("reply_count")}, value="name", by=["pk"])
    assert_repairs(rule(region=by_number), update=1)
    thread.refresh_from_db()
    assert thread.region == "more"


def test_a_rule_that_writes_what_is_looked_up_runs_first():
    def is_read(column, columns):
        reads = Rule(name="reads", every=Thread, must=HaveValues(**columns))
        writes = Rule(name="writes", every=Tariff, must=HaveValues(**{column: 1}))
        named = {"reads": reads, "writes": writes}
        return next(iter(sort_rules(named, using="default", now=timezone.now()).rules)) is writes

    def before(**columns):
        return {each for each in ("prefix", "name", "price", "upto") if is_read(each, columns)}

    equal = {"link": {"prefix": F("zip")}}
    assert before(region=LookedUp(Tariff, **equal, value="name", by=["-price"])) == {
        "prefix",
        "name",
        "price",
    }
    assert before(postage=LookedUp(Tariff, **equal, value=Sum("price"), where=Q(upto=1))) == {
        "prefix",
        "price",
        "upto",
    }
    assert before(region=BY_PREFIX) == {"prefix", "name"}


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (
            {"region": BY_PREFIX},
            "region = name of the first Tariff where prefix is a prefix of the record's zip by Length(prefix) descending",
        ),
        (
            {"postage": BY_WEIGHT},
            "postage = price of the first Tariff where more_than < the record's weight and upto ≥ the record's weight by more_than",
        ),
        (
            {"reply_count": remarks("thread", Sum("score"))},
            "reply_count = Sum(score) over each Remark where object_id = Cast(the record's pk, output_field=TextField()) and content_type.model = 'thread'",
        ),
    ],
    ids=str,
)
def test_the_sentence(columns, sentence):
    assert rule(**columns).sentence == f"Every thread must have {sentence}."


ZIP = {"prefix": F("zip")}


@pytest.mark.parametrize(
    ("looked", "fault"),
    [
        (LookedUp("Tariff", link=ZIP, value="name", by=["pk"]), "E012.*'Tariff' is not a model"),
        (LookedUp(Tariff, value="name", by=["pk"]), "E012.*link= is {}"),
        (LookedUp(Tariff, link="zip", value="name", by=["pk"]), "E012.*link= is 'zip'"),
        (
            LookedUp(Tariff, link={"prefx": F("zip")}, value="name", by=["pk"]),
            "E013.*prefx.*Did you mean 'prefix'",
        ),
        (
            LookedUp(Tariff, link={"prefix": F("zipp")}, value="name", by=["pk"]),
            "E013.*zipp.*Did you mean 'zip'",
        ),
        (
            LookedUp(Tariff, link={"prefix__lke": F("zip")}, value="name", by=["pk"]),
            "E013.*Unsupported lookup 'lke'",
        ),
        (LookedUp(Tariff, link={"prefix": F("replies__text")}, value="name", by=["pk"]), "E013.*many rows"),
        (LookedUp(Tariff, link={"prefix": Max("replies__text")}, value="name", by=["pk"]), "E015.*aggregate"),
        (
            LookedUp(Reply, link={"thread__replies__text": F("zip")}, value="text", by=["pk"]),
            "E013.*many rows",
        ),
        (LookedUp(Tariff, link={"price": "zip"}, value="name", by=["pk"]), "E012.*Did you mean F.'zip'"),
        (
            LookedUp(Tariff, link={"price__prefix_of": F("zip")}, value="name", by=["pk"]),
            "E015.*it is text, and 'price' is not",
        ),
        (LookedUp(Tariff, link=ZIP, value="name"), r"E012.*by= is \(\)"),
        (LookedUp(Tariff, link=ZIP, value="name", by=["size"]), "E013.*by=.*size"),
        (LookedUp(Tariff, link=ZIP, by=["pk"]), "E012.*value= is None"),
        (LookedUp(Tariff, link=ZIP, value="nam", by=["pk"]), "E013.*value=.*Did you mean 'name'"),
        (LookedUp(Tariff, link=ZIP, value=Count("pk"), by=["pk"]), "E012.*by= is .*an aggregate"),
        (LookedUp(Tariff, link=ZIP, value=Count("pk") + F("price")), "E012.*mixes aggregates with columns"),
        (LookedUp(Tariff, link=ZIP, value="name", by=["pk"], where=3), "E012.*where= is 3"),
        (
            LookedUp(Tariff, link=ZIP, value="name", by=["pk"], where=Q(nam=3)),
            "E013.*where=.*Did you mean 'name'",
        ),
    ],
    ids=str,
)
def test_a_fault(looked, fault):
    found = [f"{each.id} {each}" for each in rule(region=looked).faults()]
    assert len(found) == 1, found
    assert re.search(fault, found[0]), found


def test_a_json_column_is_a_fault():
    looked = LookedUp(Tariff, link={"price": F("amount")}, value="name", by=["pk"])
    (fault,) = rule(Bill, details=looked).faults()
    assert fault.id == "reconcile.E012"
    assert "details" in fault.message


def test_it_is_refused_in_a_row_s_values():
    row = HaveRow(Bill, link={"basket_number": F("pk")}, values={"score": remarks("order")})
    assert [each.id for each in Rule(name="row", every=Order, must=row).faults()] == ["reconcile.E015"]


LOOKED_UP = LookedUp(Tariff, link={"prefix": F("zip")}, value="price", by=["price"])
LATEST = Latest("replies", by=["pk"], value="score")


@pytest.mark.parametrize(
    "must",
    [
        HaveValues(postage=Coalesce(LOOKED_UP, Value(0)) + 1),
        HaveValues(postage=Within(Coalesce(LOOKED_UP, Value(0)), 1)),
        HaveValues(reply_count=Coalesce(LATEST, 0)),
        HaveValues(reply_count=Coalesce(FromPython(len, reads=["zip"]), 0)),
        HaveValues(reply_count=Count("replies", filter=Q(score=LATEST))),
        HaveValues(postage=Case(When(Q(zip=LATEST), then=1), default=2)),
        HaveValues(
            reply_count=LookedUp(Tariff, link={"prefix": F("zip")}, value=Count("pk"), where=Q(price=LATEST))
        ),
        HaveRow(Bill, link={"basket_number": F("pk")}, values={"amount": Coalesce(LOOKED_UP, Value(0))}),
        HaveRow(Bill, link={"basket_number": F("pk")}, where=Q(amount=LATEST)),
        Satisfy(Q(postage=LOOKED_UP)),
        Satisfy(Q(postage__in=[1, LATEST])),
        BeUnique(Coalesce(LOOKED_UP, Value(0))),
    ],
)
def test_inside_an_expression_it_is_a_fault(must):
    [fault] = Rule(name="inside", every=Thread, must=must).faults()
    assert (fault.id, "stands inside an expression" in fault.message) == ("reconcile.E012", True)


def test_texts_that_a_collation_folds_are_looked_up_each_by_itself():
    Page.objects.create(code="a", visits=7)
    visits = [Visit.objects.create(page_code=code, day=0) for code in ("a", "A", "a ", "a")]
    looked = LookedUp(Page, link={"code": F("page_code")}, value="visits", by=["pk"])
    named = Rule(name="folded", every=Visit, must=HaveValues(day=looked))
    assert {each.key for each in checked(named).samples} == {str(visit.pk) for visit in visits}
    Visit.objects.filter(pk__in=[visits[0].pk, visits[3].pk]).update(day=7)
    assert {each.key for each in checked(named).samples} == {str(visits[1].pk), str(visits[2].pk)}


def test_folded_texts_are_told_apart_in_every_value_of_the_rule():
    Tariff.objects.bulk_create([Tariff(prefix=code, name=f"region {code}") for code in ("a", "b")])
    texts = ("a", "A", "a ", "á", "a", "A", "b", "B")
    Thread.objects.bulk_create([Thread(zip=text) for text in texts])
    link = {"prefix": F("zip")}
    named = LookedUp(Tariff, link=link, value="name", by=["pk"])
    counted = LookedUp(Tariff, link=link, value=Count("pk"))
    both = rule(region=named, reply_count=counted)
    assert_repairs(both, update=3)
    expected = [("region a", 1), (None, 0), (None, 0), (None, 0)] * 2
    expected[5:] = [(None, 0), ("region b", 1), (None, 0)]
    assert list(Thread.objects.order_by("pk").values_list("region", "reply_count")) == expected
