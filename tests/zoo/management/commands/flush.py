"""`flush`, which Django's tests call after each test with transactions, for a database in which most tables are empty.

Django's own truncates every table and has each app make again what it makes after a migration, which takes longer than most
tests. What is made are content types and permissions: they stay, unless a test has changed the content types.
"""

from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.core.management.color import no_style
from django.core.management.commands import flush
from django.db import connections, router

MADE = {"django_content_type", "auth_permission"}


class Command(flush.Command):
    def handle(self, **options):
        using = options["database"]
        kinds = {
            (each._meta.app_label, each._meta.model_name)
            for each in apps.get_models()
            if router.allow_migrate_model(using, ContentType)
        }
        there = ContentType._base_manager.using(using).values_list("app_label", "model")
        if set(there) != kinds:
            super().handle(**options)
            return
        connection = connections[using]
        tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
        filled = _filled(connection, [each for each in tables if each not in MADE])
        # CASCADE reaches empty tables alone.
        cascade = connection.vendor == "postgresql"
        connection.ops.execute_sql_flush(
            connection.ops.sql_flush(no_style(), filled, reset_sequences=False, allow_cascade=cascade)
        )


def _filled(connection, tables):
    quoted = connection.ops.quote_name
    looks = [f"SELECT '{each}' WHERE EXISTS (SELECT 1 FROM {quoted(each)})" for each in tables]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(looks))
        return [name for (name,) in cursor.fetchall()]
