"""What an expression stands for: the model whose rows a call is about, through names, functions, classes, collections and frameworks."""

from textwrap import dedent

import pytest
from django.test import override_settings

from reconcile.audit.searching import Search, search_bypasses

pytestmark = [pytest.mark.usefixtures("shelf"), pytest.mark.once]

HEAD = """
import copy
from collections import OrderedDict, defaultdict, deque
from functools import partial
from itertools import chain, islice
from typing import Annotated, Optional, Union, cast

from django import forms
from django.apps import apps
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db import models
from django.db.models import QuerySet
from django.shortcuts import get_list_or_404, get_object_or_404
from django.views.generic import DetailView, FormView
from tests.shelf import models as shelf
from tests.shelf.models import Author, Book, Club, State, Tracked
"""

BOOKS = {
    # Names and where they got their values.
    "an alias": "x = Book\nx.objects.update(n=1)",
    "an import of the module": "shelf.Book.objects.update(n=1)",
    "an import that another function makes of something else": "def g():\n    from tests.shelf.models import State as B\ndef f():\n    from tests.shelf.models import Book as B\n    B.objects.update(n=1)\ndef h():\n    from tests.shelf.models import State as B",
    "an import within a class": "class X:\n    from tests.shelf.models import Book as B\n    def f(self):\n        self.B.objects.update(n=1)\ndef h():\n    from tests.shelf.models import State as B",
    "an import within a function": "def f():\n    from tests.shelf.models import Book as B\n    B.objects.update(n=1)",
    "a name of the enclosing function": "def f():\n    rows = Book.objects.all()\n    def g():\n        rows.update(n=1)",
    "either arm": "def f(x):\n    if x:\n        rows = Book.objects.all()\n    else:\n        rows = Book.objects.none()\n    rows.update(n=1)",
    "the last that surely ran": "def f():\n    rows = State.objects.all()\n    rows = Book.objects.all()\n    rows.update(n=1)",
    "a conditional expression": "(Book.objects.all() if x else Book.objects.none()).update(n=1)",
    "one or the other": "(x or Book.objects.all()).update(n=1)",
    "a walrus": "def f():\n    if (rows := Book.objects.filter(n=1)):\n        rows.update(n=1)",
    "narrowed by isinstance": "def f(x):\n    if isinstance(x, Author):\n        x.books.update(n=1)",
    "narrowed by leaving": "def f(x):\n    if not isinstance(x, Author):\n        return\n    x.books.update(n=1)",
    "asserted": "def f(x):\n    assert isinstance(x, (Author, State))\n    x.books.update(n=1)",
    "an attribute by its name": "getattr(Book, 'objects').update(n=1)",
    "a default of getattr": "getattr(Book, 'objects', None).update(n=1)",
    # Rows.
    "combined rows": "(Book.objects.filter(n=1) | Book.objects.filter(n=2)).update(n=1)",
    "sliced": "Book.objects.all()[:3].update(n=1)",
    "values": "Book.objects.values('n').update(n=1)",
    "another database": "Book._base_manager.using('archive').update(n=1)",
    "the model of rows": "def f(author: Author):\n    author.books.model.objects.update(n=1)",
    "its own class": "def f(book: Book):\n    type(book).objects.update(n=1)\n    book._meta.model.objects.filter(n=1).update(n=1)",
    # One record and what hangs on it.
    "get": "Author.objects.get(pk=1).books.update(n=1)",
    "get_or_create": "author, made = Author.objects.get_or_create(pk=1)\nauthor.books.update(n=1)",
    "in_bulk": "Author.objects.in_bulk()[1].books.update(n=1)",
    "create": "Author.objects.create().books.update(n=1)",
    "a constructor": "Author(name='a').books.update(n=1)",
    "get_object_or_404": "get_object_or_404(Author.objects.all(), pk=1).books.update(n=1)",
    "get_list_or_404": "for each in get_list_or_404(Author):\n    each.books.update(n=1)",
    "a key followed": "def f(book: Book):\n    book.author.books.update(n=1)",
    "a copy": "def f(book: Book):\n    copy.copy(book).author.books.update(n=1)",
    "a cast": "cast('Author', x).books.update(n=1)",
    # Collections.
    "a list": "for each in [Author(), Author()]:\n    each.books.update(n=1)",
    "sorted": "for each in sorted(Author.objects.all()):\n    each.books.update(n=1)",
    "enumerate": "for i, each in enumerate(Author.objects.all()):\n    each.books.update(n=1)",
    "zip": "for a, b in zip(range(3), Author.objects.all()):\n    b.books.update(n=1)",
    "chain": "for each in chain(Author.objects.all(), []):\n    each.books.update(n=1)",
    "chain of several": "for each in chain.from_iterable([Author.objects.all()]):\n    each.books.update(n=1)",
    "islice": "for each in islice(Author.objects.all(), 3):\n    each.books.update(n=1)",
    "next": "next(iter(Author.objects.all())).books.update(n=1)",
    "max": "max(Author.objects.all()).books.update(n=1)",
    "filter": "for each in filter(None, Author.objects.all()):\n    each.books.update(n=1)",
    "map": "for each in map(lambda book: book.author, Book.objects.all()):\n    each.books.update(n=1)",
    "a comprehension": "[each.books.update(n=1) for each in Author.objects.all()]",
    "a generator that is walked": "for a in (b.author for b in Book.objects.all()):\n    a.books.update(n=1)",
    "a dictionary": "found = {each.pk: each for each in Author.objects.all()}\nfound[1].books.update(n=1)",
    "items of a dictionary": "found = {1: Author()}\nfor key, each in found.items():\n    each.books.update(n=1)",
    "values of a dictionary": "found = dict(a=Author())\nfor each in found.values():\n    each.books.update(n=1)",
    "get of a dictionary": "found = OrderedDict(a=Author())\nfound.get('a').books.update(n=1)",
    "a dictionary that is filled": "def f():\n    found = {}\n    found[1] = Author()\n    found[1].books.update(n=1)",
    "a list that is filled": "def f():\n    found = []\n    found.append(Author())\n    found.pop().books.update(n=1)",
    "a list that is extended": "def f():\n    found = []\n    found += Author.objects.all()\n    found[0].books.update(n=1)",
    "a set that is joined": "def f():\n    for each in {Author()}.union([Author()]):\n        each.books.update(n=1)",
    "a list within a defaultdict": "def f():\n    found = defaultdict(list)\n    found[1] = [Author()]\n    for each in found[1]:\n        each.books.update(n=1)",
    "unpacked": "def f():\n    (a, b), c = (1, Author()), 3\n    b.books.update(n=1)",
    # Functions.
    "what a function returns": "def rows():\n    return Book.objects.all()\nrows().update(n=1)",
    "what it is handed": "def rows(model):\n    return model.objects.all()\nrows(Book).update(n=1)",
    "by name": "def rows(*, model):\n    return model.objects.all()\nrows(model=Book).update(n=1)",
    "what it says it returns": "def rows() -> QuerySet[Book]:\n    return unknown()\nrows().update(n=1)",
    "what a generator yields": "def authors():\n    yield Author()\nfor each in authors():\n    each.books.update(n=1)",
    "what a generator hands on": "def authors():\n    yield from Author.objects.all()\nfor each in authors():\n    each.books.update(n=1)",
    "a partial": "def rows(n):\n    return Book.objects.all()\npartial(rows, 1)().update(n=1)",
    "a function that calls itself": "def rows(n):\n    return rows(n - 1) if n else Book.objects.all()\nrows(3).update(n=1)",
    "a default": "def f(x: Author = None):\n    x.books.update(n=1)",
    "an optional": "def f(x: Optional[Author]):\n    x.books.update(n=1)",
    "one or none": "def f(x: Author | None):\n    x.books.update(n=1)",
    "a union": "def f(x: Union[Author, None]):\n    x.books.update(n=1)",
    "an annotation as text": "def f(x: 'Author'):\n    x.books.update(n=1)",
    "annotated": "def f(x: Annotated[Author, 1]):\n    x.books.update(n=1)",
    "a list of": "def f(x: list[Author]):\n    x[0].books.update(n=1)",
    "a dictionary of": "def f(x: dict[int, Author]):\n    x[1].books.update(n=1)",
    "a class of": "def f(x: type[Book]):\n    x.objects.update(n=1)",
    "a name with an annotation": "def f():\n    x: Author = unknown()\n    x.books.update(n=1)",
    "who calls it": "def f(x):\n    x.books.update(n=1)\nf(Author())",
    "who calls the method": "class A:\n    def f(self, x):\n        x.books.update(n=1)\nA().f(Author())",
    "who makes it": "class A:\n    def __init__(self, x):\n        self.x = x\n    def f(self):\n        self.x.books.update(n=1)\nA(Author())",
    # Classes.
    "an attribute of a class": "class A:\n    rows = Book.objects.all()\nA.rows.update(n=1)",
    "a property": "class A:\n    @property\n    def rows(self):\n        return Book.objects.all()\nA().rows.update(n=1)",
    "a class method": "class A:\n    model = Book\n    @classmethod\n    def rows(cls):\n        return cls.model.objects.all()\nA.rows().update(n=1)",
    "a static method": "class A:\n    @staticmethod\n    def rows():\n        return Book.objects.all()\nA.rows().update(n=1)",
    "what a parent has": "class A:\n    def rows(self):\n        return Book.objects.all()\nclass B(A):\n    def rows(self):\n        return super().rows()\nB().rows().update(n=1)",
    "a class of its own class": "class A:\n    model = Book\n    def f(self):\n        self.__class__.model.objects.update(n=1)",
    # Models by name, and users.
    "a model by its label": "apps.get_model('shelf', 'Book').objects.update(n=1)",
    "a model by one label": "LABEL = 'shelf.Book'\napps.get_model(LABEL).objects.update(n=1)",
    # Frameworks.
    "a view's object": "class A(DetailView):\n    model = Author\n    def post(self, request):\n        self.object = self.get_object()\n        self.object.books.update(n=1)",
    "a view's queryset": "class A(DetailView):\n    queryset = Book.objects.all()\n    def post(self, request):\n        self.get_queryset().update(n=1)",
    "a view's own queryset": "class A(DetailView):\n    def get_queryset(self):\n        return Book.objects.all()\n    def post(self, request):\n        self.get_queryset().filter(n=1).update(n=1)",
    "a form's record": "class F(forms.ModelForm):\n    class Meta:\n        model = Author\n    def save(self):\n        author = super().save()\n        author.books.update(n=1)",
    "the record of a form": "class F(forms.ModelForm):\n    class Meta:\n        model = Author\nclass A(FormView):\n    form_class = F\n    def form_valid(self, form):\n        form.instance.books.update(n=1)",
    "what a view's form saves": "class F(forms.ModelForm):\n    class Meta:\n        model = Author\nclass A(FormView):\n    form_class = F\n    def form_valid(self, form):\n        form.save().books.update(n=1)",
    "a serializer's record": "class S(Unknown):\n    class Meta:\n        model = Author\n    def update(self, instance, validated_data):\n        instance.books.update(n=1)",
    "a serializer that is performed": "class S(Unknown):\n    class Meta:\n        model = Author\nclass V(Unknown):\n    serializer_class = S\n    def perform_create(self, serializer):\n        serializer.save().books.update(n=1)",
    "rows of an admin page": "class P(admin.ModelAdmin):\n    model = Book\n    def publish(self, request, queryset):\n        queryset.update(n=1)",
    "a receiver's instance": "from django.db.models.signals import post_save\nfrom django.dispatch import receiver\n@receiver(post_save, sender=Author)\ndef f(sender, instance, **kwargs):\n    instance.books.update(n=1)",
    "a receiver that is connected": "from django.db.models.signals import post_save\ndef f(sender, instance, **kwargs):\n    instance.books.update(n=1)\npost_save.connect(f, sender=Author)",
    "filtered rows of a view": "class A(Unknown):\n    queryset = Book.objects.all()\n    def list(self, request):\n        self.filter_queryset(self.get_queryset()).update(n=1)",
    "an arm of a match": "def f(x):\n    match x:\n        case 1:\n            rows = Book.objects.all()\n            rows.update(n=1)",
    "what a block enters": "from contextlib import contextmanager\n@contextmanager\ndef books():\n    yield Book.objects.all()\nwith books() as rows:\n    rows.update(n=1)",
    "tried": "def f():\n    try:\n        rows = Book.objects.all()\n    except ValueError:\n        rows = Book.objects.none()\n    finally:\n        pass\n    rows.update(n=1)",
    "while there are": "def f():\n    while rows := Book.objects.filter(n=1):\n        rows.update(n=1)",
    "walked asynchronously": "async def f():\n    async for each in Author.objects.all():\n        await each.books.aupdate(n=1)",
    "a dictionary that is made on the way": "{a.pk: a.books.update(n=1) for a in Author.objects.all()}",
    "keys of a dictionary": "for each in {Author(): 1}:\n    each.books.update(n=1)",
    "a dictionary made of pairs": "found = dict([(1, Author())])\nfound[1].books.update(n=1)",
    "a dictionary that is copied": "found = {1: Author()}\nfor each in found.copy().values():\n    each.books.update(n=1)",
    "the model of a form in a page": "class F(forms.ModelForm):\n    class Meta:\n        model = Author\nclass P(Unknown):\n    form = F\n    def f(self):\n        self.object.books.update(n=1)",
    "an own get_object": "class A(Unknown):\n    def get_object(self):\n        return Author.objects.get(pk=1)\n    def f(self):\n        self.object.books.update(n=1)",
    "the record of an admin page": "class P(admin.ModelAdmin):\n    model = Author\n    def save_model(self, request, obj, form, change):\n        obj.books.update(n=1)",
    "a form that a view gets": "class F(forms.ModelForm):\n    class Meta:\n        model = Author\nclass A(FormView):\n    form_class = F\n    def post(self, request):\n        self.get_form().save().books.update(n=1)",
    "a receiver of several": "from django.db.models.signals import post_save\nfrom django.dispatch import receiver\n@receiver([post_save], sender=Author)\ndef f(sender, **kwargs):\n    sender.objects.get(pk=1).books.update(n=1)",
    "a class that is named in a tuple": "for model in (Book,):\n    model.objects.update(n=1)",
    "a nested class": "class A:\n    class B:\n        model = Book\nA.B.model.objects.update(n=1)",
    "a function within a class's method": "class A:\n    rows = Book.objects.all()\n    def f(self):\n        def g():\n            return self.rows\n        g().update(n=1)",
    "rows of a class of its own": "class Q(QuerySet):\n    pass\nQ(Book).update(n=1)",
    "a lambda's body": "authors = map(lambda x: x, Author.objects.all())\nfor each in authors:\n    each.books.update(n=1)",
    "an attribute that is assigned": "class A:\n    def __init__(self):\n        self.rows: object = Book.objects.all()\n    def f(self):\n        self.rows.update(n=1)",
    "a manager's self": "class M(models.Manager):\n    def f(self):\n        return Book.objects.all()\nM().f().update(n=1)",
}  # fmt: skip

