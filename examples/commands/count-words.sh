#!/bin/sh
# A task in shell: counts the words of all files that match a pattern, and reports its progress.
#
# The call's positional arguments follow the command's own arguments. Standard input has the whole call as one line of JSON,
# {"id": …, "task": …, "retries": 0, "args": […], "kwargs": {…}}. A line {"progress": …} on standard output is a state that
# watchers see at once; the last other line of JSON is the result. An exit status other than 0 is a failure, with the end of
# standard error as its message.
set -eu
pattern=$1
total=$(printf '%s\n' $pattern | wc -l)
done=0
words=0
for file in $pattern; do
    count=$(wc -w <"$file")
    words=$((words + count))
    done=$((done + 1))
    printf '{"progress": %d, "total": %d, "message": "%s"}\n' "$done" "$total" "$file"
done
printf '{"files": %d, "words": %d}\n' "$done" "$words"
