//! Is this text worth keeping? Normalising, statistics, rules.
