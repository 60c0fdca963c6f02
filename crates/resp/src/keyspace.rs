//! The data: sixteen databases, expiry, and the clients that watch keys (by `WATCH`, or because they are blocked).
//!
//! An expired key does not exist: it is removed when it is accessed, or when it expires (the server sleeps until
//! [`Keyspace::next_expiry`]). "Now" is set once per command, script or transaction, so that no key disappears in the
//! middle of one.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap, VecDeque},
    rc::Rc,
};

use bytes::Bytes;
use indexmap::IndexMap;

use super::{
    failure::{Failure, WRONG_TYPE},
    value::{Kind, Value},
};
use runtime::clock;

/// As Redis's `databases 16`.
pub const DATABASES: usize = 16;

pub type Millis = i64;

pub fn unix_millis() -> Millis {
    clock::now().as_micros() / 1000
}

#[derive(Debug)]
pub struct Entry {
    pub value: Value,
    /// Unix time; `None`: the key never expires.
    pub expires_at: Option<Millis>,
}

#[derive(Debug, Default)]
pub struct Database {
    entries: IndexMap<Bytes, Entry>,
    due: BTreeSet<(Millis, Bytes)>,
}

#[derive(Debug, Default)]
pub struct Keyspace {
    databases: Vec<Database>,
    now: Millis,
    /// Set to true when the key changes.
    watched: HashMap<(usize, Bytes), Vec<Rc<Cell<bool>>>>,
    /// How many clients are blocked on a key.
    awaited: HashMap<(usize, Bytes), usize>,
    /// Awaited keys that changed; served when the command is done.
    ready: VecDeque<(usize, Bytes)>,
    /// A new expiry is earlier than all others.
    earlier_expiry: bool,
    pub expired_keys: u64,
}

impl Keyspace {
    pub fn new() -> Self {
        Self { databases: (0..DATABASES).map(|_| Database::default()).collect(), ..Self::default() }
    }

    pub fn now(&self) -> Millis {
        self.now
    }

    pub fn set_now(&mut self, now: Millis) {
        self.now = now;
    }

    // --- reading

    /// The live entry.
    pub fn entry(&mut self, db: usize, key: &[u8]) -> Option<&mut Entry> {
        self.expire_if_due(db, key);
        self.databases[db].entries.get_mut(key)
    }

    pub fn exists(&mut self, db: usize, key: &[u8]) -> bool {
        self.entry(db, key).is_some()
    }

    /// The value if it is of this type. `Err` if it is of another type.
    pub fn get<K: Kind>(&mut self, db: usize, key: &[u8]) -> Result<Option<&mut K>, Failure> {
        match self.entry(db, key) {
            None => Ok(None),
            Some(entry) => K::of(&mut entry.value).map(Some).ok_or(WRONG_TYPE),
        }
    }

    /// The value of this type, created if the key does not exist.
    pub fn get_or_create<K: Kind>(&mut self, db: usize, key: &Bytes) -> Result<&mut K, Failure> {
        self.expire_if_due(db, key);
        let entry = self.databases[db]
            .entries
            .entry(key.clone())
            .or_insert_with(|| Entry { value: K::default().wrap(), expires_at: None });
        K::of(&mut entry.value).ok_or(WRONG_TYPE)
    }

    pub fn len(&self, db: usize) -> usize {
        self.databases[db].entries.len()
    }

    pub fn with_expiry(&self, db: usize) -> usize {
        self.databases[db].due.len()
    }

    /// Includes expired keys that have not been removed yet.
    pub fn by_position(&self, db: usize, index: usize) -> Option<(&Bytes, &Entry)> {
        self.databases[db].entries.get_index(index)
    }

    /// All live keys.
    pub fn keys(&self, db: usize) -> impl Iterator<Item = &Bytes> {
        let now = self.now;
        self.databases[db].entries.iter().filter(move |(_, entry)| !is_due(entry, now)).map(|(key, _)| key)
    }

    /// Payload bytes, roughly.
    pub fn memory(&self) -> usize {
        const ENTRY: usize = 64;
        let entries = self.databases.iter().flat_map(|database| &database.entries);
        entries.map(|(key, entry)| key.len() + entry.value.memory() + ENTRY).sum()
    }

    // --- changing

    /// Sets a key to a value, whatever it had before.
    pub fn set(&mut self, db: usize, key: Bytes, value: Value, expires_at: Option<Millis>) {
        let before = self.databases[db].entries.insert(key.clone(), Entry { value, expires_at });
        self.reschedule(db, &key, before.and_then(|entry| entry.expires_at), expires_at);
        self.touch(db, &key);
    }

    pub fn remove(&mut self, db: usize, key: &[u8]) -> Option<Entry> {
        self.expire_if_due(db, key);
        self.take(db, key)
    }

    fn take(&mut self, db: usize, key: &[u8]) -> Option<Entry> {
        let (key, entry) = self.databases[db].entries.swap_remove_entry(key)?;
        self.reschedule(db, &key, entry.expires_at, None);
        self.touch(db, &key);
        Some(entry)
    }

    pub fn set_expiry(&mut self, db: usize, key: &Bytes, expires_at: Option<Millis>) {
        let Some(entry) = self.databases[db].entries.get_mut(key) else { return };
        let before = std::mem::replace(&mut entry.expires_at, expires_at);
        self.reschedule(db, key, before, expires_at);
        self.touch(db, key);
    }

