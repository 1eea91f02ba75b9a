import uuid
from decimal import Decimal

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models import F
from django.db.models.functions import Lower
from django.utils import timezone


def make_token():
    return uuid.uuid4().hex


class Basket(models.Model):
    """Columns that the database computes."""

    price = models.DecimalField(max_digits=8, decimal_places=2, default=Decimal("2.50"))
    quantity = models.IntegerField(default=2)
    total = models.GeneratedField(
        expression=F("price") * F("quantity"),
        output_field=models.DecimalField(max_digits=12, decimal_places=2),
        db_persist=True,
    )
    score = models.IntegerField(db_default=7)
    label = models.CharField(max_length=40, default="", db_column="tag")
    note = models.TextField(null=True)
    rate = models.FloatField(default=0)
    changed = models.BooleanField(default=False)
    seen_at = models.DateTimeField(null=True)
    day = models.DateField(null=True)


class Bill(models.Model):
    """Linked without a foreign key or a unique constraint."""

    basket_number = models.BigIntegerField(null=True)
    amount = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    score = models.IntegerField(default=0)
    kind = models.CharField(max_length=10, default="bill")
    made_at = models.DateTimeField(auto_now_add=True)
    printed_at = models.DateTimeField(default=timezone.now)
    details = models.JSONField(default=dict)


class Device(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=40)


