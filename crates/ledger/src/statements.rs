//! Constant statements by name, and the list of them: a test prepares each against a migrated database, and reads its plan.
//!
//! Each module of an adapter has one list, made where its statements are written, so that none is forgotten.

macro_rules! statements {
    ($($(#[$about:meta])* $name:ident = $sql:expr;)+) => {
        $($(#[$about])* pub(super) const $name: &str = $sql;)+
        pub(super) const STATEMENTS: &[&str] = &[$($name),+];
    };
}
pub(crate) use statements;
