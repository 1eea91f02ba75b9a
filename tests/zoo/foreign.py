"""Models of the shape that well-known packages have: what they keep twice, and nothing else."""

from datetime import UTC, datetime, timedelta

from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.utils import timezone

MANY_TO_ONE = {"null": True, "on_delete": models.SET_NULL, "related_name": "+"}


def content_type():
    # Without a constraint: tables of apps that have migrations are made later than these.
    return models.ForeignKey(
        "contenttypes.ContentType", on_delete=models.CASCADE, db_constraint=False, related_name="+"
    )


# A forum: counters of its own and of all below it.


class Forum(models.Model):
    parent = models.ForeignKey("self", null=True, on_delete=models.CASCADE, related_name="children")
    direct_topics_count = models.PositiveIntegerField(default=0)
    direct_posts_count = models.PositiveIntegerField(default=0)
    all_posts_count = models.PositiveIntegerField(default=0)
    last_post = models.ForeignKey("ForumPost", **MANY_TO_ONE)
    last_post_on = models.DateTimeField(null=True)


class ForumTopic(models.Model):
    forum = models.ForeignKey(Forum, on_delete=models.CASCADE, related_name="topics")
    approved = models.BooleanField(default=True)
    posts_count = models.PositiveIntegerField(default=0)
    first_post = models.ForeignKey("ForumPost", **MANY_TO_ONE)
    last_post = models.ForeignKey("ForumPost", **MANY_TO_ONE)
    last_post_on = models.DateTimeField(null=True)


class ForumPost(models.Model):
    topic = models.ForeignKey(ForumTopic, on_delete=models.CASCADE, related_name="posts")
    approved = models.BooleanField(default=True)
    created = models.DateTimeField(default=timezone.now)


# A shop: a tree of materialised paths, stock, ratings, lines of a basket.


class Category(models.Model):
    path = models.CharField(max_length=255)
    depth = models.PositiveIntegerField(default=0)
    numchild = models.PositiveIntegerField(default=0)
    name = models.CharField(max_length=40, default="")
    slug = models.CharField(max_length=40, default="")

    class Meta:
        verbose_name = "zoo category"


class Product(models.Model):
    structure = models.CharField(max_length=10, default="standalone")
    parent = models.ForeignKey("self", null=True, on_delete=models.CASCADE, related_name="children")
    rating = models.DecimalField(max_digits=5, decimal_places=2, null=True)


class Review(models.Model):
    product = models.ForeignKey(Product, on_delete=models.CASCADE, related_name="reviews")
    score = models.SmallIntegerField()
    approved = models.BooleanField(default=True)


class StockRecord(models.Model):
    product = models.ForeignKey(Product, on_delete=models.CASCADE)
    num_allocated = models.IntegerField(null=True)
    num_sold = models.IntegerField(default=0)


class OrderLine(models.Model):
    stockrecord = models.ForeignKey(StockRecord, null=True, on_delete=models.SET_NULL, related_name="lines")
    quantity = models.IntegerField(default=1)
    status = models.CharField(max_length=10, default="open")


class CartLine(models.Model):
    cart = models.BigIntegerField()
    line_reference = models.CharField(max_length=40)
    quantity = models.PositiveIntegerField(default=1)


# Comments in threads, about any object.


class ThreadComment(models.Model):
    content_type = content_type()
    object_pk = models.TextField()
    content_object = GenericForeignKey("content_type", "object_pk")
    parent = models.ForeignKey(
        "self", null=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="children"
    )
    thread_id = models.IntegerField(default=0, db_index=True)
    level = models.SmallIntegerField(default=0)
    nested_count = models.IntegerField(default=0)


# Users, their addresses, and what they may do with single objects.


class Account(models.Model):
    email = models.CharField(max_length=80, default="")


class AccountEmail(models.Model):
    user = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="addresses")
    email = models.CharField(max_length=80)
    verified = models.BooleanField(default=False)
    primary = models.BooleanField(default=False)


class ObjectGrant(models.Model):
    user = models.ForeignKey(Account, on_delete=models.CASCADE)
    permission = models.CharField(max_length=40, default="change")
    content_type = content_type()
    object_pk = models.CharField(max_length=255)
    content_object = GenericForeignKey("content_type", "object_pk")


# A record, and a table of what it was. There `id` is not the key.


class Poll(models.Model):
    question = models.CharField(max_length=80)
    votes = models.IntegerField(default=0)
    closes_on = models.DateField(null=True)


class PollHistory(models.Model):
    history_id = models.AutoField(primary_key=True)
    id = models.IntegerField(db_index=True)
    question = models.CharField(max_length=80)
    votes = models.IntegerField(default=0)
    closes_on = models.DateField(null=True)
    history_date = models.DateTimeField(default=timezone.now)
    history_type = models.CharField(max_length=1, default="+")


# Pages that know their URL, and an index of what refers to what.