class Badge(models.Model):
    """Rows whose key and token must be made once each."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    device = models.OneToOneField(Device, on_delete=models.CASCADE)
    token = models.CharField(max_length=40, default=make_token)
    name = models.CharField(max_length=40)


class Page(models.Model):
    """A text key."""

    code = models.CharField(max_length=20, primary_key=True)
    visits = models.IntegerField(default=0)


class Visit(models.Model):
    """Linked by text, without a foreign key."""

    page_code = models.CharField(max_length=20)
    day = models.IntegerField(default=1)


class Team(models.Model):
    name = models.CharField(max_length=40)
    player_count = models.IntegerField(default=0)
    points = models.IntegerField(default=0, null=True)
    average = models.DecimalField(max_digits=5, decimal_places=1, default=0)
    alternate = models.ForeignKey("self", null=True, on_delete=models.SET_NULL)


class Player(models.Model):
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="players")
    active = models.BooleanField(default=True)
    age = models.IntegerField(default=20)


class Match(models.Model):
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="matches")
    points = models.IntegerField(default=0)


class VisibleManager(models.Manager):
    def get_queryset(self):
        return super().get_queryset().filter(visible=True)


class Shy(models.Model):
    """Its default manager hides rows."""

    visible = models.BooleanField(default=True)
    value = models.IntegerField(default=0)
    objects = VisibleManager()


class Vehicle(models.Model):
    wheels = models.IntegerField(default=4)


class Car(Vehicle):
    doors = models.IntegerField(default=5)


class Pair(models.Model):
    pk = models.CompositePrimaryKey("left", "right")
    left = models.IntegerField()
    right = models.IntegerField()


class Needy(models.Model):
    """A column that nobody gives a value."""

    basket = models.OneToOneField(Basket, on_delete=models.CASCADE)
    size = models.IntegerField()


class Blob(models.Model):
    """Bytes, and a column for each letter and digit: more than one JSON object takes."""

    team = models.OneToOneField(Team, on_delete=models.CASCADE)
    content = models.BinaryField(default=b"\x00\xff")


for _number in range(60):
    models.IntegerField(default=_number, null=_number % 2 == 0).contribute_to_class(Blob, f"n{_number}")


class Ghost(models.Model):
    """A model whose table was never made."""

    value = models.IntegerField(default=0)

    class Meta:
        managed = False


# Records that are computed from each other.


class Node(models.Model):
    parent = models.ForeignKey("self", null=True, on_delete=models.CASCADE, related_name="children")
    name = models.CharField(max_length=20)
    path = models.CharField(max_length=200, default="")
    depth = models.IntegerField(default=0)
    size = models.IntegerField(default=0)


class Task(models.Model):
    """Refers to others of its kind by two keys."""

    after = models.ForeignKey("self", null=True, on_delete=models.CASCADE, related_name="followers")
    part_of = models.ForeignKey("self", null=True, on_delete=models.CASCADE, related_name="parts")
    rank = models.IntegerField(default=0)
    height = models.IntegerField(default=0)
    in_scope = models.BooleanField(default=True)


class Region(models.Model):
    """Its key is text, which a database may compare by folding case."""

    code = models.CharField(max_length=10, primary_key=True)
    inside = models.ForeignKey("self", null=True, on_delete=models.CASCADE, related_name="parts")
    depth = models.IntegerField(default=0)


class Staff(models.Model):
    """Its chief is found by a code that is not the key."""

    code = models.CharField(max_length=10, unique=True)
    chief = models.ForeignKey(
        "self", null=True, to_field="code", on_delete=models.CASCADE, related_name="team"
    )
    chain = models.CharField(max_length=200, default="")


# Kinds of models and columns.


class NamedTeam(Team):
    class Meta:
        proxy = True


class Lorry(Vehicle):
    """A row that continues one of another table."""

    load = models.IntegerField(default=7)
    plate = models.CharField(max_length=20, default="none", db_column="number_plate")


class Trailer(Lorry):
    """And one that continues that."""

    axles = models.IntegerField(default=2)


class Stamped(Vehicle):
    """Its token must be made once a row in Python."""

    token = models.CharField(max_length=40, default=make_token)


try:
    from django.contrib.postgres.fields import ArrayField, IntegerRangeField
except ImportError:  # no driver for PostgreSQL
    pass
else:

    class Shelf(models.Model):
        """Columns that only PostgreSQL has."""

        labels = ArrayField(models.CharField(max_length=10), default=list)
        span = IntegerRangeField(null=True)
        low = models.IntegerField(default=1)
        high = models.IntegerField(default=5)
        first = models.CharField(max_length=10, default="", blank=True)

        class Meta:
            required_db_vendor = "postgresql"


# A column of every type.


class Columns(models.Model):
    flag = models.BooleanField(default=False)
    maybe = models.BooleanField(null=True)
    word = models.CharField(max_length=12, default="")
    word_too = models.CharField(max_length=12, null=True)
    prose = models.TextField(default="")
    slug = models.SlugField(max_length=12, default="")
    small = models.SmallIntegerField(default=0)
    number = models.IntegerField(default=0)
    number_too = models.IntegerField(null=True)
    large = models.BigIntegerField(default=0)
    natural = models.PositiveIntegerField(default=0)
    ratio = models.FloatField(default=0)
    money = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    fine = models.DecimalField(max_digits=9, decimal_places=4, null=True)
    day = models.DateField(null=True)
    moment = models.DateTimeField(null=True)
    hour = models.TimeField(null=True)
    span = models.DurationField(null=True)
    token = models.UUIDField(null=True)
    address = models.GenericIPAddressField(null=True)

    class Meta:
        abstract = True


class Sheet(Columns):
    """Compared with itself and with constants."""


class Sheet2(Columns):
    """Its row in another table, linked without a foreign key."""

    sheet_number = models.BigIntegerField(null=True)


# Acts: what Call, Resend, Split and Satisfy are tried on.


class Parcel(models.Model):
    """Something that a function ships: a depot's name, a state, and a number that follows from it."""

    team = models.ForeignKey(Team, null=True, on_delete=models.CASCADE, related_name="parcels")
    weight = models.IntegerField(null=True)
    state = models.CharField(max_length=10, default="open")
    label = models.CharField(max_length=40, default="")
    price = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    extra = models.JSONField(default=dict)
    badges = models.ManyToManyField(Badge, related_name="parcels")


class ParcelProxy(Parcel):
    class Meta:
        proxy = True


class Stamp(models.Model):
    """One for each parcel, by a function."""

    parcel = models.ForeignKey(Parcel, on_delete=models.CASCADE, related_name="stamps")


# explain
class Ticket(models.Model):
    """Columns with an index of their own, behind another column, by condition, and none."""

    indexed = models.IntegerField(default=0, db_index=True)
    kind = models.CharField(max_length=10, default="k")
    behind = models.IntegerField(default=0)
    open_only = models.IntegerField(default=0)
    closed = models.BooleanField(default=False)
    long = models.TextField(default="")
    odd_name = models.IntegerField(default=0, db_column="Odd name")
    holder_id = models.IntegerField(default=0)

    class Meta:
        indexes = (
            models.Index(fields=["kind", "behind"], name="zoo_ticket_kind"),
            models.Index(fields=["open_only"], name="zoo_ticket_open", condition=models.Q(closed=False)),
        )


class SeenBill(models.Model):
    """A view."""

    basket_number = models.BigIntegerField()

    class Meta:
        managed = False


# Values that only Python can tell.


