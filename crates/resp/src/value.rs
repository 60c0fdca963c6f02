//! The five types of values.

use std::collections::VecDeque;

use bytes::Bytes;
use indexmap::{IndexMap, IndexSet};

use super::sorted_set::SortedSet;

pub type List = VecDeque<Bytes>;
/// Keeps the order of insertion, as Redis does for small hashes.
pub type Hash = IndexMap<Bytes, Bytes>;
pub type Set = IndexSet<Bytes>;

/// Up to this size a removal keeps the order, as in Redis's listpack; above it, the last element fills the gap.
const ORDERED_UP_TO: usize = 512;

#[derive(Debug, Clone)]
pub enum Value {
    Text(Bytes),
    List(List),
    Hash(Hash),
    Set(Set),
    Sorted(SortedSet),
}

impl Value {
    /// The name that `TYPE` returns.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::List(_) => "list",
            Self::Hash(_) => "hash",
            Self::Set(_) => "set",
            Self::Sorted(_) => "zset",
        }
    }

    /// An approximation: payload bytes and a flat overhead for each element.
    pub fn memory(&self) -> usize {
        const ELEMENT: usize = 48;
        match self {
            Self::Text(text) => text.len(),
            Self::List(list) => list.iter().map(|item| item.len() + ELEMENT).sum(),
            Self::Hash(hash) => hash.iter().map(|(field, value)| field.len() + value.len() + 2 * ELEMENT).sum(),
            Self::Set(set) => set.iter().map(|member| member.len() + ELEMENT).sum(),
            Self::Sorted(set) => set.iter().map(|(member, _)| member.len() + 2 * ELEMENT).sum(),
        }
    }

    /// Collections vanish with their last element.
    pub fn is_empty_collection(&self) -> bool {
        match self {
            Self::Text(_) => false,
            Self::List(list) => list.is_empty(),
            Self::Hash(hash) => hash.is_empty(),
            Self::Set(set) => set.is_empty(),
            Self::Sorted(set) => set.is_empty(),
        }
    }
}

/// A type of value, so that access is written once for all types.
pub trait Kind: Sized + Default {
    fn of(value: &mut Value) -> Option<&mut Self>;
    fn wrap(self) -> Value;
}

macro_rules! kind {
    ($type:ty, $variant:ident) => {
        impl Kind for $type {
            fn of(value: &mut Value) -> Option<&mut Self> {
                match value {
                    Value::$variant(inner) => Some(inner),
                    _ => None,
                }
            }
            fn wrap(self) -> Value {
                Value::$variant(self)
            }
        }
    };
}
kind!(Bytes, Text);
kind!(List, List);
kind!(Hash, Hash);
kind!(Set, Set);
kind!(SortedSet, Sorted);

pub fn remove_field(hash: &mut Hash, field: &[u8]) -> Option<Bytes> {
    if hash.len() <= ORDERED_UP_TO { hash.shift_remove(field) } else { hash.swap_remove(field) }
}

pub fn remove_member(set: &mut Set, member: &[u8]) -> bool {
    if set.len() <= ORDERED_UP_TO { set.shift_remove(member) } else { set.swap_remove(member) }
}
