//! Names that no queue may have, because they are, or could become, keys of kombu, of Celery's backend, or of taskgate. A queue's
//! name is a key in Redis: a message pushed to such a key would destroy the fleet's data and crash every worker.

/// Reserved full names; also with a `global_keyprefix` before them, which ends with one of [`PREFIX_ENDS`].
const WHOLE: [&str; 3] = ["unacked", "unacked_index", "unacked_mutex"];
/// Usual last characters of such prefixes.
const PREFIX_ENDS: [char; 3] = [':', '/', '}'];
/// Reserved parts, anywhere in a name.
const PARTS: [(&str, &str); 5] = [
    ("_kombu.binding", "is a table of kombu's exchanges"),
    ("celery-task-meta-", "is a result of Celery"),
    ("celery-taskset-meta-", "is a group of Celery"),
    ("chord-unlock-", "is a chord of Celery"),
    (".pidbox", "is a queue of remote control"),
];
/// Prefixes of queues that programs declare for themselves.
const BEGINNINGS: [(&str, &str); 3] = [
    ("celeryev", "is a queue of worker events"),
    ("taskgate.", "is a key of taskgate"),
    ("taskgate-", "is a key of taskgate"),
];

/// Why no queue may have this name; `None` when it may.
pub fn reserved(queue: &str) -> Option<&'static str> {
    let last = queue.rsplit(PREFIX_ENDS).next().unwrap_or(queue);
    if WHOLE.contains(&last) {
        return Some("is the key under which workers keep reserved messages");
    }
    let part = PARTS.iter().find(|(part, _)| queue.contains(part));
    part.or_else(|| BEGINNINGS.iter().find(|(beginning, _)| last.starts_with(beginning))).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_fleet_are_no_queue_names() {
        for name in [
            "unacked",
            "unacked_index",
            "unacked_mutex",
            "app1:unacked",
            "{app}unacked_mutex",
            "_kombu.binding.celery",
            "_kombu.binding_permanent.celery",
            "app1:_kombu.binding_deadlines",
            "celery-task-meta-0192f0c1",
            "rpfx_celery-taskset-meta-g.j",
            "w1@host.celery.pidbox",
            "5e0c.reply.celery.pidbox",
            "celeryev.5e0c",
            "app1:celeryev.5e0c",
            "taskgate.published",
            "taskgate-0192f0c1",
        ] {
            assert!(reserved(name).is_some(), "{name}");
        }
    }

    #[test]
    fn names_that_only_look_alike_are_allowed() {
        for name in
            ["celery", "celery-task", "packed", "unacked-mails", "mails.unacked2", "pidbox", "events", "taskgate"]
        {
            assert_eq!(reserved(name), None, "{name}");
        }
    }
}
