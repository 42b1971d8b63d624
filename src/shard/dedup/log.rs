//! Ids in the order in which they came, in pieces that never change once they
//! are full, so that a checkpoint can share them with the fold.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::super::snapshot::{Damaged, Reader};
use crate::event::Id;
use crate::native::prefetch;

/// How many ids a piece holds: 1 MiB of them.
const PIECE: usize = 65_536;

/// A log of ids. A **place** is how many ids came before, over all time.
#[derive(Debug, Default)]
pub(super) struct IdLog {
    /// The place of the oldest id that is held.
    first: u64,
    full: VecDeque<Arc<Piece>>,
    tail: Piece,
}

/// Up to [`PIECE`] ids, and when they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Piece {
    ids: Vec<u128>,
    /// Stamps only rise, so it is enough to know from which id on each holds.
    stamps: Vec<Stamp>,
}

/// From the id with this number on, ids came at this second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    from: u32,
    second: u32,
}

impl Piece {
    fn stamp(&self, number: usize) -> u32 {
        let after = self.stamps.partition_point(|it| it.from as usize <= number);
        self.stamps[after - 1].second
    }

    fn oldest(&self) -> u32 {
        self.stamps[0].second
    }

    fn newest(&self) -> u32 {
        self.stamps.last().map_or(0, |stamp| stamp.second)
    }
}

impl IdLog {
    /// The place of the next id.
    pub fn end(&self) -> u64 {
        self.first + (self.full.len() * PIECE + self.tail.ids.len()) as u64
    }

    /// All places that are held.
    pub fn places(&self) -> Range<u64> {
        self.first..self.end()
    }

    /// The place whose last 32 bits these are. It is certain, since no more than
    /// 2^32 ids are held.
    #[inline]
    pub fn place(&self, low: u32) -> u64 {
        self.first + u64::from(low.wrapping_sub(self.first as u32))
    }

    /// The id at a place that is held.
    #[inline]
    pub fn id(&self, place: u64) -> Id {
        let (piece, number) = self.at(place);
        Id(piece.ids[number])
    }

    /// Asks memory for the id at a place that is held.
    #[inline]
    pub fn prefetch(&self, place: u64) {
        let (piece, number) = self.at(place);
        prefetch(&piece.ids[number]);
    }

    /// Whether the id at the place with these last 32 bits came less than `horizon_s`
    /// seconds before `now_s`.
    #[inline]
    pub fn came_within(&self, low: u32, horizon_s: u32, now_s: u32) -> bool {
        // If the oldest did, all did, and memory need not be asked about this one.
        let first = self.full.front().map_or(&self.tail, |piece| &**piece);
        now_s - first.oldest() < horizon_s || {
            let (piece, number) = self.at(self.place(low));
            now_s - piece.stamp(number) < horizon_s
        }
    }

    #[inline]
    fn at(&self, place: u64) -> (&Piece, usize) {
        let number = (place - self.first) as usize;
        let piece = self.full.get(number / PIECE).map(|piece| &**piece);
        (piece.unwrap_or(&self.tail), number % PIECE)
    }

    /// Appends an id that came at `second`, which must not be before the last.
    pub fn push(&mut self, id: Id, second: u32) {
        if self.tail.ids.is_empty() {
            self.tail.ids.reserve_exact(PIECE);
        }
        if self.tail.stamps.is_empty() || self.tail.newest() != second {
            debug_assert!(self.tail.newest() <= second);
            let from = self.tail.ids.len() as u32;
            self.tail.stamps.push(Stamp { from, second });
        }
        self.tail.ids.push(id.0);
        if self.tail.ids.len() == PIECE {
            self.full
                .push_back(Arc::new(std::mem::take(&mut self.tail)));
            assert!(
                self.full.len() < (1 << 32) / PIECE,
                "2^32 ids in a partition"
            );
        }
    }

    /// Whether the oldest piece holds nothing that is still known.
    #[inline]
    pub fn is_expired(&self, now_s: u32, horizon_s: u32) -> bool {
        let oldest = self.full.front();
        oldest.is_some_and(|piece| now_s - piece.newest() >= horizon_s)
    }

    /// The places of the oldest piece.
    pub fn oldest(&self) -> Range<u64> {
        self.first..self.first + PIECE as u64
    }

    /// Lets go of the oldest piece.
    pub fn cut_off(&mut self) {
        self.full.pop_front();
        self.first += PIECE as u64;
    }

    pub fn ids(&self) -> Ids {
        Ids {
            first: self.first,
            full: self.full.iter().cloned().collect(),
            tail: Arc::new(self.tail.clone()),
        }
    }
}

