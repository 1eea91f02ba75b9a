"""For the admin of a project: actions that write in bulk, with what the records owe. Registers nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db import router, transaction
from django.db.models import QuerySet
from django.http import HttpRequest

from reconcile.core.wording.names import plural
from reconcile.db.django_compat import explicit_alias
from reconcile.errors import ReconcileError
from reconcile.rules.rule import Rule
from reconcile.runs.ensuring import Ensured, ensure
from reconcile.runs.watching import watching

__all__ = ["EnsureActionMixin", "ensure_selected"]

if TYPE_CHECKING:
    _Admin = admin.ModelAdmin[Any]
else:
    _Admin = object

Action = Callable[[Any, HttpRequest, QuerySet[Any]], Any]


class EnsureActionMixin(_Admin):
    """A mixin for `ModelAdmin`: after each of its actions, what is owed for its bulk writes is brought into being, in one transaction with the action.

        class ItemAdmin(EnsureActionMixin, admin.ModelAdmin):
            actions = ["archive"]

            def archive(self, request, queryset):
                queryset.update(status="archived")

    ensure_rules: rules or their names; unless given, all rules of the project that read what was written.

    The action runs in `watching()`. One that writes nothing in bulk, as a page that asks again first, has nothing done for it. If what is owed can't be brought
    into being, the action is undone with it, and the user is told why.
    """

    ensure_rules: Sequence[Rule | str] | None = None

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> Any:
        """The actions, each followed by `ensure`. action_location: the list or the form of one record, from Django 6.1 on."""
        where = {} if action_location is None else {"action_location": action_location}
        found: Any = super().get_actions(request, **where)
        return {name: _with_followed(action, self.ensure_rules) for name, action in found.items()}


def _with_followed(described: Any, rules: Sequence[Rule | str] | None) -> Any:
    """An action as Django describes it: (function, name, description), or an object with them from Django 6.1 on."""
    if isinstance(described, tuple):
        return (_followed(described[0], rules), *described[1:])
    return replace(described, func=_followed(described.func, rules))


def _followed(action: Action, rules: Sequence[Rule | str] | None) -> Action:
    if action is ensure_selected:
        return action

    @wraps(action)
    def act(modeladmin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        using = _home_of(queryset)
        try:
            with watching(rules, using=using) as watched:
                response = action(modeladmin, request, queryset)
        except ReconcileError as error:
            modeladmin.message_user(request, f"Nothing was done: {error}", messages.ERROR)
            return None
        _tell(modeladmin, request, watched.ensured or Ensured())
        return response

    return act


@admin.action(description="Bring into being what the selected records owe")
def ensure_selected(modeladmin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> None:
    """An action for any `ModelAdmin`: `ensure` the selected records, and tell what was written."""
    using = _home_of(queryset)
    try:
        with transaction.atomic(using=using):
            ensured = ensure(queryset.using(using), getattr(modeladmin, "ensure_rules", None), using=using)
    except ReconcileError as error:
        modeladmin.message_user(request, f"Nothing was done: {error}", messages.ERROR)
        return
    if not ensured.total:
        modeladmin.message_user(request, "The selected records owe nothing.")
    _tell(modeladmin, request, ensured)


def _home_of(queryset: QuerySet[Any]) -> str:
    """The database that the page shows, if it says which; else where the model is written."""
    return explicit_alias(queryset) or router.db_for_write(queryset.model)


def _tell(modeladmin: Any, request: HttpRequest, ensured: Ensured) -> None:
    if ensured.total:
        named = ", ".join(sorted(ensured.written))
        modeladmin.message_user(request, f"Also written: {plural(ensured.total, 'row')} by {named}.")
    for name, why in ensured.refused.items():
        modeladmin.message_user(request, f"Left to a repair: {name}. {why}", messages.WARNING)
