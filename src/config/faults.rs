//! Reports all faults of a configuration at once, each with its place.
//!
//! Reading stops at the first fault. So each refused key is removed and the rest is read again, until it is accepted or the fault
//! names no key that can be removed. A faulty list entry is replaced as a whole, unless its fault is an unknown key: an entry that
//! lacks one of its parts would be refused again because of the removal.

use toml::{Table, Value};

use super::{Error, Said};

/// The search stops at this number of faults.
const MOST: usize = 50;

/// Runs `read` on the gathered values.
///
/// # Errors
/// All faults, in the order in which they were found.
pub(super) fn all<T>(said: Said, read: impl Fn(Said) -> Result<T, Error>) -> Result<T, Error> {
    let first = match read(said.clone()) {
        Ok(read) => return Ok(read),
        Err(first) => first,
    };
    let (mut left, mut found, mut next) = (said.clone(), Vec::new(), Some(first));
    while let Some(fault) = next.take() {
        let is_new = !keys(&fault).iter().any(|key| is_told(&found, key)) && !is_misspelled(&found, &fault);
        let taken = keys(&fault).iter().filter(|key| forget(&mut left.table, key, &fault)).count() > 0;
        if is_new {
            found.push(fault);
        }
        if taken && found.len() < MOST {
            next = read(left.clone()).err();
        }
    }
    let mut located: Vec<Error> = found.into_iter().map(|fault| fault.located(&said)).collect();
    Err(if located.len() == 1 { located.remove(0) } else { Error::Several(located) })
}

/// The keys that a fault names, without the words in parentheses.
fn keys(fault: &Error) -> Vec<String> {
    match fault {
        Error::UnknownKey { key, .. } | Error::Value { key, .. } => vec![bare(key)],
        Error::Pair { first, second, .. } => vec![bare(first), bare(second)],
        Error::File { .. } | Error::Syntax { .. } | Error::Several(_) => Vec::new(),
    }
}

/// Whether the fault is only about a key that was removed here: that is not a second fault.
fn is_told(found: &[Error], key: &str) -> bool {
    found.iter().flat_map(keys).any(|told| told == key)
}

/// Whether the missing key is there under a misspelled name that was refused already.
fn is_misspelled(found: &[Error], fault: &Error) -> bool {
    let Error::Value { message, .. } = fault else { return false };
    let Some(missing) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) else {
        return false;
    };
    found.iter().any(|told| matches!(told, Error::UnknownKey { nearest: Some(nearest), .. } if nearest == missing))
}

/// `tasks[0] (tasks.add).endpoint (in taskgate.toml)` is `tasks[0].endpoint`.
pub(super) fn bare(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    let mut depth = 0_u32;
    for letter in key.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ' ' => {}
            other if depth == 0 => text.push(other),
            _ => {}
        }
    }
    text
}

/// Removes a key and returns whether it was there.
fn forget(table: &mut Table, key: &str, fault: &Error) -> bool {
    if let Some((list, rest)) = key.split_once('[') {
        let Some((index, rest)) = rest.split_once(']') else { return false };
        let (Ok(index), Some(Value::Array(entries))) = (index.parse::<usize>(), table.get_mut(list)) else {
            return false;
        };
        let Some(entry) = entries.get_mut(index) else { return false };
        let unknown = rest.strip_prefix('.').filter(|_| matches!(fault, Error::UnknownKey { .. }));
        if let (Some(key), Value::Table(entry)) = (unknown, &mut *entry) {
            return remove(entry, key);
        }
        let stand_in = stand_in(list, index);
        return stand_in.is_some_and(|stand_in| {
            let is_there = *entry != stand_in;
            *entry = stand_in;
            is_there
        });
    }
    remove(table, key)
}

