"""The sample tasks, in plain Celery: no code here knows about taskgate.

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
    """Reads every list page of a category and stores the notices that are new."""
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
    """Processes a document in five stages and reports each stage."""
    value = upload_id
    for number, (name, stage) in enumerate(document.STAGES, start=1):
        self.update_state(state="PROGRESS", meta={
            "progress": number, "total": len(document.STAGES), "message": name,
        })
        value = stage(upload_id, value)
    return {"upload_id": upload_id, **value}


@app.task(bind=True)
def analyze_image(self, url, name):
    """Reads format and size of an uploaded picture from `url`."""
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
    """Indexes the notices with these numbers again; they are a chunk of a larger range."""
    return end - start


@app.task
def send_emails(emails):
    """Sends a batch of mail; the sample only counts them."""
    return len(emails)


@app.task(bind=True)
def request_info(self, *args, **kwargs):
    """Returns what the worker knows about this call."""
    names = ("id", "task", "retries", "args", "kwargs", "group", "root_id", "parent_id")
    return {name: getattr(self.request, name) for name in names}


@app.task
def daily_report():
    """Counts the saved notices."""
    return {"total_items": sum(crawl.saved().values())}


@app.task
def weekly_summary():
    """Counts the saved notices by category."""
    categories = crawl.saved()
    return {"categories": categories, "total_items": sum(categories.values())}


@app.task
def cleanup_old_sessions(max_age_days=30):
    """Removes sessions that were not used for `max_age_days`."""
    return upkeep.clean_up(max_age_days)
