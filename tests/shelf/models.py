"""Models whose writes set off one thing each, for the search for what bulk paths skip. They have no tables: `shelf` in conftest installs the app."""

from functools import partial

from django.core.cache import cache
from django.db import models, router, transaction
from django.db.models import CASCADE, SET_NULL, QuerySet
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save
from django.dispatch import receiver
from django.utils import timezone
from django.utils.text import slugify
from django.views import View


class Log(models.Model):
    text = models.CharField(max_length=100, default="")


class Event(models.Model):
    name = models.CharField(max_length=100, default="")

    @property
    def cache(self):
        return cache


class Author(models.Model):
    name = models.CharField(max_length=100, default="")


class Stamp(models.CharField):
    def pre_save(self, model_instance, add):
        return f"{model_instance.pk} is stamped"


class Book(models.Model):
    """Its save writes a log, its receivers do, too, and one of its columns stamps itself."""

    author = models.ForeignKey(Author, null=True, on_delete=SET_NULL, related_name="books")
    title = models.CharField(max_length=100, default="")
    n = models.IntegerField(default=0)
    updated = models.DateTimeField(auto_now=True)
    stamp = Stamp(max_length=100, default="")

    def save(self, *args, **kwargs):
        super().save(*args, **kwargs)
        Log.objects.create(text=f"{self.title} {self.n} {self.author_id}")

    def delete(self, *args, **kwargs):
        Log.objects.create(text="gone")
        return super().delete(*args, **kwargs)


@receiver(pre_save, sender=Book)
def book_saving(instance, **kwargs):
    Log.objects.create(text=f"saving {instance.title} {instance.n} {instance.author_id}")


@receiver(post_save, sender=Book)
def book_saved(instance, raw=False, **kwargs):
    if not raw:
        Log.objects.create(text=f"saved {instance.title} {instance.n} {instance.author_id}")


@receiver(post_delete, sender=Book)
def book_deleted(instance, **kwargs):
    Log.objects.create(text=f"deleted {instance.title}")


class Copy(Book):
    class Meta:
        proxy = True


class Club(models.Model):
    members = models.ManyToManyField(Author, through="Membership", related_name="clubs")
    readers = models.ManyToManyField(Author, related_name="reads_in")


class Membership(models.Model):
    club = models.ForeignKey(Club, on_delete=CASCADE)
    author = models.ForeignKey(Author, on_delete=CASCADE)

    def save(self, *args, **kwargs):
        super().save(*args, **kwargs)
        Log.objects.create(text="joined")

    def delete(self, *args, **kwargs):
        Log.objects.create(text="left")
        return super().delete(*args, **kwargs)


@receiver(post_save, sender=Membership)
def membership_saved(instance, **kwargs):
    Log.objects.create(text=f"member {instance.author_id}")


@receiver(post_delete, sender=Membership)
def membership_deleted(instance, **kwargs):
    Log.objects.create(text=f"no member {instance.author_id}")


@receiver(m2m_changed, sender=Club.readers.through)
def readers_changed(instance, **kwargs):
    Log.objects.create(text="readers")


class SoftRows(QuerySet):
    def delete(self):
        return self.update(gone=timezone.now())

    def fresh(self):
        return self.filter(gone=None)


class Soft(models.Model):
    gone = models.DateTimeField(null=True)

    objects = SoftRows.as_manager()
    all_objects = models.Manager()

    def delete(self, *args, **kwargs):
        Log.objects.create(text="soft")
        return super().delete(*args, **kwargs)

    def save(self, *args, **kwargs):
        super().save(*args, **kwargs)
        Log.objects.create(text=f"{self.gone}")


class State(models.Model):
    """A model with a method that is called update."""

    user = models.CharField(max_length=100, default="")

    def update(self, **fields):
        State.objects.filter(pk=self.pk).update(**fields)


@receiver(post_save, sender=State)
def state_saved(instance, **kwargs):
    Log.objects.create(text=f"state {instance.user}")


class Counted(models.Model):
    n = models.IntegerField(default=0)

    class Meta:
        abstract = True

    def bump(self):
        self.__class__.objects.filter(pk=self.pk).update(n=1)


class Visitors(Counted):
    pass


class Voters(Counted):
    pass


@receiver(post_save, sender=Visitors)
@receiver(post_save, sender=Voters)
def counted(instance, **kwargs):
    Log.objects.create(text=f"{instance.n}")


