//! What holds for every request.

pub mod observe;
pub mod origin;
pub mod patience;
