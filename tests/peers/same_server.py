"""A plugin for pytest: the suite's own connection to Redis goes to the server under test, which may have a password."""

import os

from redis import StrictRedis
from t.integration import tasks

tasks.get_redis_connection = lambda: StrictRedis.from_url(os.environ["TEST_BROKER"])