class Country(models.Model):
    labels = models.CharField(max_length=100, default="")


class TaxRule(models.Model):
    country = models.ForeignKey(Country, on_delete=CASCADE, related_name="tax_rules")
    default = models.BooleanField(default=False)


@receiver(post_save, sender=TaxRule)
def tax_rule_saved(instance, **kwargs):
    Log.objects.create(text=f"{instance.default}")


class Label(models.Model):
    """Country has a plain column of the name by which an author has these."""

    author = models.ForeignKey(Author, on_delete=CASCADE, related_name="labels")
    word = models.CharField(max_length=10, default="")


@receiver(post_save, sender=Label)
def label_saved(instance, **kwargs):
    Log.objects.create(text=f"{instance.word}")


class Numbered(models.Model):
    """Only a new one gets a number."""

    a = models.IntegerField(default=0)

    def save(self, *args, **kwargs):
        if self._state.adding:
            Log.objects.create(text="number")
        super().save(*args, **kwargs)


class Phased(models.Model):
    """Three receivers, each of one phase."""

    url = models.CharField(max_length=100, default="")


@receiver(post_save, sender=Phased)
def only_new(instance, created, **kwargs):
    if not created:
        return
    Log.objects.create(text="new")


@receiver(post_save, sender=Phased)
def new_with_url(sender, **kwargs):
    if kwargs["created"] and kwargs["instance"].url:
        Log.objects.create(text="url")


@receiver(pre_save, sender=Phased)
def only_old(instance, **kwargs):
    is_new = instance.pk is None
    if is_new:
        pass
    else:
        Log.objects.create(text=f"old {instance.url}")


class Loud(models.Model):
    class Meta:
        abstract = True


class Shout(Loud):
    text = models.CharField(max_length=100, default="")


class Whisper(models.Model):
    text = models.CharField(max_length=100, default="")


def hear_the_loud(instance, **kwargs):
    if not isinstance(instance, Loud):
        return
    Log.objects.create(text=f"{instance.text}")


class Slugged(models.Model):
    """The slug is filled in where it is empty."""

    t = models.CharField(max_length=100, default="")
    slug = models.CharField(max_length=100, default="")
    n = models.IntegerField(default=0)

    def save(self, *args, **kwargs):
        if not self.slug:
            self.slug = slugify(self.t)
        super().save(*args, **kwargs)


class Coded(models.Model):
    """The code is normalised."""

    code = models.CharField(max_length=100, default="")
    used = models.IntegerField(default=0)

    def save(self, *args, **kwargs):
        self.code = self.code.upper()
        if kwargs.get("update_fields") is not None:
            kwargs["update_fields"] = {"code"} | set(kwargs["update_fields"])
        super().save(*args, **kwargs)


class Cached(models.Model):
    """Its save and delete tell the cache of the event, whatever has changed."""

    event = models.ForeignKey(Event, on_delete=CASCADE, related_name="cached")
    n = models.IntegerField(default=0)

    def save(self, *args, **kwargs):
        super().save(*args, **kwargs)
        self.event.cache.set("v", True)

    def delete(self, *args, **kwargs):
        self.event.cache.delete("v")


class Seat(models.Model):
    event = models.ForeignKey(Event, on_delete=CASCADE, related_name="seats")
    n = models.IntegerField(default=0)


@receiver(post_save, sender=Seat)
def seat_saved(instance, **kwargs):
    instance.event.cache.clear()


class Checked(models.Model):
    n = models.IntegerField(default=0)

    def save(self, *args, **kwargs):
        if self.n < 0:
            raise ValueError(self.n)
        super().save(*args, **kwargs)


class Part(models.Model):
    """Its save updates others, by a helper that only it calls."""

    book = models.ForeignKey(Book, on_delete=CASCADE, related_name="parts")
    n = models.IntegerField(default=0)

    def save(self, *args, **kwargs):
        super().save(*args, **kwargs)
        Book.objects.filter(pk=self.book_id).update(n=self.n)
        self._tell()

    def _tell(self):
        Visitors.objects.filter(pk=self.pk).update(n=self.n)


class Document(models.Model):
    file = models.FileField()
    state = models.ForeignKey(State, null=True, on_delete=SET_NULL, related_name="documents")

    def delete(self, *args, **kwargs):
        self.file.delete(save=False)
        return super().delete(*args, **kwargs)