NOTHING = {
    "a number": "x = 3\nx.update(n=1)",
    "a text": "'a'.format(1).update(n=1)",
    "a parsed dictionary that is updated": "d = dict(a=1)\nd.update(n=1)",
    "what a deque has": "d = deque()\nd.clear()",
    "who is unknown to two callers": "def f(x):\n    x.clear()\nf([])\nf({})",
    "validated data": "class S(Unknown):\n    class Meta:\n        model = Author\n    def create(self, validated_data):\n        validated_data.update(n=1)",
    "a user class with a method update": "class A:\n    def update(self, **n): ...\nA().update(n=1)",
    "a namespace": "class A:\n    pass\nA.__dict__.update(n=1)",
}  # fmt: skip


@pytest.fixture
def models_of(tmp_path):
    def find(text):
        file = tmp_path / "paths.py"
        file.write_text(HEAD + dedent(text))
        found = search_bypasses({}, {}, Search(paths=[file])).bypasses
        return {each.model for each in found}

    return find


@pytest.mark.parametrize("text", BOOKS.values(), ids=BOOKS)
def test_the_model_is_told(models_of, text):
    assert models_of(text) == {"shelf.Book"}


@pytest.mark.parametrize("text", NOTHING.values(), ids=NOTHING)
def test_what_is_no_model_is_not_accused(models_of, text):
    assert models_of(text) == set()


