//! Reads NumPy's `.npy` files: format versions 1 to 3, two dimensions, C order, half, single and double precision.
//!
//! ```text
//! 93 'NUMPY'  major  minor  length: u16 (version 1) or u32 (2, 3), little-endian
//! {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }  padding, line feed
//! rows × dim numbers
//! ```

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Embeddings;
use super::error::{Result, SemanticError};

/// Longer headers describe arrays with named columns, which are not read.
const MAX_HEADER: usize = 64 << 10;
/// Bytes read at once.
const BUFFER: usize = 256 << 10;

/// An array on disk, read by position: any number of threads, nothing held.
#[derive(Debug)]
pub struct NpyFile {
    file: File,
    path: PathBuf,
    header: Header,
}

impl NpyFile {
    pub fn open(path: &Path) -> Result<Self> {
        let io = |action| move |source| SemanticError::File { action, path: path.to_owned(), source };
        let npy = |what| SemanticError::Npy { path: path.to_owned(), what };
        let file = File::open(path).map_err(io("open"))?;
        let mut start = Vec::new();
        (&file).take(12 + MAX_HEADER as u64).read_to_end(&mut start).map_err(io("read"))?;
        let header = Header::parse(&start).map_err(npy)?;
        let expected = header.file_bytes().ok_or_else(|| npy("its shape is beyond any file".to_owned()))?;
        let found = file.metadata().map_err(io("read"))?.len();
        if found != expected {
            return Err(npy(format!("its header means {expected} bytes, but it has {found}")));
        }
        Ok(Self { file, path: path.to_owned(), header })
    }
}

impl Embeddings for NpyFile {
    fn rows(&self) -> usize {
        self.header.rows
    }

    fn dim(&self) -> usize {
        self.header.dim
    }

