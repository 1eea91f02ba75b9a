"""The assertions themselves."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import DEFAULT_DB_ALIAS

from reconcile.rules import Rule
from reconcile.testing._choosing import Records, chosen, keys_of, model_of
from reconcile.testing._looking import look, look_at
from reconcile.testing._telling import raise_if_drifted

__all__ = ["assert_consistent", "assert_rules"]


def assert_consistent(
    records: Records,
    rules: Iterable[str | Rule] | None = None,
    *,
    using: str | None = None,
    settled: bool = True,
) -> None:
    """Assert that the rules are true of these records: a model, a queryset, or one record.

    rules: names of rules, or rules; unless given, all whose `every=` is over the model. using: the database; unless
    given, the records' own. settled: judge young records, too, as those of a test are. Any drift fails, whatever
    `warn_if` and `error_if` tolerate.

    Raises AssertionError with the rule, the keys, and what is there beside what is owed; UsageError where a rule doesn't
    exist or none is about the model. Costs the statements of a check; of a queryset, one more for its keys.
    """
    __tracebackhide__ = True
    model, home = model_of(records)
    using = using or home
    keys = keys_of(records, using)
    found = [
        look(rule, using=using) if keys is None else look_at(rule, keys, using=using)
        for rule in chosen(rules, using=using, settled=settled, model=model)
    ]
    raise_if_drifted(found)


def assert_rules(*rules: str | Rule, using: str = DEFAULT_DB_ALIAS, settled: bool = True) -> None:
    """Assert that the rules, all of the project unless some are given, are true of every record in the database.

    As `assert_consistent` otherwise.
    """
    __tracebackhide__ = True
    raise_if_drifted(
        [look(rule, using=using) for rule in chosen(rules or None, using=using, settled=settled)]
    )
