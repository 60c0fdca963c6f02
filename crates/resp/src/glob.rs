//! Redis's glob patterns: `*`, `?`, `[abc]`, `[^a-z]`, `\x`.
//!
//! Works on bytes. Only the last star is ever retried, so that a hostile pattern takes time proportional to
//! `pattern × text` and not exponential time.

/// Whether the whole of `text` matches.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None; // after the last star, and where it stops in the text
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        if let Some(width) = element(&pattern[p..], text[t]) {
            p += width;
            t += 1;
            continue;
        }
        let Some((after_star, stop)) = retry else { return false };
        p = after_star;
        t = stop + 1;
        retry = Some((after_star, t));
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Length of the pattern's first element if it matches `byte`.
fn element(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', class @ ..] => {
            let (found, width) = class_matches(class, byte);
            found.then_some(width + 1)
        }
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [literal, ..] => (*literal == byte).then_some(1),
    }
}

/// A class without a closing bracket extends to the end of the pattern, as in Redis.
fn class_matches(class: &[u8], byte: u8) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    loop {
        match &class[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                found |= *escaped == byte;
                at += 2;
            }
            [low, b'-', high, ..] => {
                let (low, high) = (low.min(high), low.max(high));
                found |= (low..=high).contains(&&byte);
                at += 3;
            }
            [literal, ..] => {
                found |= *literal == byte;
                at += 1;
            }
        }
    }
    (found != negated, at)
}

#[cfg(test)]
mod tests {
    use super::matches;

    fn yes(pattern: &str, text: &str) {
        assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} should match {text}");
    }

    fn no(pattern: &str, text: &str) {
        assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} should not match {text}");
    }

    #[test]
    fn stars_and_question_marks() {
        yes("*", "");
        yes("celery-task-meta-*", "celery-task-meta-1");
        yes("/0.celeryev/*", "/0.celeryev/worker.heartbeat");
        yes("a*b*c", "a-b-b-c");
        yes("h?llo", "hello");
        no("h?llo", "hllo");
        no("a*b", "ac");
        no("", "a");
    }

    #[test]
    fn classes_and_escapes() {
        yes("h[ae]llo", "hallo");
        yes("h[^e]llo", "hbllo");
        no("h[^e]llo", "hello");
        yes("[a-c]", "b");
        yes("[c-a]", "b");
        yes("\\*", "*");
        no("\\*", "a");
        yes("[\\]]", "]");
        yes("[ab", "b");
        no("[", "x");
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        no(&"a*".repeat(40), &"a".repeat(39));
        no(&("*a".repeat(60) + "b"), &"a".repeat(5000));
    }
}
