"""Forks Celery workers from a process that has imported Celery already, which saves each of them half a second of the processor.

Each line of its input is a request: the words and the environment of a command `celery`, its folder, its log, and the file into which its
status is written when it has ended. The answer is the process id. Imports nothing that reads the environment or starts a thread.
"""

import ctypes
import gc
import json
import os
import random
import signal
import sys

import celery.__main__
import celery.apps.worker
import celery.backends.redis
import celery.bin.celery
import celery.concurrency.prefork
import celery.events.state
import celery.worker.consumer
import celery.worker.strategy
import kombu.transport.redis  # noqa: F401

SET_PARENT_DEATH_SIGNAL = 1
CHILD = {signal.SIGCHLD}

status_files = {}


def note_ends(*_):
    while True:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if child == 0:
            return
        path = status_files.pop(child)
        with open(path + ".new", "w") as file:
            file.write(str(status))
        os.rename(path + ".new", path)


def become_worker(request):
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, CHILD)
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(old, new)
    os.closerange(3, 256)
    sys.path[0] = request["folder"]
    sys.argv = [celery.__main__.__file__, *request["words"]]
    random.seed()
    celery.__main__.main()


def main():
    signal.signal(signal.SIGCHLD, note_ends)
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, CHILD)
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            become_worker(request)
        os.setpgid(child, child)
        status_files[child] = request["status"]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CHILD)
        os.write(1, b"%d\n" % child)


main()
