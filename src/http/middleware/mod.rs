//! What holds for every request.

pub mod authenticate;
pub mod observe;
pub mod origin;
pub mod patience;