/// A valid entry to put in place of a faulty one, so that the other entries keep their indexes.
fn stand_in(list: &str, index: usize) -> Option<Value> {
    let name = format!("left-out-{index}");
    let address = format!("https://{name}.invalid/");
    let parts: &[(&str, &str)] = match list {
        "tasks" => &[("name", &format!("left.out_{index}"))],
        "schedules" => &[("name", &name), ("task", "left.out"), ("cron", "@daily")],
        "notify" => &[("name", &name), ("kind", "webhook"), ("url", &address)],
        "inboxes" => &[("url", &format!("postgres://{name}.invalid/inbox"))],
        "hooks" => &[
            ("path", &format!("/hooks/{name}")),
            ("verify", "github"),
            ("secret", "left-out-left-out-left-out-left-out"),
            ("task", "left.out"),
        ],
        "users" => &[("name", &name), ("password", "$argon2id$left-out"), ("scopes", "read")],
        _ => return None,
    };
    let entry = parts.iter().map(|(key, text)| ((*key).to_owned(), Value::String((*text).to_owned()))).collect();
    Some(Value::Table(entry))
}

fn remove(table: &mut Table, key: &str) -> bool {
    if table.remove(key).is_some() {
        return true;
    }
    let mut parts = key.splitn(2, '.');
    let (Some(section), Some(rest)) = (parts.next(), parts.next()) else { return false };
    match table.get_mut(section) {
        Some(Value::Table(inner)) => remove(inner, rest),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Role};

    fn faults(toml: &str) -> Vec<String> {
        let text = Config::parse(Role::Serve, toml).unwrap_err().to_string();
        let lines =
            text.lines().filter_map(|line| line.trim().strip_prefix("* ").map(str::to_owned)).collect::<Vec<_>>();
        if lines.is_empty() { vec![text] } else { lines }
    }

    #[test]
    fn all_faults_are_told_at_once_with_their_lines() {
        let found = faults(
            "auth = 'tokens'\n[http]\nlisen = 'x'\nsse_heartbeat = 'soon'\n[database]\nurl = 'mysql://h/d'\n\
             [[tasks]]\nname = 'tasks.a'\nendpont = 'POST /a'\nprioritie = 1\n[[tasks]]\nnane = 'x'\n",
        );
        let expected = [
            ("auth", "line 1"),
            ("http.lisen", "line 3"),
            ("http.sse_heartbeat", "line 4"),
            ("database.url", "line 6"),
            ("tasks[0] (tasks.a).endpont", "line 9"),
            ("tasks[0] (tasks.a).prioritie", "line 10"),
            ("tasks[1].nane", "line 12"),
        ];
        for (key, line) in expected {
            let told = found.iter().filter(|fault| fault.contains(key) && fault.contains(line)).count();
            assert_eq!(told, 1, "{key}, {line}: {found:#?}");
        }
        assert_eq!(found.len(), expected.len(), "{found:#?}");
    }

    #[test]
    fn what_contradicts_itself_does_not_hide_the_rest() {
        let found =
            faults("[ledger]\nkeep = '1d'\nkeep_payload = '2d'\n[database]\nurl = 'sqlite://x'\nmax_connections = 1\n");
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found.iter().any(|fault| fault.contains("database.max_connections (in taskgate.toml, line 6)")));
    }

    #[test]
    fn entries_of_every_list_are_told_with_their_lines_and_hide_no_others() {
        let found = faults(
            "auth = 'basic'\n[database]\nurl = 'sqlite://x'\n[[notify]]\nkind = 'pigeon'\nurl = 'https://h'\n\
             [[notify]]\nkind = 'slack'\nurl = 'h'\n[[inboxes]]\nurl = 'sqlite://x'\n[[inboxes]]\nurl = 'postgres://h/d'\npoll = '1ms'\n\
             [[users]]\nname = 'a'\npassword = 'plain'\nscopes = 'read'\n[[users]]\nname = 'b'\npassword = '$argon2id$x'\nscopes = 'fly'\n",
        );
        let expected = [
            ("notify[0].kind", "line 5"),
            ("notify[1].url", "line 9"),
            ("inboxes[0].url", "line 11"),
            ("inboxes[1].poll", "line 14"),
            ("users[0].password", "line 17"),
            ("users[1].scopes", "line 22"),
        ];
        for (key, line) in expected {
            assert!(found.iter().any(|fault| fault.contains(key) && fault.contains(line)), "{key}, {line}: {found:#?}");
        }
        assert_eq!(found.len(), expected.len(), "{found:#?}");
    }

    #[test]
    fn a_single_fault_is_a_single_sentence() {
        let text = Config::parse(Role::Serve, "auth = 'none'").unwrap_err().to_string();
        assert!(text.starts_with("database.url: is needed"), "{text}");
    }
}
