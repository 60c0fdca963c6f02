"""Settings from the environment, under the names that Celery users know."""
import os

broker_url = os.environ.get("CELERY_BROKER_URL", "redis://127.0.0.1:6379/0")
result_backend = os.environ.get("CELERY_RESULT_BACKEND", "redis://127.0.0.1:6379/1")
broker_connection_retry_on_startup = True
timezone = "Asia/Seoul"
