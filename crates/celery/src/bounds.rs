//! Bounds of the readers, because data from Redis cannot be trusted.

/// Redis' own limit for one string.
pub const MAX_BYTES: usize = 512 * 1024 * 1024;

/// Largest size of a decompressed body. No real body is this large, so a larger one is a decompression bomb.
pub const MAX_INFLATED_BYTES: usize = 64 * 1024 * 1024;

/// How deep signatures and result tuples may nest. Celery itself nests one level per canvas level.
pub const MAX_NESTING: usize = 100;
