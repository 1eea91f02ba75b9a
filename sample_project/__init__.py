"""A small shop that lives on signals: the demo, and the host of the tests."""

from sample_project.celery import app as celery_app

__all__ = ["celery_app"]
