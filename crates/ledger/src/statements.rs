//! Defines constant statements by name and lists them: a test prepares each against a migrated database and checks its plan.
//!
//! Each module of an adapter has one list, made where its statements are defined, so that none is forgotten.

macro_rules! statements {
    ($($(#[$about:meta])* $name:ident = $sql:expr;)+) => {
        $($(#[$about])* pub(super) const $name: &str = $sql;)+
        pub(super) const STATEMENTS: &[&str] = &[$($name),+];
    };
}
pub(crate) use statements;