class Watched(models.Model):
    """What its receivers do depends on what they noted of it before, or on what kind of model it is."""

    place = models.CharField(max_length=100, default="")
    note = models.CharField(max_length=100, default="")

    def watch(self):
        return self.place


@receiver(pre_save, sender=Watched)
def before_move(instance, **kwargs):
    if not instance.pk:
        return
    old = Watched.objects.filter(pk=instance.pk).first()
    if old and old.place != instance.place:
        instance.__dict__["moved_from"] = old.place


@receiver(post_save, sender=Watched)
def after_move(instance, **kwargs):
    before = instance.__dict__.pop("moved_from", None)
    if before is None:
        return
    Log.objects.create(text=f"moved {instance.note}")


def hear_who_can_be_watched(sender, instance, **kwargs):
    if not hasattr(instance, "watch"):
        return
    Log.objects.create(text="watched")


def hear_some(sender, instance, **kwargs):
    for each in LISTENERS.get(sender, []):
        each(instance)


LISTENERS = {}


def unique_name(row):
    return f"{row.title}-{row.pk}"


class Named(models.Model):
    """The name is filled in by a function that is handed the whole record; its check is only written by others."""

    title = models.CharField(max_length=100, default="")
    name = models.CharField(max_length=100, default="")
    kind = models.CharField(max_length=100, default="")

    def save(self, *args, **kwargs):
        if not self.name:
            self.name = unique_name(self)
        self.seen = True
        super().save(*args, **kwargs)
        if not self.kind:
            Log.objects.create(text="no kind")
        Searcher().index(self)


class Searcher:
    def index(self, row):
        raise NotImplementedError


class Refusing(QuerySet):
    def error(self, *args, **kwargs):
        raise ValueError

    update = error


class Scoped(models.Model):
    n = models.IntegerField(default=0)

    objects = Refusing.as_manager()

    def save(self, *args, **kwargs):
        super().save(*args, **kwargs)
        count_scoped.delay(self.pk)


class Task:
    def delay(self, *args):
        return None


def shared_task(function):
    return function


@shared_task
def count_scoped(key):
    Log.objects.create(text=str(Scoped.objects.filter(n__gt=1).count()))


class Root(models.Model):
    """What is done for a root is done for its branches and their leaves, three hops away."""

    name = models.CharField(max_length=100, default="")


class Branch(models.Model):
    root = models.ForeignKey(Root, on_delete=CASCADE)


class Leaf(models.Model):
    branch = models.ForeignKey(Branch, on_delete=CASCADE)


@receiver(post_save, sender=Root)
def root_saved(instance, created, **kwargs):
    if created:
        plant(instance)
    else:
        Branch.objects.filter(root=instance).delete()


def plant(root):
    transaction.on_commit(lambda: Branch.objects.create(root=root))


@receiver(post_save, sender=Branch)
def branch_saved(instance, **kwargs):
    Leaf(branch=instance).save()


@receiver(post_save, sender=Leaf)
def leaf_saved(instance, **kwargs):
    Author.objects.get_or_create(name="leaf")
    Branch.objects.bulk_create([])


@receiver(post_delete, sender=Leaf)
def leaf_deleted(instance, **kwargs):
    Event.objects.filter(pk=1).update(name="a leaf less")


class Tracked(models.Model):
    """Its save acts where a column has changed, and on demand."""

    place = models.CharField(max_length=100, default="")
    start = models.IntegerField(default=0)
    note = models.CharField(max_length=100, default="")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.__place, self._start = self.place, self.start

    def save(self, *args, loudly=False, **kwargs):
        in_full = kwargs.pop("in_full", False)
        is_new = not bool(self.pk)
        super().save(*args, **kwargs)
        if loudly or in_full:
            Log.objects.create(text="on demand")
        if is_new or self.start != self._start:
            Log.objects.create(text=f"{self.note}")


@receiver(post_save, sender=Tracked)
def tracked_saved(instance, **kwargs):
    Event.objects.get_or_create(name=instance.note)


class Stashing(models.Model):
    """An attribute that is no column is set from one column when a record is read, and from another before it is saved."""

    place = models.CharField(max_length=100, default="")
    start = models.IntegerField(default=0)
    note = models.CharField(max_length=100, default="")
    idle = models.CharField(max_length=100, default="")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._was = self.start