class Note(models.Model):
    """A column of each kind, and rows that follow from its text."""

    author = models.ForeignKey(Device, null=True, on_delete=models.CASCADE)
    text = models.TextField(default="")
    slug = models.CharField(max_length=20, default="")
    rank = models.IntegerField(null=True)
    price = models.DecimalField(max_digits=20, decimal_places=2, null=True)
    rate = models.FloatField(null=True)
    flag = models.BooleanField(default=False)
    seen_at = models.DateTimeField(null=True)
    day = models.DateField(null=True)
    span = models.DurationField(null=True)
    raw = models.BinaryField(null=True)
    token = models.UUIDField(null=True)
    details = models.JSONField(null=True)
    loose = models.JSONField(null=True, encoder=DjangoJSONEncoder)

    class Meta:
        # The shop has notes, too, and a sentence calls models of one name by their labels.
        verbose_name = "zoo note"


class Mention(models.Model):
    """Unique by link and key."""

    note = models.ForeignKey(Note, on_delete=models.CASCADE, db_constraint=False, related_name="mentions")
    user_name = models.CharField(max_length=40)
    position = models.IntegerField(default=0)
    made_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("note", "user_name"), name="zoo_mention_once"),)


class Word(models.Model):
    """Neither unique nor a foreign key; linked by the text key of a page, or by a number."""

    page_code = models.CharField(max_length=20, default="")
    number = models.BigIntegerField(null=True)
    kind = models.CharField(max_length=10, default="word")
    word = models.CharField(max_length=40)
    weight = models.DecimalField(max_digits=8, decimal_places=2, default=0)


# HaveSource, HaveReceipt, Enqueue


class Memo(models.Model):
    """Refers to anything, and to what no constraint holds."""

    content_type = models.ForeignKey(
        "contenttypes.ContentType", null=True, on_delete=models.CASCADE, db_constraint=False
    )
    object_id = models.CharField(max_length=64, null=True)
    target = GenericForeignKey()
    basket = models.ForeignKey(Basket, null=True, on_delete=models.DO_NOTHING, db_constraint=False)
    page_code = models.CharField(max_length=20, null=True)
    number = models.BigIntegerField(null=True)
    written_at = models.DateTimeField(default=timezone.now)


class Binder(models.Model):
    """Is referred to by memos, and says so."""

    memos = GenericRelation(Memo)


class Mark(models.Model):
    """A generic foreign key whose key is a number and which tells proxies apart."""

    content_type = models.ForeignKey(
        "contenttypes.ContentType", on_delete=models.CASCADE, db_constraint=False
    )
    object_id = models.PositiveBigIntegerField()
    target = GenericForeignKey(for_concrete_model=False)


class ProxyTeam(Team):
    class Meta:
        proxy = True


# For BeUnique, Delete and Merge.


class Tag(models.Model):
    name = models.CharField(max_length=20)


class Contact(models.Model):
    """Duplicates, and columns to merge."""

    team = models.ForeignKey(Team, null=True, on_delete=models.CASCADE, related_name="contacts")
    email = models.CharField(max_length=40, null=True)
    is_default = models.BooleanField(default=False)
    updated_at = models.DateTimeField(null=True)
    visits = models.IntegerField(default=0, null=True)
    spent = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    phone = models.CharField(max_length=20, null=True)
    code = models.CharField(max_length=20, null=True, unique=True)
    details = models.JSONField(default=dict)
    parent = models.ForeignKey("self", null=True, on_delete=models.SET_NULL)
    friends = models.ManyToManyField("self", blank=True)
    tags = models.ManyToManyField(Tag, related_name="contacts")


class ContactView(models.Model):
    """A view of some contacts, which a test makes."""

    visits = models.IntegerField()

    class Meta:
        managed = False


class Letter(models.Model):
    """Refers to contacts by two keys, of which one is unique with another column."""

    contact = models.ForeignKey(Contact, on_delete=models.CASCADE, related_name="+")
    copy_to = models.ForeignKey(Contact, null=True, on_delete=models.SET_NULL, related_name="+")
    number = models.IntegerField(null=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("contact", "number"), name="zoo_letter_once"),)


class Card(models.Model):
    contact = models.OneToOneField(Contact, on_delete=models.CASCADE)


class Coupon(models.Model):
    """Refers to a contact by another column than its key."""

    contact = models.ForeignKey(Contact, to_field="code", on_delete=models.CASCADE)