    fn read(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let size = self.header.kind.bytes();
        let mut buffer = vec![0; (out.len() * size).min(BUFFER)];
        let mut at = (self.header.data + first * self.header.dim * size) as u64;
        for part in out.chunks_mut(BUFFER / size) {
            let bytes = &mut buffer[..part.len() * size];
            self.file.read_exact_at(bytes, at).map_err(|source| SemanticError::File {
                action: "read",
                path: self.path.clone(),
                source,
            })?;
            at += bytes.len() as u64;
            self.header.decode(bytes, part);
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    F2,
    F4,
    F8,
}

impl Kind {
    fn bytes(self) -> usize {
        match self {
            Self::F2 => 2,
            Self::F4 => 4,
            Self::F8 => 8,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    kind: Kind,
    big_endian: bool,
    rows: usize,
    dim: usize,
    /// Where the numbers start.
    data: usize,
}

impl Header {
    fn file_bytes(&self) -> Option<u64> {
        let bytes =
            self.rows.checked_mul(self.dim)?.checked_mul(self.kind.bytes())?.checked_add(self.data)?;
        u64::try_from(bytes).ok()
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        match self.kind {
            Kind::F2 => decode(bytes, out, self.big_endian, |b| half::f16::from_le_bytes(b).to_f32()),
            Kind::F4 => decode(bytes, out, self.big_endian, f32::from_le_bytes),
            // What is too large for single precision becomes infinite, and is refused as such.
            Kind::F8 => decode(bytes, out, self.big_endian, |b| f64::from_le_bytes(b) as f32),
        }
    }

    fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        if !bytes.starts_with(b"\x93NUMPY") {
            return Err("it does not start with the magic of .npy files".to_owned());
        }
        let (start, length) = match *bytes {
            [_, _, _, _, _, _, 1, _, a, b, ..] => (10, u32::from(u16::from_le_bytes([a, b]))),
            [_, _, _, _, _, _, 2 | 3, _, a, b, c, d, ..] => (12, u32::from_le_bytes([a, b, c, d])),
            [_, _, _, _, _, _, major @ (0 | 4..), minor, ..] => {
                return Err(format!("format version {major}.{minor}: expected 1, 2 or 3"));
            }
            _ => return Err("it ends within the header".to_owned()),
        };
        let length = length as usize;
        if length > MAX_HEADER {
            return Err(format!("a header of {length} bytes: expected at most {MAX_HEADER}"));
        }
        let text = bytes.get(start..start + length).ok_or("it ends within the header")?;
        let text = std::str::from_utf8(text).map_err(|_| "its header is not text")?;
        Self::parse_text(text, start + length)
    }

    fn parse_text(text: &str, data: usize) -> std::result::Result<Self, String> {
        let mut parser = Parser { rest: text };
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        parser.expect('{')?;
        while !parser.take('}') {
            let key = parser.string()?;
            parser.expect(':')?;
            match key {
                "descr" => descr = Some(parser.string()?),
                "fortran_order" => fortran = Some(parser.boolean()?),
                "shape" => shape = Some(parser.shape()?),
                other => return Err(format!("its header has the key {other:?}")),
            }
            if !parser.take(',') {
                parser.expect('}')?;
                break;
            }
        }
        if !parser.rest.trim().is_empty() {
            return Err("its header goes on after its end".to_owned());
        }
        let descr = descr.ok_or("its header has no descr")?;
        let (order, kind) = descr.split_at_checked(1).ok_or("its descr is empty")?;
        let kind = match kind {
            "f2" => Kind::F2,
            "f4" => Kind::F4,
            "f8" => Kind::F8,
            _ => return Err(format!("numbers of type {descr}: expected f2, f4 or f8")),
        };
        let big_endian = match order {
            "<" => false,
            ">" => true,
            _ => return Err(format!("numbers of type {descr}: expected < or > first")),
        };
        if fortran.ok_or("its header has no fortran_order")? {
            return Err("it is in Fortran order: expected C order".to_owned());
        }
        let shape = shape.ok_or("its header has no shape")?;
        let [rows, dim] = shape[..] else {
            return Err(format!("{} dimensions: expected 2, rows and numbers in a row", shape.len()));
        };
        if dim == 0 {
            return Err("rows of 0 numbers".to_owned());
        }
        Ok(Self { kind, big_endian, rows, dim, data })
    }
}

fn decode<const N: usize>(bytes: &[u8], out: &mut [f32], big_endian: bool, number: impl Fn([u8; N]) -> f32) {
    for (&(mut bytes), out) in bytes.as_chunks::<N>().0.iter().zip(out) {
        if big_endian {
            bytes.reverse();
        }
        *out = number(bytes);
    }
}

/// The few forms of a Python literal that headers are made of.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn take(&mut self, wanted: char) -> bool {
        let rest = self.rest.trim_start();
        let found = rest.strip_prefix(wanted);
        self.rest = found.unwrap_or(rest);
        found.is_some()
    }

    fn expect(&mut self, wanted: char) -> std::result::Result<(), String> {
        if self.take(wanted) {
            Ok(())
        } else {
            Err(format!("its header has no {wanted:?} where one belongs"))
        }
    }

    fn string(&mut self) -> std::result::Result<&'a str, String> {
        let quote = if self.take('"') {
            '"'
        } else if self.take('\'') {
            '\''
        } else {
            return Err("its header has no string where one belongs; arrays with named columns are not read"
                .to_owned());
        };
        let (text, rest) = self.rest.split_once(quote).ok_or("its header has a string without an end")?;
        self.rest = rest;
        Ok(text)
    }

    fn boolean(&mut self) -> std::result::Result<bool, String> {
        let rest = self.rest.trim_start();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err("its fortran_order is neither True nor False".to_owned())
    }

