"""A rule's fingerprint: the same for the same rule, another once anything changes that decides what is written."""

import dataclasses
import functools
import itertools
import operator
import re

import pytest
from django.db import models
from django.db.models import Count, Exists, F, OuterRef, Q, Sum, Value
from django.db.models.functions import Coalesce, Now

from reconcile import (
    EXTRA,
    MISSING,
    STALE,
    BeUnique,
    Call,
    Delete,
    Enqueue,
    FromPython,
    HaveRow,
    HaveRows,
    HaveValues,
    Insert,
    Latest,
    Report,
    Rule,
    Satisfy,
    Settle,
    Split,
    Update,
)
from reconcile.rules.fingerprints import _Describer, fingerprint
from reconcile.rules.registry import load
from sample_project.shop import services
from sample_project.shop.models import Article, Customer, Invoice, Item, Keyword, Order

pytestmark = pytest.mark.once


def slug(title):
    return title.lower()


def other_slug(title):
    return title.upper()


def times(factor):
    def computed(title):
        return title * factor

    return computed


def cached_times(factor):
    return functools.cache(times(factor))


def doubly(factor):
    """A decorator's own function stands before the one that it wraps."""

    def decorated(function):
        @functools.wraps(function)
        def computed(title):
            return function(title) * factor

        return computed

    return decorated(slug)


class Factor:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, title):
        return title * self.factor

    def computed(self, title):
        return title * self.factor


class Slotted:
    __slots__ = ("factor",)

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, title):
        return title * self.factor


@dataclasses.dataclass(frozen=True)
class Declared:
    factor: int

    def __call__(self, title):
        return title * self.factor


def with_default(factor):
    def computed(title, by=factor, *, of=frozenset({factor, "a", "b"})):
        return title * by

    return computed


def by_pattern(number):
    return functools.partial(re.compile("x" * 300 + str(number)).sub, "")


BOUND = {
    "a closure": times,
    "a closure that is cached": cached_times,
    "a decorator": doubly,
    "a method's object": lambda number: Factor(number).computed,
    "a callable object": Factor,
    "a callable object with slots": Slotted,
    "a callable dataclass": Declared,
    "a partial of a closure": lambda number: functools.partial(times(number)),
    "a built-in method": lambda number: {"a": number}.get,
    "an operator": operator.itemgetter,
    "defaults": with_default,
    "a long pattern": by_pattern,
    "a set": lambda number: times(frozenset({"a", "b", number})),
}


def of(**options):
    return fingerprint(
        Rule(**{"name": "r", "every": Order, "must": HaveValues(item_count=1), **options}), "default"
    )


def invoice(**options):
    given = {"link": {"order": F("pk")}, "values": {"amount": F("total")}, **options}
    return HaveRow(Invoice, **given)


