//! The usual kinds of successful answers, and their names in handlers.

use axum::http::StatusCode;
use utoipa::openapi::schema::Type;

use super::typed::{TEXT, Typed, WHOLE};

/// What a kind of answer has besides its body.
pub trait Kind {
    const STATUS: StatusCode;
    /// Description for bodies whose type has none.
    const DESCRIPTION: &'static str;
    /// Name, type and meaning.
    const HEADERS: &'static [(&'static str, Type, &'static str)];
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident<$kind:ident> = $status:ident, $description:literal, $headers:expr;)*) => {$(
        $(#[$doc])*
        pub type $name<T> = Typed<$kind, T>;
        pub enum $kind {}
        impl Kind for $kind {
            const STATUS: StatusCode = StatusCode::$status;
            const DESCRIPTION: &'static str = $description;
            const HEADERS: &'static [(&'static str, Type, &'static str)] = &$headers;
        }
    )*};
}

kinds! {
    /// 200.
    Answer<IsOk> = OK, "The answer", [];
    /// 200, a page of a list.
    Page<IsPage> = OK, "A page", [("Link", TEXT, "`rel=next`, unless it is the last page")];
    /// 200 with a version.
    Tagged<IsTagged> = OK, "The answer", [("ETag", TEXT, "Changes with every change; for `If-Match` and `If-None-Match`")];
    /// 201.
    Created<IsCreated> = CREATED, "Created", [("Location", TEXT, "Where it is"), ("ETag", TEXT, "Its version, for `If-Match`, if it has versions")];
    /// 202: committed; what follows can be watched at `Location`.
    Accepted<IsAccepted> = ACCEPTED, "Accepted", [("Location", TEXT, "The task"), ("Retry-After", WHOLE, "Seconds")];
    /// 202: the present state, not the final one.
    Pending<IsPending> = ACCEPTED, "Not yet", [("ETag", TEXT, "Changes with every change"), ("Retry-After", WHOLE, "Seconds")];
    /// 202 without `Location`.
    Started<IsStarted> = ACCEPTED, "Accepted", [];
}
