"""Keys of content types and permissions, as expressions: a rule names a model or a permission, and nothing is queried before it runs."""

from __future__ import annotations

from django.db.models import Model

from reconcile.db.expressions import NamedRow

__all__ = ["ContentTypeOf", "PermissionOf"]


class ContentTypeOf(NamedRow):
    """The content type of a model: `link={"content_type": ContentTypeOf(Order), "object_id": F("pk")}`.

    model: a model, or its label. for_concrete_model: of a proxy, that of the model behind it, as a generic foreign key keeps it.
    A check of a rule on a database where the content type isn't there, is an error.
    """

    def __init__(self, model: type[Model] | str, *, for_concrete_model: bool = True) -> None:
        from django.apps import apps
        from django.contrib.contenttypes.models import ContentType

        found = apps.get_model(model) if isinstance(model, str) else model
        meta = (found._meta.concrete_model or found)._meta if for_concrete_model else found._meta
        rows = ContentType._base_manager.filter(app_label=meta.app_label, model=meta.model_name)
        super().__init__(rows, f"the content type of {meta.label}")


class PermissionOf(NamedRow):
    """The permission of a dotted name, as `has_perm` takes it: `PermissionOf("shop.view_order")`.

    A check of a rule on a database where it isn't there, or where two models of the application have it, is an error. Raises ValueError for a name without a point.
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
