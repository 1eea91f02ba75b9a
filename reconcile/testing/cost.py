"""Asserts what the effects of a save cost at most, so that a change that makes saves dearer is seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy

from django.db.models import Model

from reconcile.audit.cost.costing import cost_of_models, cost_of_new
from reconcile.audit.cost.counting import Counted
from reconcile.core.wording.names import plural
from reconcile.errors import UsageError
from reconcile.rules.registry import rules_if_any

__all__ = ["assert_cost"]


def assert_cost(
    what: type[Model] | Model | Callable[[], Model], *, at_most: int, using: str = "default"
) -> None:
    """Assert that the receivers, the own save() and the fields of a record need at most so many statements beyond its own, each time that it is saved.

    what: a function that makes an unsaved record; a saved record, which is saved again; or a model, of which the factories of rules make records, and existing
    rows are saved again: then the dearest of them counts. at_most: statements; those of savepoints don't count. The first save, which may look up content types, isn't counted. Callbacks of
    COMMIT are not run, and whatever is done is rolled back.

    Raises AssertionError with the statements of each effect, UsageError if there is no record to save, and what the save raises.
    """
    __tracebackhide__ = True
    name, counted = _of_model(what, using) if isinstance(what, type) else _of_one(what, using)
    if counted.k > at_most:
        listed = "".join(f"\n  {line}" for line in _statements(counted))
        raise AssertionError(
            f"A save of {name} needs {plural(counted.k, 'statement')} beyond its own, where at most {at_most:,} are allowed:{listed}"
        )


def _of_one(what: Model | Callable[[], Model], using: str) -> tuple[str, Counted]:
    made: list[Model] = []

    def make() -> Model:
        row = what if isinstance(what, Model) else what()
        if not isinstance(row, Model):
            raise UsageError(f"{what!r} makes {row!r}, which is no instance of a model.")
        made.append(row)
        # The function may give one instance again and again, which once saved would be a new one no more.
        return deepcopy(row)

    if isinstance(what, Model) and what._state.adding:
        raise UsageError(
            f"The {what._meta.label} is not saved, and can be saved as new but once. Give a function that makes it: lambda: {type(what).__name__}(…)."
        )
    counted = cost_of_new(make, using=using)
    return made[0]._meta.label, counted


def _of_model(model: type[Model], using: str) -> tuple[str, Counted]:
    if not issubclass(model, Model):
        raise UsageError(f"{model!r} is no model.")
    audit = cost_of_models(rules_if_any(), [model], using=using, deletes=False)
    (found,) = audit.models
    faults = {
        **audit.faults,
        **{key: why for each in found.acts.values() for key, why in each.faults.items()},
    }
    for what, why in faults.items():
        raise UsageError(f"Not each record of {model._meta.label} could be saved. {what}: {why}")
    if found.dearest is None:
        raise UsageError(
            f"There is no record of {model._meta.label} to save: {found.why}. Give a function that makes one: lambda: {model.__name__}(…)."
        )
    return model._meta.label, found.dearest


def _statements(counted: Counted) -> Iterator[str]:
    for (name, statement), times in counted.by_effect.items():
        often = f" ({plural(times, 'time')})" if times > 1 else ""
        yield f"{name or 'the save itself'}: {statement}{often}"