RULES = [
    lambda: {"must": HaveValues(item_count=Count("items"))},
    lambda: {"must": HaveValues(item_count=Count("items", filter=Q(items__price__gt=1)))},
    lambda: {"must": HaveValues(total=Sum(F("items__price") * F("items__quantity")))},
    lambda: {"must": HaveValues(total=Sum(F("items__price") + F("items__quantity")))},
    lambda: {"must": HaveValues(customer_name=Coalesce(F("customer__name"), Value("")))},
    lambda: {"must": HaveValues(customer_name=Coalesce(F("customer__name"), Value("?")))},
    lambda: {"must": invoice()},
    lambda: {"must": invoice(values={"amount": F("total") + 1})},
    lambda: {"must": invoice(where=Q(amount__gt=0))},
    lambda: {"must": invoice(), "settle": Settle("created_at", minutes=15)},
    lambda: {"must": invoice(), "settle": Settle("created_at", minutes=16)},
    lambda: {"must": invoice(), "remedies": {MISSING: Report()}},
    lambda: {"must": invoice(), "remedies": {MISSING: Call(services.create_order)}},
    lambda: {"must": invoice(), "remedies": {MISSING: Call(functools.partial(services.create_order, 1))}},
    lambda: {"must": invoice(), "remedies": {MISSING: Enqueue("reconcile.nightly", batch=7)}},
    lambda: {"every": Order.objects.filter(status="paid"), "must": invoice()},
    lambda: {"every": Order.objects.filter(status="draft"), "must": invoice()},
    lambda: {"every": Order.objects.filter(created_at__lt=Now()), "must": invoice()},
    lambda: {"every": Order.objects.filter(Exists(Item.objects.filter(order=OuterRef("pk")))), "must": invoice()},
    lambda: {"every": Article, "must": HaveValues(slug=FromPython(slug, reads=["title"]))},
    lambda: {"every": Article, "must": HaveValues(slug=FromPython(other_slug, reads=["title"]))},
    lambda: {"every": Article, "must": HaveValues(slug=FromPython(slug, reads=["body"]))},
    lambda: {
        "every": Article,
        "must": HaveRows(Keyword, link={"article": F("pk")}, rows=slug, reads=["body"], key=["word"]),
        "remedies": {EXTRA: Delete()},
    },
    lambda: {"every": Customer, "must": HaveValues(last_order=Latest("orders", by=["-created_at", "-pk"]))},
    lambda: {"every": Customer, "must": HaveValues(last_order=Latest("orders", by=["created_at"]))},
    lambda: {"every": Customer, "must": BeUnique("email", keep=["-pk"], others={"email": ""})},
    lambda: {"every": Item, "must": Satisfy(Q(quantity__gte=1), values={"quantity": 1})},
    lambda: {"every": Item, "must": Satisfy(Q(quantity__gte=2), values={"quantity": 1})},
    lambda: {
        "every": Item,
        "must": HaveValues(quantity=1),
        "remedies": {STALE: Split(when=Q(price__gte=5), each=Call(services.archive_items), rest=Update())},
    },
]  # fmt: skip


@pytest.mark.parametrize("options", RULES, ids=range(len(RULES)))
def test_the_same_declaration_built_again_has_the_same_fingerprint(options):
    assert of(**options()) == of(**options())


def test_no_two_of_these_rules_have_the_same():
    assert len({of(**options()) for options in RULES}) == len(RULES)


def test_what_does_not_decide_what_is_written_does_not_count():
    assert of() == of(owner="me", tags=["a"], reason="why", max_repairs=3, unattended=True, warn_if=1)


def test_the_name_counts():
    assert of() != of(name="s")


def test_the_default_remedy_that_is_named_is_another_declaration():
    assert of(must=invoice()) != of(must=invoice(), remedies={MISSING: Insert()})


@pytest.fixture
def function_in_a_file(tmp_path):
    """From the source of a function to the function, as a module that is imported has it; each in a file of its own."""
    numbers = itertools.count()

    def make(source, name="slug"):
        file = tmp_path / f"functions_{next(numbers)}.py"
        file.write_text(source)
        space = {"__name__": "functions"}
        exec(compile(source, str(file), "exec"), space)
        return space[name]

    return make


def test_an_edited_function_changes_the_fingerprint(function_in_a_file):
    def made(body):
        return computing(function_in_a_file(f"def slug(title):\n    return {body}\n"))

    assert made("title.lower()") == made("title.lower()")
    assert made("title.lower()") != made("title.upper()")


def test_an_edited_lambda_changes_the_fingerprint(function_in_a_file):
    def made(body, beside=""):
        return computing(
            function_in_a_file(f"slug, other = (\n    lambda title: {body},\n    None,{beside}\n)\n")
        )

    assert made("title.lower()") == made("title.lower()")
    assert made("title.lower()") != made("title.upper()")
    assert made("title.lower()") == made("title.lower()", beside="  # what stands around it doesn't count")


def test_a_function_has_the_same_fingerprint_on_each_python():
    describer = _Describer(using="default")
    assert describer.describe(slug) == (
        "tests.rules.test_fingerprints.slug#2a4960619f8116731d2b9c2fcf3932a9ed57b9148a5f086a04533a03f6c82932"
    )


def faults_of(function, **options):
    value = FromPython(function, reads=["title"], **options)
    return [str(fault) for fault in Rule(name="r", every=Article, must=HaveValues(slug=value)).faults()]


