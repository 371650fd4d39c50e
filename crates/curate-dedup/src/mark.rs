//! Copies that stay: the name of the cluster is written into every document instead of dropping any.
//!
//! A kept document is a cluster of its own; a copy is of the cluster of the kept document that it repeats. So a split or a
//! sample that is drawn by cluster takes all copies of a text or none.

use curate_core::{Document, Value, Verdict};

/// Turns the verdict of a gate into a field: the id of the kept document that `doc` repeats, or its own.
pub(crate) fn mark(doc: &mut Document<'_>, field: &str, verdict: &Verdict) -> Verdict {
    let original = match verdict {
        Verdict::Keep => None,
        Verdict::Drop(dropped) => dropped.proof.iter().find_map(|(name, value)| match value {
            Value::Text(id) if *name == "dup_of" => Some(id.as_str()),
            _ => None,
        }),
    };
    let json = serde_json::Value::from(original.unwrap_or(doc.id())).to_string();
    doc.set_field(field, json);
    Verdict::Keep
}
