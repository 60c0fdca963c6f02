"""Removes old files from the sample's directory of sessions, which has a file for each session."""
import os
import time
from pathlib import Path

SESSIONS = Path(os.environ.get("SAMPLE_SESSIONS", "sample-sessions"))


def clean_up(max_age_days):
    """Removes files that were not written for this many days."""
    oldest = time.time() - max_age_days * 86_400
    files = [path for path in SESSIONS.iterdir() if path.is_file()] if SESSIONS.is_dir() else []
    old = [path for path in files if path.stat().st_mtime < oldest]
    for path in old:
        path.unlink()
    return {"removed": len(old), "kept": len(files) - len(old)}
