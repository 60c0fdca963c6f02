"""Asks the real Celery when random crontab expressions fire next, and writes the answers to next_runs.json.

    python tests/vectors/crontab/record.py          # needs celery 5.7

Each record is [expression, start, [next, next, next]], times in UTC without zone. Expressions that never fire are left out.
"""
import json
import pathlib
import random
from datetime import datetime, timedelta, timezone

import celery
from celery.schedules import crontab

RANDOM = random.Random(20261121)
DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat", "sunday", "Monday", "TUESDAY"]
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec", "January", "september"]


def number(least, most, names):
    if names and RANDOM.random() < 0.4:
        return RANDOM.choice(names)
    return str(RANDOM.randint(least, most))


def part(least, most, names):
    kind = RANDOM.random()
    if kind < 0.4:
        return number(least, most, names)
    if kind < 0.65:
        return f"{number(least, most, names)}-{number(least, most, names)}"
    if kind < 0.8:
        return f"{number(least, most, names)}-{number(least, most, names)}/{RANDOM.randint(1, 7)}"
    return f"*/{RANDOM.randint(1, max(2, most // 2))}"


def field(least, most, names=None, star=0.4):
    if RANDOM.random() < star:
        return "*"
    return ",".join(part(least, most, names) for _ in range(RANDOM.choice([1, 1, 1, 2, 3])))


def expression():
    return " ".join(
        [field(0, 59, star=0.2), field(0, 23), field(1, 31, star=0.5), field(1, 12, MONTHS, 0.6), field(0, 6, DAYS, 0.5)]
    )


def following(schedule, start, count):
    at = start
    for _ in range(count):
        schedule.nowfun = lambda at=at: at
        last, delta, _ = schedule.remaining_delta(at, tz=timezone.utc)
        at = last + delta
        yield at


def main():
    class App:
        """As much of an app as crontab asks for."""
        timezone = timezone.utc

    records = []
    while len(records) < 600:
        text = expression()
        start = datetime(2024, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=RANDOM.randint(0, 5 * 366 * 86_400))
        minute, hour, day, month, weekday = text.split()
        try:
            schedule = crontab(minute, hour, weekday, day, month, app=App())
            ticks = [at.strftime("%Y-%m-%dT%H:%M:%S") for at in following(schedule, start, 3)]
        except RuntimeError:
            continue
        records.append([text, start.strftime("%Y-%m-%dT%H:%M:%S"), ticks])
    path = pathlib.Path(__file__).with_name("next_runs.json")
    lines = ",\n".join(json.dumps(record) for record in records)
    path.write_text(f'{{"celery": "{celery.__version__}", "records": [\n{lines}\n]}}\n')


main()
