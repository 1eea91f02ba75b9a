"""A link is looked up for each record, or in a set of all links: both find the same, whatever the columns hold."""

import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from unittest import mock

from django.db.models import CharField, F, IntegerField, Subquery, Value
from django.db.models.functions import Coalesce, Concat
from django.utils import timezone
from hypothesis import HealthCheck, assume, given, settings, strategies as st
from hypothesis.extra.django import TestCase

from reconcile import EXTRA, AtLeast, AtMost, Delete, Exactly, HaveRow, Rule
from reconcile.core.drift import MISSING
from reconcile.core.fixes import Correction, Insertion
from reconcile.core.scopes import EVERYTHING, Keys
from reconcile.kinds.have_row.link import Linked
from tests.helpers import examples, repaired
from tests.zoo.models import Contact, Parcel, Sheet, Sheet2, Staff, Team

RELAXED = settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.too_slow])

FEW = {
    "word": ["a", "A", "a ", "b", ""],
    "word_too": ["a", "A", None, ""],
    "number": [0, 1, 2**31 - 1],
    "number_too": [0, 1, None],
    "large": [0, 2**62],
    "money": [Decimal("0.10"), Decimal("0.2"), Decimal(100)],
    "ratio": [0.1, 1.5],
    "day": [None, date(2026, 1, 31), date(2026, 2, 1)],
    "moment": [None, datetime(2026, 1, 31, 12, 0, 0, 5, tzinfo=UTC), datetime(2026, 1, 31, 12, tzinfo=UTC)],
    "flag": [True, False],
    "token": [None, uuid.UUID(int=7), uuid.UUID(int=8)],
}
COMPUTED = {
    "word": Concat(F("word"), Value(""), output_field=CharField()),
    "word_too": Coalesce(F("word_too"), F("word")),
    "number": F("number") * 1,
    "number_too": Coalesce("number_too", Value(1), output_field=IntegerField()),
    "money": F("money") * 1,
}
columns = st.lists(st.sampled_from(sorted(FEW)), min_size=1, max_size=3, unique=True)
counts = st.sampled_from([Exactly(1), Exactly(2), AtLeast(1), AtLeast(2), AtMost(1)])


@st.composite
def rules(draw):
    names = draw(columns)
    link = {name: COMPUTED[name] if name in COMPUTED and draw(st.booleans()) else F(name) for name in names}
    if draw(st.booleans()):
        link["slug"] = "s"
    values = {
        name: F(name) for name in draw(st.lists(st.sampled_from(sorted({*FEW} - {*names})), max_size=2))
    }
    count = draw(counts)
    return HaveRow(Sheet2, link=link, count=count, values=values if isinstance(count, Exactly) else {})


def rows(draw, model, most):
    shapes = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in FEW.items()})
    made = draw(st.lists(shapes, max_size=most))
    model.objects.bulk_create([model(**each, slug=draw(st.sampled_from("st"))) for each in made])


def found(rule, *, by_lookup):
    """For each kind of drift what is found in all rows, and in each alone, and their number."""
    with (
        mock.patch.object(Linked, "leads_to_rows", by_lookup),
        mock.patch.object(Linked, "leads_to_records", by_lookup),
    ):
        answers = {}
        for finder in rule.compile(using="default", now=timezone.now()).finders:
            keys = list(finder.model.objects.values_list("pk", flat=True))
            one_by_one = [key for each in keys for key in finder.keys(Keys([each]))]
            answers[finder.drift] = (finder.keys(EVERYTHING), sorted(one_by_one), finder.count(EVERYTHING))
            if isinstance(finder.fix, Insertion):
                answers["owed"] = sorted(map(str, finder.fix.owed(Keys(keys))))
                answers["there"] = sorted(finder.fix.present(Keys(keys)).values_list("pk", flat=True))
            if isinstance(finder.fix, Correction):
                answers["wanted"] = sorted(map(str, finder.fix.wanted(Keys(keys))))
            if finder.lock.neighbours is not None:
                answers["alike"] = sorted(map(str, finder.lock.neighbours.alike(Keys(keys))))
        return answers


class TestSets(TestCase):
    @RELAXED
    @given(data=st.data())
    def test_both_find_the_same(self, data):
        rows(data.draw, Sheet, 8)
        rows(data.draw, Sheet2, 12)
        rule = Rule(name="sheets", every=Sheet, must=data.draw(rules()))
        assume(not list(rule.faults()))
        by_lookup, by_set = (found(rule, by_lookup=each) for each in (True, False))
        assert by_set == by_lookup
        for keys, one_by_one, count in (
            by_set[each.drift] for each in rule.compile(using="default", now=timezone.now()).finders
        ):
            assert (sorted(keys), count) == (one_by_one, len(keys))

    def test_a_text_under_a_foreign_key_is_compared_as_the_constraint_does(self):
        Staff.objects.create(code="x")
        chief = Staff.objects.get()
        made = Staff.objects.create(code="y", chief=chief)
        rule = Rule(
            name="chiefs",
            every=Staff.objects.filter(chief__isnull=False),
            must=HaveRow(Staff, link={"chief": F("chief"), "chain": F("chain")}, count=AtLeast(1)),
        )
        assert found(rule, by_lookup=True) == found(rule, by_lookup=False)
        assert made.chief_id == "x"

    def test_a_repair_over_several_columns_of_large_groups(self):
        team, other = Team.objects.create(name="a"), Team.objects.create(name="b")
        Parcel.objects.bulk_create(
            [Parcel(team=each, weight=place) for place in range(40) for each in (team, other)]
        )
        Contact.objects.bulk_create(
            [Contact(team=team, email=f"p-{place}", visits=9) for place in range(20, 60)]
        )
        Contact.objects.bulk_create([Contact(team=other, email=None)])
        email = Concat(Value("p-"), F("weight"), output_field=CharField())
        must = HaveRow(Contact, link={"team": F("team"), "email": email}, values={"visits": F("weight")})
        rule = Rule(name="contacts", every=Parcel, must=must, remedies={EXTRA: Delete()}, max_deletes=100)
        first = repaired(rule)
        assert (first.written.insert, first.written.update, first.written.delete, first.left) == (
            60,
            20,
            20,
            0,
        )
        assert repaired(rule).written.total == 0
        assert Contact.objects.filter(email__isnull=False).count() == 80

    def test_a_link_with_a_subquery(self):
        """MariaDB compares no row that has one."""
        first, other = Team.objects.create(name="a"), Team.objects.create(name="b")
        Parcel.objects.create(team=first, weight=1)
        wanted = Subquery(Team.objects.filter(name="b").values("pk")[:1])
        rule = Rule(
            name="sub", every=Parcel, must=HaveRow(Contact, link={"team": wanted, "visits": F("weight")})
        )
        assert found(rule, by_lookup=True)[MISSING][2] == 1
        assert repaired(rule).written.insert == 1
        assert Contact.objects.get().team == other
        assert repaired(rule).written.total == 0
