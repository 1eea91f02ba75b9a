"""The shop's app configuration; it imports the receivers, which is what connects them."""

from __future__ import annotations

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """`shop`."""

    name = "sample_project.shop"
    label = "shop"

    def ready(self) -> None:
        """Connect the receivers."""
        from sample_project.shop import signals  # noqa: F401