    fn shape(&mut self) -> std::result::Result<Vec<usize>, String> {
        let mut shape = Vec::new();
        self.expect('(')?;
        while !self.take(')') {
            let rest = self.rest.trim_start();
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, rest) = rest.split_at(end);
            shape.push(number.parse().map_err(|_| format!("its shape has {number:?} for a number"))?);
            self.rest = rest;
            if !self.take(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn file(version: u8, text: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY".to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((text.len() as u16).to_le_bytes()),
            _ => bytes.extend((text.len() as u32).to_le_bytes()),
        }
        bytes.extend(text.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn open(bytes: &[u8]) -> Result<NpyFile> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        NpyFile::open(file.path())
    }

    #[test]
    fn every_version_precision_and_byte_order() {
        let numbers = [1.0f32, -2.5, 0.0, 6.0];
        let bytes = |kind: &str| -> Vec<u8> {
            let one = |x: f32| match kind {
                "<f2" => half::f16::from_f32(x).to_le_bytes().to_vec(),
                ">f2" => half::f16::from_f32(x).to_be_bytes().to_vec(),
                "<f4" => x.to_le_bytes().to_vec(),
                ">f4" => x.to_be_bytes().to_vec(),
                "<f8" => f64::from(x).to_le_bytes().to_vec(),
                _ => f64::from(x).to_be_bytes().to_vec(),
            };
            numbers.into_iter().flat_map(one).collect()
        };
        for version in [1, 2, 3] {
            for kind in ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"] {
                let text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': (2, 2), }}   \n");
                let npy = open(&file(version, &text, &bytes(kind))).unwrap();
                assert_eq!((npy.rows(), npy.dim()), (2, 2));
                let mut out = [0.0; 4];
                npy.read(0, &mut out).unwrap();
                assert_eq!(out, numbers, "{kind} {version}");
                npy.read(1, &mut out[..2]).unwrap();
                assert_eq!(out[..2], numbers[2..], "{kind} {version}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        fn check(bytes: &[u8], expected: &str) {
            let message = open(bytes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        }
        let header = |descr: &str, fortran: &str, shape: &str| {
            file(1, &format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}}}"), &[0; 16])
        };
        check(b"", "magic");
        check(b"\x93NUMPY\x01\x00", "ends within");
        check(&file(9, "{}", b""), "version 9.0");
        check(&file(1, "{}", b""), "no descr");
        check(&file(1, "{'a': 1}", b""), "\"a\"");
        check(&header("'<i4'", "False", "(2, 2)"), "type <i4");
        check(&header("'|f4'", "False", "(2, 2)"), "< or >");
        check(&header("''", "False", "(2, 2)"), "descr is empty");
        check(&header("[('a', '<f4')]", "False", "(2, 2)"), "named columns");
        check(&header("'<f4'", "True", "(2, 2)"), "Fortran");
        check(&header("'<f4'", "0", "(2, 2)"), "neither");
        check(&header("'<f4'", "False", "(4,)"), "1 dimensions");
        check(&header("'<f4'", "False", "(1, 2, 2)"), "3 dimensions");
        check(&header("'<f4'", "False", "(4, 0)"), "rows of 0");
        check(&header("'<f4'", "False", "(2, 3)"), "bytes, but it has");
        check(&header("'<f4'", "False", "(99999999999999999999, 3)"), "for a number");
        check(&header("'<f4'", "False", "(9223372036854775807, 9)"), "beyond any file");
        assert_eq!(
            open(&file(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3)}", b"")).unwrap().rows(),
            0
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_array_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64), version in 0u8..5) {
            let mut whole = b"\x93NUMPY".to_vec();
            whole.push(version);
            whole.extend(&bytes);
            let _ = Header::parse(&whole);
            let _ = Header::parse(&bytes);
        }

        #[test]
        fn any_header_is_read_or_refused(text in r"\{?('descr'|'shape'|'fortran_order'|:| |,|'<f4'|\(|\)|[0-9]|True|False|é){0,20}\}?") {
            if let Ok(header) = Header::parse_text(&text, 10) {
                prop_assert!(header.dim > 0);
            }
        }
    }
}
