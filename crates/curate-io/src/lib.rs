//! Bytes to records and back: JSON Lines, plain text, gzip, zstd, files and streams.