@receiver(pre_save, sender=Stashing)
def stash(instance, **kwargs):
    instance._also = instance.note
    instance._was = instance.place


@receiver(post_save, sender=Stashing)
def stashed(instance, **kwargs):
    if instance._was or instance._also:
        Log.objects.create(text="stashed")


class Own(QuerySet):
    def bulk_create(self, objs, **kwargs):
        made = super().bulk_create(objs, **kwargs)
        Log.objects.create(text="ours")
        return made


class Owned(models.Model):
    objects = Own.as_manager()


@receiver(post_save, sender=Owned)
def owned_saved(instance, **kwargs):
    Log.objects.create(text="owned")


def hear_all(instance, **kwargs):
    Index().note(instance)


class Index:
    def note(self, row):
        self.backend.note(row)


class Guarded(models.Model):
    a = models.IntegerField(default=0)
    b = models.IntegerField(default=0)

    def has_changed(self, name):
        return True

    def save(self, *args, **kwargs):
        self.b = self.a + 1
        super().save(*args, **kwargs)
        if self.has_changed("a"):
            transaction.on_commit(partial(plant, Root()))
            transaction.on_commit(forget)


def forget():
    Log.objects.all().delete()


def hear_two(sender, instance, **kwargs):
    if sender not in (Guarded, Whisper):
        return
    Log.objects.create(text="one of two")


def hear_one(sender, instance, **kwargs):
    if sender is Guarded:
        Log.objects.create(text="one")


def hear_kind(sender, instance, **kwargs):
    if issubclass(sender, Loud):
        Log.objects.create(text="loud")


def hear_type(instance, **kwargs):
    if type(instance) == Guarded:  # noqa: E721
        Log.objects.create(text="its type")


def hear_matching(instance, **kwargs):
    match instance.text:
        case "loud":
            Log.objects.create(text=instance.text)


def hear_guarded(instance, **kwargs):
    match instance.text:
        case text if Log.objects.get_or_create(text=text):
            pass


def hear_group(instance, **kwargs):
    try:
        instance.full_clean()
    except* ValueError:
        Log.objects.create(text=instance.text)


def hear_unpacked(instance, **kwargs):
    text, *_ = instance.text, 1
    if text:
        Log.objects.create(text="unpacked")


def hear_assigned_at_once(instance, **kwargs):
    instance.pk, instance.text = None, instance.text.upper()


def hear_walrus(instance, **kwargs):
    if (text := instance.text.upper()) and kwargs:
        Log.objects.create(text=text)


def hear_either(instance, **kwargs):
    text = "none"
    if kwargs:
        text = instance.text
    if not kwargs:
        text = "some"
    Log.objects.create(text=text)


def hear_made(instance, **kwargs):
    created = Event.objects.filter(name=instance.text).exists()
    if created:
        Log.objects.create(text=instance.text)


def hear_asked_for(instance, notify=False, **kwargs):
    notify = notify or bool(instance.text)
    if notify:
        Log.objects.create(text=instance.text)


def hear_asked(sender, instance, **kwargs):
    for each in sender._meta.get_fields():
        Log.objects.create(text=each.name)


class Various(models.Model):
    n = models.IntegerField(default=0)
    note = models.CharField(max_length=100, default="")

    def save(self, *args, **kwargs):
        me = self
        me.n += 1
        self.full_clean()
        for each in Event.objects.filter(name=self.note):
            each.save()
        try:
            super().save(*args, **kwargs)
        except ValueError:
            Log.objects.create(text=self.note)

    def delete(self, *args, **kwargs):
        with transaction.atomic():
            Log.objects.filter(text=self.note).delete()
        return super().delete(*args, **kwargs)


class Awaited(models.Model):
    """Its save and its receiver await what they do."""

    n = models.IntegerField(default=0)

    async def asave(self, *args, **kwargs):
        await super().asave(*args, **kwargs)


@receiver(post_save, sender=Awaited)
async def awaited_saved(instance, **kwargs):
    if not await Author.objects.filter(name=str(instance.n)).aexists():
        author = await Author.objects.acreate(name=str(instance.n))
        await Log(text=author.name).asave()
    await Event.objects.filter(name="").adelete()


