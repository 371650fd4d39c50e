//! The part of a long text that is looked at.

/// How much of a text is judged. A text of at most `windows * window_bytes` bytes is judged whole; of a longer one,
/// `windows` windows of `window_bytes` at equal distances, the first at its start and the last at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleOptions {
    /// At least 1; 3 are the first, the middle and the last.
    pub windows: usize,
    /// At least 16. Windows together are at most 16,384 bytes, what is more is cut off the window.
    pub window_bytes: usize,
}

const SAMPLE_BYTES: usize = 16_384;

impl Default for SampleOptions {
    fn default() -> Self {
        Self { windows: 3, window_bytes: 1024 }
    }
}

impl SampleOptions {
    /// The windows of `text`, in order, without overlap, cut at character boundaries.
    pub(super) fn windows<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> + Clone + use<'t> {
        let windows = self.windows.clamp(1, SAMPLE_BYTES / 16);
        let bytes = self.window_bytes.clamp(16, SAMPLE_BYTES / windows);
        let whole = text.len() <= windows * bytes;
        let (windows, bytes) = if whole { (1, text.len()) } else { (windows, bytes) };
        (0..windows).map(move |window| {
            let room = (text.len() - bytes) as u128;
            let start = match windows {
                1 => 0,
                _ => (room * window as u128 / (windows - 1) as u128) as usize,
            };
            // Inwards at both ends: windows stay disjoint and the budget is kept.
            &text[text.ceil_char_boundary(start)..text.floor_char_boundary(start + bytes)]
        })
    }
}

/// Pieces of about `bytes` bytes of a window, cut at character boundaries.
pub(super) fn pieces(window: &str, bytes: usize) -> impl Iterator<Item = &str> {
    let count = (window.len() / bytes).max(1);
    (0..count).map(move |piece| {
        let cut = |at: usize| window.floor_char_boundary(window.len() * at / count);
        &window[cut(piece)..cut(piece + 1)]
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_middle_last() {
        let check = |text: &str, windows, window_bytes, expected: &[&str]| {
            let options = SampleOptions { windows, window_bytes };
            assert_eq!(options.windows(text).collect::<Vec<_>>(), expected);
        };
        check("", 3, 16, &[""]);
        check("short", 3, 16, &["short"]);
        let long = "a".repeat(30) + &"b".repeat(30) + &"c".repeat(30);
        check(&long, 3, 16, &[&"a".repeat(16), &"b".repeat(16), &"c".repeat(16)]);
        check(&long, 1, 16, &[&"a".repeat(16)]);
        check(&long, 3, 30, &[&long]);
        // Senseless options are brought into range.
        check(&long, 0, 0, &[&"a".repeat(16)]);
        // Half a character is nobody's.
        check(&"é".repeat(20), 1, 17, &[&"é".repeat(8)]);
    }

    proptest! {
        #[test]
        fn windows_are_bounded_and_pieces_lose_nothing(text in "\\PC{0,400}", windows in 0_usize..6, bytes in 0_usize..90) {
            let options = SampleOptions { windows, window_bytes: bytes };
            let total: usize = options.windows(&text).map(str::len).sum();
            prop_assert!(total <= windows.max(1) * bytes.max(16));
            prop_assert_eq!(pieces(&text, bytes.max(1)).collect::<String>(), text);
        }
    }
}
