"""Fetches the list pages of a notice board and stores the notices that are new.

The board is at SAMPLE_SITE_URL, a category's pages at `{base}/{slug}/{number}`. A page looks like this:

    <main data-pages="3">
      <ul><li class="notice" data-id="volunteer-1"><a href="…">Title</a> …</li> …</ul>
    </main>
"""
import os
import sqlite3
import time
import urllib.request
from collections import namedtuple
from contextlib import closing
from html.parser import HTMLParser

SITE = os.environ.get("SAMPLE_SITE_URL", "http://127.0.0.1:8000/sample-site")
STATE = os.environ.get("SAMPLE_STATE", "sample-state.db")
# Seconds between two pages: a crawler that does not pause is a nuisance to the site.
PAUSE = float(os.environ.get("SAMPLE_PAGE_PAUSE", "0.2"))

SLUGS = {
    "봉사 공지사항 크롤링": "volunteer",
    "취업 공지사항 크롤링": "job",
    "장학금 공지사항 크롤링": "scholarship",
}

Notice = namedtuple("Notice", "id title url")
Page = namedtuple("Page", "number total notices")


class ListPage(HTMLParser):
    """Reads the notices and the number of pages from a list page."""

    def __init__(self, html):
        super().__init__()
        self.total, self.notices, self.current = 1, [], None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if "data-pages" in found:
            self.total = int(found["data-pages"])
        if tag == "li" and "notice" in (found.get("class") or "").split():
            self.current = {"id": found.get("data-id"), "title": "", "url": ""}
        elif tag == "a" and self.current is not None and not self.current["url"]:
            self.current["url"] = found.get("href", "")

    def handle_data(self, text):
        if self.current is not None and self.current["url"] and not self.current["title"]:
            self.current["title"] = text.strip()

    def handle_endtag(self, tag):
        if tag == "li" and self.current is not None:
            notice, self.current = self.current, None
            self.notices.append(Notice(notice["id"] or notice["url"], notice["title"], notice["url"]))


def pages(category_name):
    """The pages of a category, one after the other."""
    if category_name not in SLUGS:
        raise ValueError(f"unknown category {category_name!r}, known: {', '.join(SLUGS)}")
    number, total = 1, 1
    while number <= total:
        with urllib.request.urlopen(f"{SITE}/{SLUGS[category_name]}/{number}", timeout=10) as answer:
            page = ListPage(answer.read().decode("utf-8"))
        total = page.total
        yield Page(number, total, page.notices)
        number += 1
        time.sleep(PAUSE)


def remember(category_name, notices):
    """Stores the notices that are new; returns how many."""
    with closing(sqlite3.connect(STATE, timeout=30)) as state, state:
        state.execute(
            "create table if not exists notice (category text, id text, title text, url text, primary key (category, id))")
        before = state.total_changes
        state.executemany("insert or ignore into notice values (?, ?, ?, ?)",
                          [(category_name, *notice) for notice in notices])
        return state.total_changes - before


def saved():
    """The number of stored notices by category."""
    with closing(sqlite3.connect(STATE, timeout=30)) as state, state:
        state.execute(
            "create table if not exists notice (category text, id text, title text, url text, primary key (category, id))")
        return dict(state.execute("select category, count(*) from notice group by category"))
