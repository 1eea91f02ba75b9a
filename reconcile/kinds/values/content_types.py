"""Keys of content types and permissions, as expressions: a rule names a model or a permission, and nothing is queried before it runs."""

from __future__ import annotations

from typing import Any

from django.db.models import Model, QuerySet, Subquery

__all__ = ["ContentTypeOf", "PermissionOf"]


class _KeyOf(Subquery):
    """The key of one row that is the same for all records: the database looks it up once a statement."""

    is_constant = True
    """No record has another, so that rows of another key are none of the rule's."""

    def __init__(self, rows: QuerySet[Any], words: str) -> None:
        self._words = words
        super().__init__(rows.order_by().values("pk")[:1])

    def in_words(self, model: type[Model] | None) -> str:  # noqa: ARG002
        """What it is the key of."""
        return self._words


class ContentTypeOf(_KeyOf):
    """The content type of a model: `link={"content_type": ContentTypeOf(Order), "object_id": F("pk")}`.

    model: a model, or its label. for_concrete_model: of a proxy, that of the model behind it, as a generic foreign key keeps it.
    NULL, and so no row, where the content type isn't there yet.
    """

    def __init__(self, model: type[Model] | str, *, for_concrete_model: bool = True) -> None:
        from django.apps import apps
        from django.contrib.contenttypes.models import ContentType

        found = apps.get_model(model) if isinstance(model, str) else model
        meta = (found._meta.concrete_model or found)._meta if for_concrete_model else found._meta
        rows = ContentType._base_manager.filter(app_label=meta.app_label, model=meta.model_name)
        super().__init__(rows, f"the content type of {meta.label}")


class PermissionOf(_KeyOf):
    """The permission of a dotted name, as `has_perm` takes it: `PermissionOf("shop.view_order")`.

    NULL, and so no row, where there is no such permission. Raises ValueError for a name without a point.
    """

    def __init__(self, name: str) -> None:
        from django.contrib.auth.models import Permission

        app, point, codename = name.partition(".")
        if not (app and point and codename):
            raise ValueError(
                f"PermissionOf({name!r}): give the application and the codename: 'shop.view_order'."
            )
        rows = Permission._base_manager.filter(content_type__app_label=app, codename=codename)
        super().__init__(rows, f"the permission {name}")
