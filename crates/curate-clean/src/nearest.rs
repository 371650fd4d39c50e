//! Which known name did the user mean?

/// The name nearest to `wrong`, if one is near enough to be worth suggesting.
///
/// Near enough: an edit distance of at most a third of the longer name, and at least 1. Of two equally near names the first
/// wins, so the order of `known` decides.
pub(crate) fn nearest<'k>(wrong: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    known
        .into_iter()
        .map(|name| (edit_distance(wrong, name), name))
        .filter(|(distance, name)| *distance <= (wrong.chars().count().max(name.chars().count()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`, in code points
/// (optimal string alignment: no part is edited twice).
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, _) => j,
                (_, 0) => i,
                _ => {
                    let substituted = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    substituted.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1)
                }
            };
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                rows[i][j] = rows[i][j].min(rows[i - 2][j - 2] + 1);
            }
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "ab", 2),
            ("ab", "", 2),
            ("kitten", "sitting", 3),
            ("wörd", "word", 1),
            ("ruel", "rule", 1),
            ("ab", "ba", 1),
        ] {
            assert_eq!(edit_distance(a, b), expected, "{a} -> {b}");
        }
    }

    #[test]
    fn suggests_only_what_is_near() {
        let known = ["min_words", "max_words", "min_stop_words"];
        assert_eq!(nearest("min_word", known), Some("min_words"));
        assert_eq!(nearest("minwords", known), Some("min_words"));
        assert_eq!(nearest("stop_words", known), Some("min_stop_words"));
        assert_eq!(nearest("temperature", known), None);
        assert_eq!(nearest("x", []), None);
    }
}
