//! Any text as a recipe file: an error or a recipe, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(recipe) = curate_clean::Recipe::from_toml(text, "fuzz") {
        let _ = curate_clean::Cleaner::new(recipe);
    }
});
