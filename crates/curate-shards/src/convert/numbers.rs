//! Ids as other programs store them: the number types, read without trusting the bytes.

use std::path::Path;

use crate::TokenId;
use crate::error::{Error, Result};

/// A type of number, little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Number {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

impl Number {
    /// Bytes of one number.
    pub(super) fn bytes(self) -> usize {
        match self {
            Number::U8 | Number::I8 => 1,
            Number::U16 | Number::I16 => 2,
            Number::U32 | Number::I32 | Number::F32 => 4,
            Number::U64 | Number::I64 | Number::F64 => 8,
        }
    }

    /// Appends the ids in `bytes`, which lie at byte `offset` of the file.
    ///
    /// # Errors
    /// [`Error::BadToken`] at the first number that is no id of the vocabulary; [`Error::Damaged`] if the bytes end
    /// inside a number.
    pub(super) fn read(
        self,
        path: &Path,
        bytes: &[u8],
        offset: u64,
        vocab_size: u32,
        out: &mut Vec<TokenId>,
    ) -> Result<()> {
        if !bytes.len().is_multiple_of(self.bytes()) {
            let problem =
                format!("byte {}: {} bytes cannot hold ids of {} bytes", offset, bytes.len(), self.bytes());
            return Err(Error::damaged(path, problem));
        }
        out.reserve(bytes.len() / self.bytes());
        for (i, number) in bytes.chunks_exact(self.bytes()).enumerate() {
            match self.id(number) {
                Some(id) if id < vocab_size => out.push(id),
                _ => {
                    let offset = offset + (i * self.bytes()) as u64;
                    let (path, got) = (path.to_owned(), self.text(number));
                    return Err(Error::BadToken { path, offset, got, vocab_size });
                }
            }
        }
        Ok(())
    }

    /// The id that one number of this type is, if it is one.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast is compared with what it came from"
    )]
    fn id(self, number: &[u8]) -> Option<TokenId> {
        let whole = |value: f64| {
            let id = value as u32;
            (f64::from(id) == value).then_some(id)
        };
        match self {
            Number::U8 => number.first().map(|&byte| u32::from(byte)),
            Number::I8 => u32::try_from(i8::from_le_bytes(array(number))).ok(),
            Number::U16 => Some(u32::from(u16::from_le_bytes(array(number)))),
            Number::I16 => u32::try_from(i16::from_le_bytes(array(number))).ok(),
            Number::U32 => Some(u32::from_le_bytes(array(number))),
            Number::I32 => u32::try_from(i32::from_le_bytes(array(number))).ok(),
            Number::U64 => u32::try_from(u64::from_le_bytes(array(number))).ok(),
            Number::I64 => u32::try_from(i64::from_le_bytes(array(number))).ok(),
            Number::F32 => whole(f64::from(f32::from_le_bytes(array(number)))),
            Number::F64 => whole(f64::from_le_bytes(array(number))),
        }
    }

    fn text(self, number: &[u8]) -> String {
        match self {
            Number::U8 => number[0].to_string(),
            Number::I8 => i8::from_le_bytes(array(number)).to_string(),
            Number::U16 => u16::from_le_bytes(array(number)).to_string(),
            Number::I16 => i16::from_le_bytes(array(number)).to_string(),
            Number::U32 => u32::from_le_bytes(array(number)).to_string(),
            Number::I32 => i32::from_le_bytes(array(number)).to_string(),
            Number::U64 => u64::from_le_bytes(array(number)).to_string(),
            Number::I64 => i64::from_le_bytes(array(number)).to_string(),
            Number::F32 => f32::from_le_bytes(array(number)).to_string(),
            Number::F64 => f64::from_le_bytes(array(number)).to_string(),
        }
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("numbers are cut to their size")
}

/// Appends ids as numbers of `bytes` bytes, 2 or 4.
#[expect(clippy::cast_possible_truncation, reason = "the caller chose the size by the largest id")]
pub(super) fn write(tokens: &[TokenId], bytes: u64, out: &mut Vec<u8>) {
    if bytes == 2 {
        tokens.iter().for_each(|&id| out.extend((id as u16).to_le_bytes()));
    } else {
        tokens.iter().for_each(|&id| out.extend(id.to_le_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(number: Number, bytes: &[u8], expected: std::result::Result<&[TokenId], &str>) {
        let mut ids = Vec::new();
        let got = number.read(Path::new("f"), bytes, 100, 1000, &mut ids).map(|()| ids);
        assert_eq!(got.map_err(|e| e.to_string()), expected.map(<[_]>::to_vec).map_err(str::to_owned));
    }

    #[test]
    fn every_type_is_read_and_checked() {
        check(Number::U8, &[7, 255], Ok(&[7, 255]));
        check(Number::I8, &[7, 255], Err("f: byte 101: the id is -1, outside the vocabulary of 1000"));
        check(Number::U16, &[1, 2, 3, 0], Ok(&[513, 3]));
        check(Number::I16, &[0xff, 0xff], Err("f: byte 100: the id is -1, outside the vocabulary of 1000"));
        check(
            Number::U32,
            &1000u32.to_le_bytes(),
            Err("f: byte 100: the id is 1000, outside the vocabulary of 1000"),
        );
        check(Number::I32, &999i32.to_le_bytes(), Ok(&[999]));
        check(Number::I64, &[9, 0, 0, 0, 0, 0, 0, 0], Ok(&[9]));
        check(
            Number::U64,
            &(1u64 << 32).to_le_bytes(),
            Err("f: byte 100: the id is 4294967296, outside the vocabulary of 1000"),
        );
        check(Number::F32, &4f32.to_le_bytes(), Ok(&[4]));
        check(
            Number::F64,
            &4.5f64.to_le_bytes(),
            Err("f: byte 100: the id is 4.5, outside the vocabulary of 1000"),
        );
        check(
            Number::F64,
            &f64::NAN.to_le_bytes(),
            Err("f: byte 100: the id is NaN, outside the vocabulary of 1000"),
        );
        check(Number::U16, &[1, 2, 3], Err("f: byte 100: 3 bytes cannot hold ids of 2 bytes"));
    }
}
