//! Which ids is this text? Tokenizers, their training, and the token stream.
