"""The Django app: its label, its key type, and the registration of its system checks."""

from __future__ import annotations

from django.apps import AppConfig

__all__ = ["ReconcileConfig"]


class ReconcileConfig(AppConfig):
    """`reconcile` in INSTALLED_APPS."""

    name = "reconcile"
    verbose_name = "Reconcile"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks. Rules are not imported yet: they are when somebody asks for them."""
        import reconcile.checks  # noqa: F401
