import pytest
from django.db.models import Count, F, FilteredRelation, Q

from reconcile.db.derived_tables import left_join
from reconcile.db.expressions import columns_read
from tests.zoo.models import Reply, Thread

pytestmark = pytest.mark.django_db


@pytest.fixture
def joined():
    """Threads with the number of their replies, by a derived table."""
    for number in (0, 2, 1):
        thread = Thread.objects.create(reply_count=1)
        Reply.objects.bulk_create([Reply(thread=thread) for _ in range(number)])
    table = (
        Reply.objects.order_by()
        .values(_link=F("thread_id"))
        .annotate(_number=Count("pk"))
        .values("_link", "_number")
    )
    key = Thread._meta.get_field("id")
    records, columns = left_join(Thread.objects.all(), table, {"_link": (key, F("pk"))})
    return records.alias(_replies=columns["_number"])


def test_each_record_gets_its_row_or_null(joined):
    assert list(joined.annotate(n=F("_replies")).order_by("pk").values_list("n", flat=True)) == [None, 2, 1]


def test_the_joined_records_can_be_filtered_counted_and_sliced(joined):
    assert joined.filter(_replies__gt=1).count() == 1
    assert joined.filter(_replies=F("reply_count")).exists()
    assert joined.order_by("-pk")[:1].get().pk == Thread.objects.latest("pk").pk
    assert joined.aggregate(n=Count("pk")) == {"n": 3}


def test_the_joined_records_can_stand_in_a_subquery(joined):
    inside = Thread.objects.filter(pk__in=joined.filter(_replies__gte=1).values("pk"))
    assert inside.count() == 2
    twice = joined.filter(pk__in=joined.filter(_replies__gte=2).values("pk"))
    assert twice.count() == 1


def test_the_columns_that_the_derived_table_reads_are_seen(joined):
    assert (Reply, "thread_id") in columns_read(joined)


def test_the_columns_of_a_filtered_relations_condition_are_seen():
    late = FilteredRelation("replies", condition=Q(replies__page__isnull=False))
    assert (Reply, "page_id") in columns_read(Thread.objects.alias(_late=late).filter(_late__pk__gt=1))
    assert (Reply, "page_id") not in columns_read(Thread.objects.filter(replies__pk__gt=1))
