"""Which tables are on the second database: that of visits is not."""


class WithoutVisits:
    def allow_migrate(self, db, app_label, model_name=None, **hints):
        return False if db == "archive" and (app_label, model_name) == ("zoo", "visit") else None


class ReadElsewhere:
    """Reads go to another database, which has nothing."""

    def db_for_read(self, model, **hints):
        return "archive"

    def db_for_write(self, model, **hints):
        return "default"
