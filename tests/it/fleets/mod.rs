//! Fleets with names, transport options, serializers and flags that are not the default.

mod adopted;
mod names;
mod options;
mod pools;
mod serializers;
mod silent;
mod together;
