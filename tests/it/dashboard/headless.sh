#!/bin/sh
# The browser without a user interface. It opens no page by itself, and its driver waits for one.
exec /usr/lib/chromium/chromium-headless-shell "$@" about:blank
