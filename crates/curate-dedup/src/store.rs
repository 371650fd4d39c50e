//! What is remembered of kept documents, by number: their shingle sets and their ids, without an allocation each.

/// Many sets of hashes, in large chunks that never move: no copying and no doubling as it grows.
#[derive(Debug, Default)]
pub(crate) struct SetStore {
    chunks: Vec<Vec<u64>>,
    places: Vec<Place>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    chunk: u32,
    start: u32,
    len: usize,
}

/// Hashes in a chunk (1 MiB); a larger set has a chunk of its own size.
const CHUNK: usize = 1 << 17;

impl SetStore {
    pub(crate) fn push(&mut self, set: &[u64]) {
        let room = self.chunks.last().map_or(0, |chunk| chunk.capacity() - chunk.len());
        if room < set.len() {
            self.chunks.push(Vec::with_capacity(set.len().max(CHUNK)));
        }
        let Some(chunk) = self.chunks.last_mut() else {
            // Only an empty set needs no chunk.
            return self.places.push(Place { chunk: 0, start: 0, len: 0 });
        };
        let start = chunk.len();
        chunk.extend_from_slice(set);
        let chunk = u32::try_from(self.chunks.len() - 1).expect("2^32 chunks of 1 MiB do not fit any memory");
        let start = u32::try_from(start).expect("a set starts within the first 2^17 hashes of its chunk");
        self.places.push(Place { chunk, start, len: set.len() });
    }

    /// The `number`-th set that was pushed.
    pub(crate) fn get(&self, number: u32) -> &[u64] {
        let Place { chunk, start, len } = self.places[number as usize];
        match len {
            0 => &[],
            _ => &self.chunks[chunk as usize][start as usize..start as usize + len],
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        let hashes: usize = self.chunks.iter().map(Vec::capacity).sum();
        (hashes * size_of::<u64>() + self.places.capacity() * size_of::<Place>()) as u64
    }
}

/// Many short strings, end to end.
#[derive(Debug, Default)]
pub(crate) struct StringStore {
    text: String,
    ends: Vec<u64>,
}

impl StringStore {
    pub(crate) fn push(&mut self, string: &str) {
        self.text.push_str(string);
        self.ends.push(self.text.len() as u64);
    }

    /// The `number`-th string that was pushed.
    pub(crate) fn get(&self, number: usize) -> &str {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start as usize..self.ends[number] as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        (self.text.capacity() + self.ends.capacity() * size_of::<u64>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_come_back() {
        let mut store = SetStore::default();
        let lens = [0, 1, 3, CHUNK - 5, 1, 1, 2 * CHUNK, 4, CHUNK, 0, 7];
        let set = |n: usize| (0..lens[n] as u64).map(|i| i << 8 | n as u64).collect::<Vec<_>>();
        for n in 0..lens.len() {
            store.push(&set(n));
        }
        for n in 0..lens.len() {
            assert!(store.get(n as u32) == set(n), "{n}");
        }
        let hashes: usize = lens.iter().sum();
        assert!(store.bytes() >= 8 * hashes as u64);
    }

    #[test]
    fn strings_come_back() {
        let mut store = StringStore::default();
        let strings = ["", "a", "", "漢字", "tail"];
        for string in strings {
            store.push(string);
        }
        assert_eq!((0..store.len()).map(|n| store.get(n)).collect::<Vec<_>>(), strings);
    }
}
