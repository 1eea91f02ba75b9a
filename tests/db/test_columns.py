"""Random rules over a column of every type: after a repair the check is clean, and nothing that was right was written."""

import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import permutations

import pytest
from django.db.models import F
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra.django import TestCase

from reconcile import HaveRow, HaveValues, Rule
from tests.helpers import assert_finds, assert_repairs, examples
from tests.test_properties import assert_mended
from tests.zoo.models import Sheet, Sheet2

RELAXED = settings(max_examples=examples(15), deadline=None, suppress_health_check=list(HealthCheck))

LETTERS = st.characters(
    codec="utf-8", exclude_characters="\x00", max_codepoint=0xFFFF, exclude_categories=["Cs"]
)
WORDS = st.sampled_from(
    ["", "a", "A", "a ", " a", "ß", "é", "e\u0301", "%", "_", "'", '"', "\\", "1", "true"]
) | st.text(LETTERS, max_size=6).filter(
    # A text that is a column's name is refused, as one that could mean either.
    lambda text: text not in {field.name for field in Sheet._meta.get_fields()}
)
SLUGS = st.sampled_from(["", "a", "A", "a-b", "a_b"])
INTEGERS = st.integers(-3, 3)

VALUES = {
    "flag": st.booleans(),
    "maybe": st.none() | st.booleans(),
    "word": WORDS,
    "word_too": st.none() | WORDS,
    "prose": WORDS,
    "slug": SLUGS,
    "small": INTEGERS | st.sampled_from([-(2**15), 2**15 - 1]),
    "number": INTEGERS | st.sampled_from([-(2**31), 2**31 - 1]),
    "number_too": st.none() | INTEGERS,
    "large": INTEGERS | st.sampled_from([-(2**63), 2**63 - 1]),
    "natural": st.integers(0, 5),
    "ratio": st.sampled_from([0.0, 0.1, -1.5, 1e-9, 123456.75, 1 / 3]),
    "money": st.decimals("-9999.99", "9999.99", places=2),
    "fine": st.none() | st.decimals("-99.9999", "99.9999", places=4),
    "day": st.none() | st.dates(date(1990, 1, 1), date(2040, 1, 1)),
    "moment": st.none() | st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    "hour": st.none() | st.times(time(0), time(23, 59, 59)),
    "span": st.none() | st.timedeltas(timedelta(days=-3), timedelta(days=3)),
    "token": st.none() | st.sampled_from([uuid.UUID(int=number) for number in (0, 7, 2**128 - 1)]),
    "address": st.none() | st.sampled_from(["10.0.0.1", "::1", "2001:db8::1"]),
}
"""What each column may hold. Text of a kind that MariaDB's and SQLite's collations take for the same is among it."""

ALIKE = [
    ("flag", "maybe"), ("maybe", "flag"), ("word", "word_too"), ("word_too", "word"), ("prose", "word"), ("word_too", "prose"),
    ("number_too", "number"), ("number", "small"), ("large", "number"), ("number", "natural"), ("ratio", "number"),
    ("number", "ratio"), ("money", "fine"), ("fine", "money"), ("ratio", "money"), ("money", "natural"), ("day", "moment"),
    ("moment", "day"), ("word", "number"), ("prose", "money"), ("prose", "flag"), ("number", "flag"), ("prose", "token"),
]  # fmt: skip
"""Pairs of a column and another that it may be made equal to."""

NOT_NULL = {name for name in VALUES if not Sheet._meta.get_field(name).null}
PLAIN_PAIRS = [(to, of) for to, of in ALIKE if not (to in NOT_NULL and of not in NOT_NULL)]

rows = st.lists(st.fixed_dictionaries(VALUES), max_size=6)
constants = st.fixed_dictionaries({}, optional=VALUES).filter(bool)
copies = st.lists(
    st.sampled_from(PLAIN_PAIRS), min_size=1, max_size=3, unique_by=lambda pair: pair[0]
).filter(
    # A column that is both read and written would be a rule about what it was.
    lambda pairs: not {to for to, _ in pairs} & {of for _, of in pairs}
)


