"""What caps and plan let a run write, chunk by chunk."""

import pytest

from reconcile.core.verbs import Written
from reconcile.errors import GivenUpError
from reconcile.repair.caps import Budget

pytestmark = pytest.mark.once


def test_what_a_chunk_has_written_is_taken_off_each_cap():
    budget = Budget(rows=10, deletes=3, planned=5, file="plan.json")
    budget.spend(Written(insert=2, delete=2), records=3)
    assert (budget.rows, budget.deletes, budget.planned) == (6, 1, 2)


@pytest.mark.parametrize(
    ("written", "records", "said"),
    [
        (Written(insert=3), 3, "The cap on repairs is reached: 2 more rows"),
        (Written(delete=2), 2, "The cap on deletes is reached: 1 more rows"),
        (Written(insert=2), 4, r"The plan in plan\.json is used up: 3 of its records"),
    ],
)
def test_the_chunk_that_would_go_beyond_what_is_left_stops(written, records, said):
    budget = Budget(rows=2, deletes=1, planned=3, file="plan.json")
    with pytest.raises(GivenUpError, match=said):
        budget.check(written, records=records)
    budget.check(Written(insert=1, delete=1), records=2)


def test_without_a_cap_nothing_stops():
    budget = Budget()
    budget.check(Written(insert=10**6, delete=10**6), records=10**6)
    budget.spend(Written(insert=10**6), records=10**6)
    assert (budget.rows, budget.deletes, budget.planned) == (None, None, None)
