"""The Celery application that runs the project's tasks: celery -A worker worker -Q shop"""
import os

import django
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django.setup()

import taskgate.django  # noqa: E402 - Django has to be set up first

app = Celery("shop", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_BACKEND"])
taskgate.django.register(app)
