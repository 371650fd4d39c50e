//! Have we seen this before? Exact and MinHash deduplication with verified removals.