    /// Must be called after every in-place change of a value; a collection that became empty is removed.
    pub fn changed(&mut self, db: usize, key: &[u8]) {
        if self.databases[db].entries.get(key).is_some_and(|entry| entry.value.is_empty_collection()) {
            self.take(db, key);
        } else {
            self.touch(db, key);
        }
    }

    pub fn flush(&mut self, db: usize) {
        let entries = &self.databases[db].entries;
        let lost = self.watched.iter().filter(|((of, key), _)| *of == db && entries.contains_key(key));
        lost.flat_map(|(_, flags)| flags).for_each(|flag| flag.set(true));
        self.databases[db] = Database::default();
    }

    // --- expiry

    fn reschedule(&mut self, db: usize, key: &Bytes, before: Option<Millis>, after: Option<Millis>) {
        if before == after {
            return;
        }
        let due = &mut self.databases[db].due;
        if let Some(before) = before {
            due.remove(&(before, key.clone()));
        }
        if let Some(after) = after {
            self.earlier_expiry |= due.first().is_none_or(|(first, _)| after < *first);
            due.insert((after, key.clone()));
        }
    }

    fn expire_if_due(&mut self, db: usize, key: &[u8]) {
        if self.databases[db].entries.get(key).is_some_and(|entry| is_due(entry, self.now)) {
            self.take(db, key);
            self.expired_keys += 1;
        }
    }

    /// When the next key expires.
    pub fn next_expiry(&self) -> Option<Millis> {
        self.databases.iter().filter_map(|database| database.due.first()).map(|(at, _)| *at).min()
    }

    /// Whether the expiry task must be woken because of an earlier expiry; resets the flag.
    pub fn take_earlier_expiry(&mut self) -> bool {
        std::mem::take(&mut self.earlier_expiry)
    }

    /// Removes expired keys, at most `limit`, so that one pass stays short.
    pub fn expire_due(&mut self, limit: usize) {
        for db in 0..DATABASES {
            for _ in 0..limit {
                let key = match self.databases[db].due.first() {
                    Some((at, key)) if *at <= self.now => key.clone(),
                    _ => break,
                };
                self.expire_if_due(db, &key);
            }
        }
    }

    // --- clients that watch keys

    fn touch(&mut self, db: usize, key: &[u8]) {
        if self.watched.is_empty() && self.awaited.is_empty() {
            return;
        }
        let place = (db, Bytes::copy_from_slice(key));
        if let Some(flags) = self.watched.get(&place) {
            flags.iter().for_each(|flag| flag.set(true));
        }
        if self.awaited.contains_key(&place) {
            self.ready.push_back(place);
        }
    }

    pub fn watch(&mut self, db: usize, key: &Bytes, flag: &Rc<Cell<bool>>) {
        self.expire_if_due(db, key);
        let flags = self.watched.entry((db, key.clone())).or_default();
        if !flags.iter().any(|other| Rc::ptr_eq(other, flag)) {
            flags.push(Rc::clone(flag));
        }
    }

    pub fn unwatch(&mut self, places: &[(usize, Bytes)], flag: &Rc<Cell<bool>>) {
        for place in places {
            let Some(flags) = self.watched.get_mut(place) else { continue };
            flags.retain(|other| !Rc::ptr_eq(other, flag));
            if flags.is_empty() {
                self.watched.remove(place);
            }
        }
    }

    pub fn watched_keys_due(&mut self, places: &[(usize, Bytes)]) {
        for (db, key) in places {
            self.expire_if_due(*db, key);
        }
    }

    pub fn await_key(&mut self, db: usize, key: &Bytes) {
        *self.awaited.entry((db, key.clone())).or_default() += 1;
    }

    pub fn stop_awaiting(&mut self, db: usize, key: &Bytes) {
        let place = (db, key.clone());
        if let Some(count) = self.awaited.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.awaited.remove(&place);
            }
        }
    }

    pub fn next_ready(&mut self) -> Option<(usize, Bytes)> {
        self.ready.pop_front()
    }
}

fn is_due(entry: &Entry, now: Millis) -> bool {
    entry.expires_at.is_some_and(|at| at <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &'static str) -> Value {
        Value::Text(Bytes::from(value))
    }

    #[test]
    fn a_key_past_its_time_does_not_exist() {
        let mut space = Keyspace::new();
        let key = Bytes::from("k");
        space.set(0, key.clone(), text("v"), Some(100));
        assert!(space.take_earlier_expiry());
        assert!(space.exists(0, b"k"));
        space.set_now(100);
        assert_eq!(space.keys(0).count(), 0);
        assert!(!space.exists(0, b"k"));
        assert_eq!(space.next_expiry(), None);
        assert_eq!(space.expired_keys, 1);
    }

    #[test]
    fn the_timer_follows_changes_of_expiry() {
        let mut space = Keyspace::new();
        let key = Bytes::from("k");
        space.set(3, key.clone(), text("v"), Some(100));
        space.set_expiry(3, &key, Some(500));
        assert_eq!(space.next_expiry(), Some(500));
        space.set(3, key.clone(), text("v"), None);
        assert_eq!(space.next_expiry(), None);
    }

    #[test]
    fn watchers_learn_of_changes_and_of_expiry() {
        let mut space = Keyspace::new();
        let flag = Rc::new(Cell::new(false));
        let key = Bytes::from("k");
        space.set(0, key.clone(), text("v"), Some(10));
        space.watch(0, &key, &flag);
        space.set(1, key.clone(), text("other database"), None);
        assert!(!flag.get());
        space.set_now(10);
        space.expire_due(10);
        assert!(flag.get());
    }
}