def test_a_function_without_a_source_of_its_own_needs_a_version(function_in_a_file):
    space = {}
    exec("def slug(title):\n    return title", space)
    lambdas = function_in_a_file("slug = (lambda title: title, lambda title: title + 'x')\n")
    for function in (space["slug"], *lambdas, functools.partial(space["slug"])):
        (fault,) = faults_of(function)
        assert "has no source text of its own, so an edit of it would not be seen." in fault
        assert "version=1" in fault
        assert faults_of(function, version=1) == []


def test_a_function_of_c_needs_no_version():
    assert faults_of(str.upper) == faults_of(functools.partial(operator.add, "x")) == []


def test_a_version_is_a_number_or_a_text():
    (fault,) = faults_of(slug, version=[1])
    assert "version= is [1]" in fault
    assert any(
        "version= is 1.5" in str(each)
        for each in Call(services.create_order, version=1.5).faults(MISSING, None)
    )


def test_a_version_stands_in_the_place_of_what_the_function_does(function_in_a_file):
    first, second = (
        function_in_a_file(f"def slug(title):\n    return title.{each}()\n") for each in ("lower", "upper")
    )

    def versioned(function, version):
        value = FromPython(function, reads=["title"], version=version)
        return of(every=Article, must=HaveValues(slug=value))

    assert versioned(first, 1) == versioned(second, 1)
    assert versioned(first, 1) != versioned(first, 2)
    assert versioned(first, 1) != versioned(other_slug, 1)
    calls = [{MISSING: Call(services.create_order, version=each)} for each in (1, 1, 2, None)]
    told = [of(must=invoice(), remedies=each) for each in calls]
    assert told[0] == told[1]
    assert len({*told}) == 3


def computing(function):
    return of(every=Article, must=HaveValues(slug=FromPython(function, reads=["title"])))


@pytest.mark.parametrize("make", BOUND.values(), ids=BOUND)
def test_what_is_bound_to_a_function_counts(make):
    assert computing(make(2)) == computing(make(2))
    assert computing(make(2)) != computing(make(3))


def test_what_a_cache_has_kept_does_not_count():
    function = cached_times(2)
    before = computing(function)
    function("a")
    assert computing(function) == before


def test_what_a_cached_property_has_worked_out_does_not_count():
    class Lazy(Factor):
        @functools.cached_property
        def worked_out(self):
            return self.factor + 1

    function = Lazy(2)
    before = computing(function)
    assert function.worked_out == 3
    assert computing(function) == before


def test_a_function_that_holds_itself_has_a_fingerprint():
    def computed(title):
        return computed and title

    assert computing(computed) == computing(computed)


def test_a_callable_dataclass_whose_code_is_edited_is_another(function_in_a_file):
    def made(body):
        call = function_in_a_file(f"def __call__(self, title):\n    return {body}\n", name="__call__")
        return type("Declared", (Declared,), {"__call__": call})(2)

    assert computing(made("title")) == computing(made("title"))
    assert computing(made("title")) != computing(made("title + 'x'"))


def test_of_a_choice_the_value_counts_and_not_its_name():
    def choice(value):
        return models.TextChoices("State", [("OPEN", (value, "Open"))]).OPEN

    assert of(must=HaveValues(status=choice("open"))) != of(must=HaveValues(status=choice("opened")))
    assert of(must=HaveValues(status=choice("open"))) == of(must=HaveValues(status="open"))


def in_another_process(code, seed):
    import subprocess
    import sys

    from tests.helpers import ROOT, environment

    done = subprocess.run(
        [sys.executable, "-c", f"import django; django.setup(); {code}"],
        env={**environment(), "PYTHONHASHSEED": seed}, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.mark.process
def test_it_is_the_same_in_another_process():
    code = (
        "from reconcile.rules.registry import load; from reconcile.rules.fingerprints import fingerprint; "
        "print({name: fingerprint(rule, 'default') for name, rule in load().rules.items()})"
    )
    assert in_another_process(code, "1") == str(
        {name: fingerprint(rule, "default") for name, rule in load().rules.items()}
    )


@pytest.mark.process
def test_what_is_bound_is_the_same_in_another_process():
    code = "from tests.rules.test_fingerprints import BOUND, computing; print([computing(make(2)) for make in BOUND.values()])"
    here = str([computing(make(2)) for make in BOUND.values()])
    assert [in_another_process(code, seed) for seed in ("1", "2")] == [here, here]
