"""Django's settings of a fleet that keeps its results with django-celery-results.

    DJANGO_SETTINGS_MODULE=django_results RESULTS_DATABASE=postgres://… celery -A app worker
"""
import os
from urllib.parse import urlsplit

_at = urlsplit(os.environ["RESULTS_DATABASE"])

SECRET_KEY = "of the tests"
INSTALLED_APPS = ["django_celery_results"]
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _at.path.removeprefix("/"),
        "HOST": _at.hostname,
        "PORT": _at.port,
        "USER": _at.username,
    }
}