class Loose(models.Model):
    """The database doesn't know of the reference."""

    contact = models.ForeignKey(Contact, on_delete=models.DO_NOTHING, db_constraint=False)


class Aside(models.Model):
    """Refers to any row by a generic foreign key, as text."""

    # Without a constraint: tables of apps that have migrations are made later than these.
    kind = models.ForeignKey("contenttypes.ContentType", on_delete=models.CASCADE, db_constraint=False)
    target_key = models.CharField(max_length=40)
    target = GenericForeignKey("kind", "target_key")


class Member(models.Model):
    """Its key is the contact's."""

    contact = models.OneToOneField(Contact, primary_key=True, on_delete=models.CASCADE)


class Seat(models.Model):
    contact = models.ForeignKey(Contact, on_delete=models.CASCADE)
    taken = models.BooleanField(default=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("contact",), condition=models.Q(taken=True), name="zoo_seat_taken"
            ),
        )


class Desk(models.Model):
    """Unique among those that are not put away, as rows are that are only marked as deleted."""

    contact = models.ForeignKey(Contact, on_delete=models.CASCADE)
    number = models.IntegerField(default=0)
    put_away_at = models.DateTimeField(null=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("number",), condition=models.Q(put_away_at=None), name="zoo_desk_number"
            ),
        )


class Rack(models.Model):
    """Unique by an expression."""

    contact = models.ForeignKey(Contact, on_delete=models.CASCADE)
    name = models.CharField(max_length=20)

    class Meta:
        constraints = (models.UniqueConstraint(F("contact"), Lower("name"), name="zoo_rack_once"),)


class Locker(models.Model):
    room = models.CharField(max_length=20)
    number = models.IntegerField(null=True, unique=True)


# Values of other rows: Latest, LookedUp, Within


class Thread(models.Model):
    last_reply = models.ForeignKey("Reply", null=True, on_delete=models.SET_NULL, related_name="+")
    last_text = models.CharField(max_length=40, null=True)
    last_at = models.DateTimeField(null=True)
    last_on = models.DateField(null=True)
    reply_count = models.PositiveIntegerField(default=0)
    zip = models.CharField(max_length=20, null=True)
    region = models.CharField(max_length=20, null=True)
    weight = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    postage = models.DecimalField(max_digits=8, decimal_places=2, null=True)
    ratio = models.FloatField(default=0)


class Reply(models.Model):
    """A row of one of three parents, whose keys are numbers, texts and uuids."""

    thread = models.ForeignKey(Thread, null=True, on_delete=models.CASCADE, related_name="replies")
    page = models.ForeignKey(Page, null=True, on_delete=models.CASCADE, related_name="replies")
    device = models.ForeignKey(Device, null=True, on_delete=models.CASCADE, related_name="replies")
    at = models.DateTimeField(null=True)
    text = models.CharField(max_length=40, default="")
    hidden = models.BooleanField(default=False)
    votes = models.IntegerField(null=True)
    tariff = models.ForeignKey(
        "Tariff", null=True, to_field="code", on_delete=models.CASCADE, related_name="replies"
    )


class Tariff(models.Model):
    """Found by the beginning of a text, by a range, or by the text itself."""

    code = models.CharField(max_length=20, null=True, unique=True)
    prefix = models.CharField(max_length=20, default="")
    name = models.CharField(max_length=20, default="")
    more_than = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    upto = models.DecimalField(max_digits=8, decimal_places=2, null=True)
    price = models.DecimalField(max_digits=8, decimal_places=3, default=0)


class Remark(models.Model):
    """A generic foreign key without an index, as many are."""

    content_type = models.ForeignKey(
        "contenttypes.ContentType", on_delete=models.CASCADE, db_constraint=False
    )
    object_id = models.CharField(max_length=40)
    score = models.IntegerField(default=1)


if "ArrayField" in globals():

    class Span(models.Model):
        """Found by containment, which PostgreSQL alone knows."""

        numbers = IntegerRangeField(null=True)
        codes = ArrayField(models.CharField(max_length=20), default=list)
        name = models.CharField(max_length=20)

        class Meta:
            required_db_vendor = "postgresql"


class Draft(models.Model):
    """What `save()` would bump or make anew."""

    title = models.CharField(max_length=40, default="")
    slug = models.CharField(max_length=40, default="")
    votes = models.IntegerField(default=0)
    updated_at = models.DateTimeField(auto_now=True)


from tests.zoo import foreign  # noqa: F401
