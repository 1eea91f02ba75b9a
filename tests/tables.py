"""Models whose tables exist for one test alone, with what Django makes of their constraints on the database at hand."""

from contextlib import contextmanager

from django.db import connection, models
from django.test.utils import isolate_apps


@isolate_apps("tests.zoo")
def model_of(name, fields, **meta):
    """A model that no registry has; `meta` are the options of its `class Meta`."""
    return type(
        name,
        (models.Model,),
        {"__module__": "tests.zoo.models", "Meta": type("Meta", (), {"app_label": "zoo", **meta}), **fields},
    )


@contextmanager
def table_of(name, fields, **meta):
    """The model, while its table is there. Only outside of transactions: MariaDB's tables know none."""
    model = model_of(name, fields, **meta)
    with connection.schema_editor() as editor:
        editor.create_model(model)
    try:
        yield model
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(model)