class Publishing(models.Model):
    """Its save does nothing more where only the state is saved, and looks at the number where that is among what is saved."""

    state = models.CharField(max_length=100, default="")
    n = models.IntegerField(default=0)
    title = models.CharField(max_length=100, default="")

    def save(self, *args, force_insert=False, update_fields=None, **kwargs):
        if (
            not self._state.adding
            and not force_insert
            and update_fields is not None
            and set(update_fields) <= {"state"}
        ):
            super().save(update_fields=update_fields)
            return
        super().save(*args, **kwargs)
        Log.objects.create(text=f"{self.state} {self.n} {self.title}")


@receiver(post_save, sender=Publishing)
def number_published(instance, update_fields=None, **kwargs):
    if update_fields is not None and "n" in update_fields:
        Log.objects.create(text=f"{instance.n} {instance.title}")


@receiver(post_save, sender=Publishing)
def publishing_noted(**kwargs):
    Log.objects.create(text="published")


class Routed(models.Model):
    """It asks a router where its log stands, and nobody is seen to keep it quiet."""

    title = models.CharField(max_length=100, default="")
    n = models.IntegerField(default=0)

    def save(self, *args, **kwargs):
        super().save(*args, **kwargs)
        if not getattr(self, "_quiet", False):
            using = router.db_for_write(Log, instance=self)
            Log.objects.using(using).create(text=self.title)


class Hushed(models.Model):
    """A receiver says from what nobody knows whether its save is quiet."""

    n = models.IntegerField(default=0)

    def save(self, *args, **kwargs):
        super().save(*args, **kwargs)
        if not getattr(self, "_quiet", False):
            Log.objects.create(text="saved")


@receiver(pre_save, sender=Hushed)
def hush(instance, **kwargs):
    instance._quiet = Index().backend.is_quiet(instance)


class Halves(models.Model):
    """What is done after a save depends on one half alone."""

    one = models.IntegerField(default=0)
    other = models.IntegerField(default=0)


@receiver(post_save, sender=Halves)
def half_saved(instance, **kwargs):
    Log.objects.create(text=str(instance.one))


OTHERS = ("other",)
ONES = ["one", "other"]
CHANGING = ["other"]


def set_others(rows):
    Halves.objects.bulk_update(rows, OTHERS)


def set_ones(rows):
    Halves.objects.bulk_update(rows, ONES)


def set_changing(rows):
    Halves.objects.bulk_update(rows, CHANGING)


def change(names):
    global CHANGING  # noqa: PLW0603 - so that nobody can tell what it holds
    CHANGING = names


class Page(View):
    def put_name(self, name):
        Halves.objects.update(**{name: 1})

    def put(self):
        self.put_name("other")


class Plain:
    def put_text(self, name):
        Halves.objects.update(**{name: 1})

    def put(self):
        self.put_text("other")


class Summed(models.Model):
    part = models.IntegerField(default=0)
    total = models.IntegerField(default=0)

    def save(self, *args, **kwargs):
        self.total = self.part
        super().save(*args, **kwargs)


class Trunk(models.Model):
    """Its own delete() does to its boughs what their foreign key does anyway."""

    name = models.TextField(default="")

    def delete(self, *args, **kwargs):
        Bough.objects.filter(height__gt=1, trunk=self.pk).update(trunk=None)
        return super().delete(*args, **kwargs)


class Bough(models.Model):
    height = models.IntegerField(default=1)
    trunk = models.ForeignKey(Trunk, null=True, on_delete=SET_NULL, related_name="boughs")
    graft = models.ForeignKey(Trunk, null=True, on_delete=CASCADE, related_name="grafts")
    nest = models.IntegerField(null=True)


class Passing(QuerySet):
    def update(self, **values):
        return super().update(**values)


class Passed(models.Model):
    """Its methods only hand on to Django's."""

    n = models.IntegerField(default=0)

    objects = Passing.as_manager()

    def save(self, *args, **kwargs):
        super().save(*args, **kwargs)

    def delete(self, *args, **kwargs):
        return super().delete(*args, **kwargs)


class Ordering(models.Model):
    """It writes others by methods of their own."""

    passed = models.ForeignKey(Passed, null=True, on_delete=SET_NULL)

    def save(self, *args, **kwargs):
        super().save(*args, **kwargs)
        Passed.objects.filter(n=1).update(n=2)
        Passed(n=self.pk).save()

    def delete(self, *args, **kwargs):
        self.passed.delete()
        return super().delete(*args, **kwargs)
