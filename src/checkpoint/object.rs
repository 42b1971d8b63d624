//! An object of the checkpoint store: bytes that say what they are, in which
//! format, how many, and whether they are still what was written.
//!
//! ```text
//! "tally99" kind:u8  version:u16  length:u64  body  checksum:u128
//! ```
//!
//! in little-endian order; the checksum is XXH3 at 128 bits of all before it.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// What an object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A [`Manifest`](super::Manifest), as JSON.
    Manifest,
    /// Counters of a shard, whole or what changed.
    Counters,
    /// A segment of ids.
    Ids,
}

impl Kind {
    fn letter(self) -> u8 {
        match self {
            Kind::Manifest => b'm',
            Kind::Counters => b'c',
            Kind::Ids => b'i',
        }
    }
}

/// Goes up when any object is written in another way than before.
const VERSION: u16 = 1;

const MAGIC: &[u8; 7] = b"tally99";
const HEAD: usize = 7 + 1 + 2 + 8;
const FOOT: usize = 16;

/// The checksum of an object, as its last bytes hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum(pub u128);

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for Checksum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Checksum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = u128::from_str_radix(&text, 16).map_err(de::Error::custom)?;
        Ok(Checksum(number))
    }
}

/// An object around `body`, in parts, and its checksum. The body is not copied.
pub fn pack(kind: Kind, body: impl Into<Bytes>) -> ([Bytes; 3], Checksum) {
    let body: Bytes = body.into();
    let mut head = Vec::with_capacity(HEAD);
    head.extend_from_slice(MAGIC);
    head.push(kind.letter());
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&(body.len() as u64).to_le_bytes());
    let mut checksum = Xxh3::new();
    checksum.update(&head);
    checksum.update(&body);
    let checksum = checksum.digest128();
    let foot = checksum.to_le_bytes().to_vec();
    ([head.into(), body, foot.into()], Checksum(checksum))
}

/// The body of an object and its checksum; or what is wrong with it.
pub fn unpack(kind: Kind, bytes: &[u8]) -> Result<(&[u8], Checksum), String> {
    let cut_short = || format!("it is cut short, at {} bytes", bytes.len());
    let (magic, rest) = bytes.split_at_checked(7).ok_or_else(cut_short)?;
    let (&letter, rest) = rest.split_first().ok_or_else(cut_short)?;
    if magic != MAGIC {
        return Err("it is no object of tally99".into());
    }
    let (version, rest) = rest.split_first_chunk().ok_or_else(cut_short)?;
    let version = u16::from_le_bytes(*version);
    if version != VERSION {
        return Err(format!(
            "its format is {version}, and this program reads {VERSION}"
        ));
    }
    if letter != kind.letter() {
        return Err(format!("it is of another kind than {kind:?}"));
    }
    let (length, rest) = rest.split_first_chunk().ok_or_else(cut_short)?;
    let (body, foot) = rest.split_last_chunk().ok_or_else(cut_short)?;
    let length = u64::from_le_bytes(*length);
    if length != body.len() as u64 {
        return Err(format!(
            "it has {} bytes of content where it says {length}",
            body.len()
        ));
    }
    let checksum = u128::from_le_bytes(*foot);
    if checksum != xxh3_128(&bytes[..bytes.len() - FOOT]) {
        return Err("its content does not match its checksum".into());
    }
    Ok((body, Checksum(checksum)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flipped_bit_and_no_missing_byte_goes_unseen() {
        let (parts, checksum) = pack(Kind::Ids, "seven ids");
        let bytes = parts.concat();
        assert_eq!(unpack(Kind::Ids, &bytes), Ok((&b"seven ids"[..], checksum)));
        assert!(unpack(Kind::Counters, &bytes).is_err());
        for at in 0..bytes.len() {
            assert!(unpack(Kind::Ids, &bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(unpack(Kind::Ids, &flipped).is_err(), "bit {bit} of {at}");
            }
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(unpack(Kind::Ids, &longer).is_err());
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let mut bytes = pack(Kind::Manifest, "{}").0.concat();
        bytes[8] = 2;
        let why = unpack(Kind::Manifest, &bytes).unwrap_err();
        assert_eq!(why, "its format is 2, and this program reads 1");
    }
}
