//! Bounds of the readers: what comes from Redis may be anything.

/// Redis' own limit for one string.
pub const MAX_BYTES: usize = 512 * 1024 * 1024;

/// What a compressed body may grow to. Bodies of this size do not travel through a broker; a bomb does.
pub const MAX_INFLATED_BYTES: usize = 64 * 1024 * 1024;

/// How deep signatures and result tuples may nest. Celery itself nests one level per canvas level.
pub const MAX_NESTING: usize = 100;
