"""The five stages of processing a document, shown on a sample document in the same folder.

A stage gets the upload's id and the result of the previous stage. The embedding is a bag of hashed words, so it needs no model, and the
same text always has the same vector.
"""
import hashlib
import math
import os
import re
import sqlite3
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

STATE = os.environ.get("SAMPLE_STATE", "sample-state.db")
SAMPLE = Path(__file__).with_name("sample-document.html")
CHUNK_CHARACTERS = 400
DIMENSIONS = 64


class Text(HTMLParser):
    """Collects all text that a reader of the page sees."""

    def __init__(self, html):
        super().__init__()
        self.parts, self.visible = [], False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.visible = self.visible or tag == "body"

    def handle_data(self, data):
        if self.visible:
            self.parts.append(data)


def download(upload_id, _):
    return SAMPLE.read_text(encoding="utf-8")


def extract_text(upload_id, html):
    return re.sub(r"\s+", " ", " ".join(Text(html).parts)).strip()


def chunk(upload_id, text):
    """Splits a text into pieces of whole words; a piece has at most CHUNK_CHARACTERS, unless a single word is longer."""
    chunks, current = [], ""
    for word in text.split():
        if current and len(current) + 1 + len(word) > CHUNK_CHARACTERS:
            chunks.append(current)
            current = word
        else:
            current = f"{current} {word}".strip()
    return chunks + [current] if current else chunks


def embed(upload_id, chunks):
    return [(text, vector(text)) for text in chunks]


def vector(text):
    counts = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()):
        counts[hashlib.sha256(word.encode()).digest()[0] % DIMENSIONS] += 1
    length = math.sqrt(sum(count * count for count in counts)) or 1.0
    return [count / length for count in counts]


def store(upload_id, embedded):
    with closing(sqlite3.connect(STATE, timeout=30)) as state, state:
        state.execute("create table if not exists chunk (upload_id text, number integer, text text, vector text,"
                      " primary key (upload_id, number))")
        state.execute("delete from chunk where upload_id = ?", (str(upload_id),))
        state.executemany("insert into chunk values (?, ?, ?, ?)", [
            (str(upload_id), number, text, " ".join(f"{x:.6f}" for x in numbers))
            for number, (text, numbers) in enumerate(embedded)])
    return {"chunks": len(embedded), "characters": sum(len(text) for text, _ in embedded)}


STAGES = [
    ("download", download),
    ("extract text", extract_text),
    ("chunk", chunk),
    ("embed", embed),
    ("store", store),
]
