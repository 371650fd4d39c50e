//! The settings of a run as TOML, with the names of the flags.

use std::fmt::Write;

use serde_json::Value;

use crate::config::RunConfig;

/// Options that are no flags: they come from the data, or have one value for all runs.
const NO_FLAGS: [&str; 5] = ["vocab_size", "context", "norm_eps", "split", "eps"];

/// Every option of a run as `flag = value`, by group. Read back with `curate train --config`, it gives the same options.
pub fn to_toml(run: &RunConfig) -> String {
    let mut out = String::from(
        "# Settings of a run. To repeat it: curate train --config settings.toml -o OTHER; flags beside it win.\n\n",
    );
    let _ = writeln!(out, "shards = {}", Value::from(run.shards.to_string_lossy()));
    let options = serde_json::to_value(&run.options).expect("options are plain data");
    let Value::Object(groups) = options else { unreachable!("a struct is an object") };
    for (name, value) in groups {
        match value {
            Value::Object(group) => {
                let _ = writeln!(out, "\n# {name}");
                group.iter().for_each(|(name, value)| setting(&mut out, name, value));
            }
            value => setting(&mut out, &name, &value),
        }
    }
    out
}

/// Numbers, strings, booleans and lists of numbers are written in TOML as they are in JSON.
fn setting(out: &mut String, name: &str, value: &Value) {
    if value.is_null() {
        return; // left out means the same
    }
    let comment = if NO_FLAGS.contains(&name) { "# " } else { "" };
    let _ = writeln!(out, "{comment}{} = {value}", name.replace('_', "-"));
}
