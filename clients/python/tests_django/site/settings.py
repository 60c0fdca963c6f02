"""A Django project with the gateway as its Tasks backend."""
import os

SECRET_KEY = "tests"
USE_TZ = True
INSTALLED_APPS = ["shop"]
DATABASES = {}
TASKS = {
    "default": {
        "BACKEND": "taskgate.django.TaskgateBackend",
        "QUEUES": ["default", "mail"],
        "OPTIONS": {"URL": os.environ["TASKGATE_URL"]},
    },
    "rabbit": {"BACKEND": "taskgate.django.TaskgateBackend", "QUEUES": [], "OPTIONS": {"FIRST_PRIORITY": 9}},
}
