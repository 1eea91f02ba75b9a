"""Settings of a project that lacks the app."""

SECRET_KEY = "x"
INSTALLED_APPS = ["django.contrib.contenttypes"]