UNKNOWN = {
    "a parameter that nobody hands in": "def f(x):\n    x.update(n=1)",
    "one that several hand in": "def f(x):\n    x.update(n=1)\nf(unknown)",
    "a model of a name that isn't there": "apps.get_model('shelf', name).objects.update(n=1)",
    "an annotation that isn't one": "def f(x: 'not a type('):\n    x.update(n=1)",
    "what is handed on with a star": "def f(x):\n    x.update(n=1)\nf(*things)",
    "what more than forty hand in": "def f(x):\n    x.update(n=1)\n" + "f(Book.objects.all())\n" * 50,
    "an attribute of something unknown": "unknown.rows.update(n=1)",
}


@pytest.mark.parametrize("text", UNKNOWN.values(), ids=UNKNOWN)
def test_what_cannot_be_told_is_unknown(models_of, text):
    assert models_of(text) == {None}


def test_the_user_of_a_request_is_known(models_of):
    text = "def f(request):\n    request.user.accesses.add(1)\nclass A:\n    def f(self):\n        self.request.user.groups.clear()"
    assert models_of(text) <= {"shop.Access"}, "nothing of an access is skipped, and groups are Django's"
    assert models_of("get_user_model().objects.bulk_create(rows)") == {"auth.User"}


@override_settings(AUTH_USER_MODEL="accounts.Person")
def test_a_project_without_users_has_none_to_stand_for(tmp_path):
    file = tmp_path / "views.py"
    file.write_text(
        "from django.contrib.auth import get_user_model\ndef f(request):\n    request.user.update(n=1)\n    get_user_model().objects.update(n=1)\n"
    )
    assert search_bypasses({}, {}, Search(paths=[file])).unreadable == []