impl From<Ids> for IdLog {
    fn from(ids: Ids) -> IdLog {
        let mut tail = Arc::unwrap_or_clone(ids.tail);
        tail.ids.reserve_exact(PIECE - tail.ids.len());
        IdLog {
            first: ids.first,
            full: ids.full.into(),
            tail,
        }
    }
}

/// The ids of a shard as they were at some offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    first: u64,
    full: Vec<Arc<Piece>>,
    tail: Arc<Piece>,
}

/// Ids that follow each other in one piece: what one object of the checkpoint
/// store holds.
#[derive(Clone, Debug)]
pub struct Segment {
    piece: Arc<Piece>,
    /// The place of the piece's first id.
    start: u64,
    places: Range<u64>,
}

impl Ids {
    /// How many ids a segment holds at most. A place that is a multiple of it
    /// begins a segment.
    pub const SEGMENT: u64 = PIECE as u64;

    /// The places that are held.
    pub fn places(&self) -> Range<u64> {
        let count = self.full.len() * PIECE + self.tail.ids.len();
        self.first..self.first + count as u64
    }

    /// The ids at `places`, which are held and lie in one piece.
    ///
    /// # Panics
    /// If they do not.
    pub fn segment(&self, places: Range<u64>) -> Segment {
        let number = ((places.start - self.first) / Ids::SEGMENT) as usize;
        let piece = self.full.get(number).unwrap_or(&self.tail).clone();
        let start = self.first + number as u64 * Ids::SEGMENT;
        assert!(
            places.start < places.end && places.end <= start + piece.ids.len() as u64,
            "ids {places:?} of {:?}",
            self.places()
        );
        Segment {
            piece,
            start,
            places,
        }
    }

    /// All that is held, each piece as a segment.
    pub fn segments(&self) -> impl Iterator<Item = Segment> {
        let Range { start, end } = self.places();
        let starts = (start..end).step_by(PIECE);
        starts.map(move |from| self.segment(from..end.min(from + Ids::SEGMENT)))
    }

    /// Puts segments together that follow each other without a gap, the first of
    /// them at the beginning of a piece.
    pub fn from_segments<'a>(segments: impl IntoIterator<Item = &'a [u8]>) -> Result<Ids, Damaged> {
        let mut log: Option<IdLog> = None;
        for bytes in segments {
            let mut reader = Reader(bytes);
            let (first, ids, stamps) = (reader.u64()?, reader.u32()?, reader.u32()?);
            let log = log.get_or_insert_with(|| IdLog {
                first,
                ..IdLog::default()
            });
            if log.end() != first {
                return Err(Damaged("segments of ids do not follow each other"));
            }
            let from_number = first % Ids::SEGMENT;
            if !log.first.is_multiple_of(Ids::SEGMENT)
                || from_number + u64::from(ids) > Ids::SEGMENT
            {
                return Err(Damaged("a segment of ids passes the end of its piece"));
            }
            let (mut left, mut last) = (ids, log.full.back().map_or(0, |piece| piece.newest()));
            last = last.max(log.tail.newest());
            let mut runs = Vec::new();
            for _ in 0..stamps {
                let (second, count) = (reader.u32()?, reader.u32()?);
                if second < last || count > left {
                    return Err(Damaged("stamps of ids are out of order"));
                }
                (left, last) = (left - count, second);
                runs.push((second, count));
            }
            if left > 0 {
                return Err(Damaged("some ids have no stamp"));
            }
            for (second, count) in runs {
                for _ in 0..count {
                    log.push(Id(reader.u128()?), second);
                }
            }
            reader.end()?;
        }
        Ok(log.unwrap_or_default().ids())
    }
}

impl Segment {
    /// The first place, the number of ids and of stamps (a stamp holds for so many
    /// ids), the stamps, the ids; all in little-endian order.
    pub fn to_bytes(&self) -> Vec<u8> {
        let number = |place: u64| (place - self.start) as usize;
        let (from, to) = (number(self.places.start), number(self.places.end));
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for (i, stamp) in self.piece.stamps.iter().enumerate() {
            let next = self.piece.stamps.get(i + 1).map(|next| next.from as usize);
            let (start, end) = (from.max(stamp.from as usize), to.min(next.unwrap_or(to)));
            if start < end {
                runs.push((stamp.second, (end - start) as u32));
            }
        }
        let mut bytes = Vec::with_capacity(16 + runs.len() * 8 + (to - from) * 16);
        bytes.extend_from_slice(&self.places.start.to_le_bytes());
        bytes.extend_from_slice(&((to - from) as u32).to_le_bytes());
        bytes.extend_from_slice(&(runs.len() as u32).to_le_bytes());
        for (second, count) in runs {
            bytes.extend_from_slice(&second.to_le_bytes());
            bytes.extend_from_slice(&count.to_le_bytes());
        }
        for id in &self.piece.ids[from..to] {
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }
}
