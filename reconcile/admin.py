"""For the admin of a project: actions that write in bulk, with what the records owe. Registers nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db import router, transaction
from django.db.models import QuerySet
from django.http import HttpRequest

from reconcile.core.scopes import blocks
from reconcile.core.wording.names import plural
from reconcile.errors import ReconcileError
from reconcile.rules.rule import Rule
from reconcile.runs.ensuring import Ensured, ensure

__all__ = ["EnsureActionMixin", "ensure_selected"]

if TYPE_CHECKING:
    _Admin = admin.ModelAdmin[Any]
else:
    _Admin = object

Action = Callable[[Any, HttpRequest, QuerySet[Any]], Any]


class EnsureActionMixin(_Admin):
    """A mixin for `ModelAdmin`: after each of its actions, what the selected records owe is brought into being, in one transaction with the action.

        class ItemAdmin(EnsureActionMixin, admin.ModelAdmin):
            actions = ["archive"]

            def archive(self, request, queryset):
                queryset.update(status="archived")

    ensure_rules: rules or their names; unless given, all rules of the project that read the model.

    An action that writes nothing costs the statements of `ensure`. If what is owed can't be brought into being, the action is undone with it, and the
    user is told why. The records are those that were selected, whatever the action has made of them; for those that it deletes nothing is done.
    """

    ensure_rules: Sequence[Rule | str] | None = None

    def get_actions(self, request: HttpRequest) -> Any:
        """The actions, each followed by `ensure`."""
        found: Any = super().get_actions(request)
        return {
            name: (_followed(action, self.ensure_rules), own, description)
            for name, (action, own, description) in found.items()
        }


def _followed(action: Action, rules: Sequence[Rule | str] | None) -> Action:
    if action is ensure_selected:
        return action

    @wraps(action)
    def act(modeladmin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        using = router.db_for_write(queryset.model)
        # What is selected is asked for now: the action may write what the list filters by.
        keys = list(queryset.using(using).values_list("pk", flat=True))
        try:
            with transaction.atomic(using=using):
                response = action(modeladmin, request, queryset)
                ensured = _ensure(queryset, keys, rules, using)
        except ReconcileError as error:
            modeladmin.message_user(request, f"Nothing was done: {error}", messages.ERROR)
            return None
        _tell(modeladmin, request, ensured)
        return response

    return act


@admin.action(description="Bring into being what the selected records owe")
def ensure_selected(modeladmin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> None:
    """An action for any `ModelAdmin`: `ensure` the selected records, and tell what was written."""
    using = router.db_for_write(queryset.model)
    keys = list(queryset.using(using).values_list("pk", flat=True))
    try:
        with transaction.atomic(using=using):
            ensured = _ensure(queryset, keys, getattr(modeladmin, "ensure_rules", None), using)
    except ReconcileError as error:
        modeladmin.message_user(request, f"Nothing was done: {error}", messages.ERROR)
        return
    if not ensured.total:
        modeladmin.message_user(request, "The selected records owe nothing.")
    _tell(modeladmin, request, ensured)


def _ensure(
    queryset: QuerySet[Any], keys: Sequence[Any], rules: Sequence[Rule | str] | None, using: str
) -> Ensured:
    there = queryset.model._base_manager.using(using)
    rows = [row for block in blocks(keys) for row in there.filter(pk__in=block).only("pk")]
    return ensure(rows, rules, using=using) if rows else Ensured()


def _tell(modeladmin: Any, request: HttpRequest, ensured: Ensured) -> None:
    if ensured.total:
        named = ", ".join(sorted(ensured.written))
        modeladmin.message_user(request, f"Also written: {plural(ensured.total, 'row')} by {named}.")
    for name, why in ensured.refused.items():
        modeladmin.message_user(request, f"Left to a repair: {name}. {why}", messages.WARNING)