def within(values):
    """What the smaller columns can hold of the larger."""
    if abs(values.get("money", 0)) > Decimal(99999):
        values["money"] = Decimal(0)
    return values


class EveryColumn(TestCase):
    def make(self, rows, model=Sheet, **more):
        return model.objects.bulk_create([model(**within(row), **more) for row in rows])

    @RELAXED
    @given(rows=rows, columns=constants)
    def test_constants(self, rows, columns):
        self.make(rows)
        rule = Rule(name="constants", every=Sheet, must=HaveValues(**columns))
        assert [str(fault) for fault in rule.faults()] == []
        assert_mended(rule, Sheet)
        for sheet in Sheet.objects.all():
            for name, value in columns.items():
                assert getattr(sheet, name) == value, name

    @RELAXED
    @given(rows=rows, pairs=copies)
    def test_columns_of_the_same_record(self, rows, pairs):
        self.make(rows)
        rule = Rule(name="copies", every=Sheet, must=HaveValues(**{to: F(of) for to, of in pairs}))
        assert [str(fault) for fault in rule.faults()] == []
        assert_mended(rule, Sheet)

    def test_columns_that_hold_numbers_and_booleans(self):
        """Each may be made equal to each other: PostgreSQL casts a boolean to an integer of 32 bits alone, and back from one."""
        rows = [{"flag": True}, {"small": 2, "ratio": 2.5}, {"natural": 3, "money": Decimal(1)}]
        names = ["flag", "maybe", "small", "number", "large", "natural", "ratio", "money"]
        for to, of in permutations(names, 2):
            if to not in NOT_NULL or of in NOT_NULL:
                with self.subTest(to=to, of=of):
                    Sheet.objects.all().delete()
                    self.make(rows)
                    assert_mended(Rule(name="numbers", every=Sheet, must=HaveValues(**{to: F(of)})), Sheet)

    def test_a_boolean_is_any_number_but_0(self):
        for number in (-(2**63), -1, 0, 1, 2):
            self.make([{"large": number}])
        assert_mended(Rule(name="flags", every=Sheet, must=HaveValues(maybe=F("large"))), Sheet)
        assert {(sheet.large, sheet.maybe) for sheet in Sheet.objects.all()} == {
            (-(2**63), True), (-1, True), (0, False), (1, True), (2, True)
        }  # fmt: skip

    @RELAXED
    @given(rows=rows, others=rows, names=st.sets(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4))
    def test_columns_of_a_row_in_another_table(self, rows, others, names):
        self.make(rows)
        numbers = list(Sheet.objects.values_list("pk", flat=True))
        for position, other in enumerate(others):
            self.make([other], Sheet2, sheet_number=numbers[position % len(numbers)] if numbers else None)
        must = HaveRow(Sheet2, link={"sheet_number": F("pk")}, values={name: F(name) for name in names})
        rule = Rule(name="row", every=Sheet, must=must)
        assert [str(fault) for fault in rule.faults()] == []
        assert_mended(rule, Sheet2)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("to", "of", "value", "stored"),
    [
        ("moment", "day", date(2020, 1, 2), datetime(2020, 1, 2, tzinfo=UTC)),
        ("hour", "moment", datetime(2020, 1, 2, 23, 4, 5, tzinfo=UTC), time(23, 4, 5)),
        ("hour", "moment", datetime(2020, 1, 2, 23, 4, 5, 678, tzinfo=UTC), time(23, 4, 5, 678)),
        ("day", "moment", datetime(2020, 1, 2, 23, 4, 5, tzinfo=UTC), date(2020, 1, 2)),
    ],
)
def test_times_are_stored_as_django_spells_and_finds_them(to, of, value, stored):
    right = Sheet.objects.create(**{of: value, to: stored})
    wrong = Sheet.objects.create(**{of: value})
    rule = Rule(name="times", every=Sheet, must=HaveValues(**{to: F(of)}))
    assert_finds(rule, stale=[wrong])
    assert_repairs(rule, update=1)
    assert set(Sheet.objects.filter(**{to: stored})) == {right, wrong}
