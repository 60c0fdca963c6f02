"""The sample tasks, in plain Celery: nothing here knows that taskgate exists.

    celery -A tasks worker -l INFO -Q celery,crawl,document_processing,image_analysis
"""
import time

from celery import Celery

import crawl
import document
import image
import upkeep

app = Celery("tasks")
app.config_from_object("celeryconfig")


@app.task(bind=True)
def college_crawl_task(self, category_name):
    """Reads every list page of one category and remembers the notices that are new."""
    started = time.monotonic()
    total_items = saved_items = 0
    for page in crawl.pages(category_name):
        total_items += len(page.notices)
        saved_items += crawl.remember(category_name, page.notices)
        self.update_state(state="PROGRESS", meta={
            "progress": page.number,
            "total": page.total,
            "message": f"{category_name}: page {page.number} of {page.total}, {saved_items} new",
        })
    return {
        "total_items": total_items,
        "saved_items": saved_items,
        "duration": round(time.monotonic() - started, 3),
    }


@app.task(bind=True)
def process_document(self, upload_id):
    """Takes a document through its five stages and tells at which one it is."""
    value = upload_id
    for number, (name, stage) in enumerate(document.STAGES, start=1):
        self.update_state(state="PROGRESS", meta={
            "progress": number, "total": len(document.STAGES), "message": name,
        })
        value = stage(upload_id, value)
    return {"upload_id": upload_id, **value}


@app.task(bind=True)
def analyze_image(self, url, name):
    """Looks at an uploaded picture; `url` is where it can be read."""
    self.update_state(state="PROGRESS", meta={"progress": 1, "total": 2, "message": "read"})
    head, size, digest = image.read(url)
    self.update_state(state="PROGRESS", meta={"progress": 2, "total": 2, "message": "measure"})
    form, width, height = image.measured(head)
    return {"name": name, "format": form, "width": width, "height": height, "bytes": size, "sha256": digest}


@app.task
def add(x, y):
    return x + y


@app.task
def multiply(x, y):
    return x * y


@app.task
def sum_results(numbers):
    return sum(numbers)


@app.task
def reindex_notices(start, end):
    """Puts the notices with these numbers into the search index again; a chunk of a larger range."""
    return end - start


@app.task
def send_emails(emails):
    """Sends one batch; the sample only counts."""
    return len(emails)


@app.task(bind=True)
def request_info(self, *args, **kwargs):
    """What the worker knows about this call."""
    names = ("id", "task", "retries", "args", "kwargs", "group", "root_id", "parent_id")
    return {name: getattr(self.request, name) for name in names}


@app.task
def daily_report():
    """How many notices were saved."""
    return {"total_items": sum(crawl.saved().values())}


@app.task
def weekly_summary():
    """How many notices were saved, by category."""
    categories = crawl.saved()
    return {"categories": categories, "total_items": sum(categories.values())}


@app.task
def cleanup_old_sessions(max_age_days=30):
    """Removes the sessions that were not used for so many days."""
    return upkeep.clean_up(max_age_days)
