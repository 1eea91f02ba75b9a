"""The app configuration of the shop. It connects the receivers by importing them."""

from __future__ import annotations

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """The configuration of the app `shop`."""

    name = "sample_project.shop"
    label = "shop"

    def ready(self) -> None:
        """Connect the receivers."""
        from sample_project.shop import signals  # noqa: F401