class SitePage(models.Model):
    parent = models.ForeignKey("self", null=True, on_delete=models.CASCADE, related_name="children")
    slug = models.CharField(max_length=40, default="")
    url_path = models.TextField(default="")
    body = models.TextField(default="")


class Reference(models.Model):
    content_type = content_type()
    object_id = models.CharField(max_length=40)
    to_object_id = models.CharField(max_length=40)
    model_path = models.CharField(max_length=20)
    page = models.ForeignKey(SitePage, null=True, on_delete=models.CASCADE)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("content_type", "object_id", "to_object_id", "model_path"), name="zoo_reference_once"
            ),
        )


# A help desk: queues, tickets and what was done about them.


class HelpQueue(models.Model):
    open_count = models.PositiveIntegerField(default=0)
    time_spent = models.DurationField(null=True)


class HelpTicket(models.Model):
    queue = models.ForeignKey(HelpQueue, null=True, on_delete=models.SET_NULL, related_name="tickets")
    status = models.CharField(max_length=10, default="open")
    on_hold = models.BooleanField(default=False)
    time_spent = models.DurationField(null=True)
    time_billed = models.DurationField(default=timedelta)
    followup_count = models.PositiveIntegerField(default=0)
    last_escalation = models.DateTimeField(null=True)


class FollowUp(models.Model):
    ticket = models.ForeignKey(HelpTicket, on_delete=models.CASCADE, related_name="followups")
    date = models.DateTimeField(default=timezone.now)
    kind = models.CharField(max_length=10, default="note")
    new_status = models.CharField(max_length=10, null=True)
    time_spent = models.DurationField(null=True)


# Records, most of them made in bulk.

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEPT = ("question", "votes", "closes_on")


def kind(model):
    return ContentType.objects.get_for_model(model)


def minutes(number):
    return timedelta(minutes=number)


def forums(length):
    """Forums, each inside the one before."""
    made = []
    for _ in range(length):
        made.append(Forum.objects.create(parent=made[-1] if made else None))
    return made


def topic(forum, *created, **columns):
    made = ForumTopic.objects.create(forum=forum, **columns)
    ForumPost.objects.bulk_create(ForumPost(topic=made, created=NOON + minutes(each)) for each in created)
    return made


def categories(*paths):
    Category.objects.bulk_create(Category(path=path, name=f"No {path}") for path in paths)
    return list(Category.objects.order_by("pk"))


def stocks(*allocated):
    product = Product.objects.create()
    return [StockRecord.objects.create(product=product, num_allocated=each) for each in allocated]


def cart_lines(*lines):
    CartLine.objects.bulk_create(
        CartLine(cart=cart, line_reference=reference, quantity=quantity)
        for cart, reference, quantity in lines
    )
    return list(CartLine.objects.order_by("pk"))


def comments(*parents, on):
    """Comments, each with the number of its parent in this list; its own number makes it its own parent."""
    start = (ThreadComment.objects.order_by("-pk").values_list("pk", flat=True).first() or 0) + 1
    ThreadComment.objects.bulk_create(
        ThreadComment(
            pk=start + number,
            content_type=kind(type(on)),
            object_pk=str(on.pk),
            parent_id=None if parent is None else start + parent,
        )
        for number, parent in enumerate(parents)
    )
    return list(ThreadComment.objects.filter(pk__gte=start).order_by("pk"))


def grants(model, *keys, user=None):
    user = user or Account.objects.create()
    before = set(ObjectGrant.objects.values_list("pk", flat=True))
    ObjectGrant.objects.bulk_create(
        ObjectGrant(user=user, content_type=kind(model), object_pk=str(key)) for key in keys
    )
    return list(ObjectGrant.objects.exclude(pk__in=before).order_by("pk"))


def snapshot(poll, at=0, **columns):
    known = {name: getattr(poll, name) for name in KEPT}
    return PollHistory.objects.create(id=poll.pk, history_date=NOON + minutes(at), **{**known, **columns})


def pages(*slugs):
    made = []
    for slug in slugs:
        made.append(SitePage.objects.create(parent=made[-1] if made else None, slug=slug))
    return made


def users(*emails):
    Account.objects.bulk_create(Account(email=email) for email in emails)
    return list(Account.objects.order_by("pk"))


def address(user, email, **columns):
    return AccountEmail.objects.create(user=user, email=email, **columns)


def tickets(number, **columns):
    return [HelpTicket.objects.create(**columns) for _ in range(number)]


def followups(ticket, *spent, **columns):
    FollowUp.objects.bulk_create(
        FollowUp(ticket=ticket, date=NOON + minutes(at), time_spent=each, **columns)
        for at, each in enumerate(spent)
    )


def the(record, *columns):
    return type(record)._base_manager.values_list(*columns, flat=len(columns) == 1).get(pk=record.pk)


def column(model, name):
    return list(model._base_manager.order_by("pk").values_list(name, flat=True))


def raw_delete(queryset):
    queryset._raw_delete(queryset.db)
