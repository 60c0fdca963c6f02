//! Integration tests against the real peers, in one binary so that they can share them.

mod harness;

mod boundaries;
mod conformance;
mod library;
mod packaging;
mod peers;
mod resp;
