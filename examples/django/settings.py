"""A minimal project: no database, one app, and the gateway as the backend of its Tasks."""
import os

SECRET_KEY = "an example"
DEBUG = True
USE_TZ = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "shop.urls"
INSTALLED_APPS = ["shop"]
DATABASES = {}
TASKS = {
    "default": {
        "BACKEND": "taskgate.django.TaskgateBackend",
        "QUEUES": ["shop"],
        "OPTIONS": {"URL": os.environ["TASKGATE_URL"]},
    }
}
