//! Events whose outcome is certain, and that their campaigns have not got yet.
//!
//! What becomes of an event is decided in the order of the log, by the ids, the clock and
//! the watermark, which all campaigns share. What a campaign keeps are sums, extremes and
//! unions: it comes to the same whenever it gets its events. And it lies anywhere in memory,
//! which answers slowly. So events are entered here as they come, and posted now and then,
//! campaign by campaign: each is waited for once, however many events it gets, and those
//! that come next are asked for ahead.

use super::{Donor, Shard, Values};
use crate::event::{Gift, Millis};
use crate::native::prefetch;

/// How many bytes of entries a shard has [room](Shard::set_journal_room) for that was given
/// none: 29,000 of them.
const ROOM_BYTES: usize = 1_280 << 10;

/// How many campaigns ahead memory is asked for one, and for what it points to.
const AHEAD: usize = 16;

/// What a campaign gets of an event that names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// When its payment succeeded.
    pub at: Millis,
    /// What was given.
    pub gift: Gift,
    /// By whom.
    pub donor: Option<Donor>,
    /// The place of the campaign.
    pub place: u32,
    /// What became of it.
    pub what: What,
}

/// What became of an event, as its campaign sees it.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// It is counted.
    Counted,
    /// It is counted, but too old for every window.
    Late,
    /// Its id was seen before.
    Duplicate,
    /// It cannot be counted.
    DeadLetter,
}

/// Entries in the order of the log.
#[derive(Debug)]
pub(super) struct Journal {
    entries: Vec<Entry>,
    /// How many there are at most.
    room: usize,
    /// The places of the campaigns that have any, in the order of their first.
    places: Vec<u32>,
    /// By place, how many entries a campaign has.
    counts: Vec<u32>,
    /// Room for the numbers of the entries, by campaign.
    order: Vec<u32>,
}

impl Default for Journal {
    fn default() -> Journal {
        Journal {
            entries: Vec::new(),
            room: ROOM_BYTES / ENTRY_BYTES,
            places: Vec::new(),
            counts: Vec::new(),
            order: Vec::new(),
        }
    }
}

/// With its number, by campaign.
const ENTRY_BYTES: usize = size_of::<Entry>() + size_of::<u32>();

impl Journal {
    /// Enters what its campaign gets.
    #[inline]
    pub fn enter(&mut self, entry: Entry) {
        let place = entry.place as usize;
        if self.counts.len() <= place {
            self.counts.resize(place + 1, 0);
        }
        if self.counts[place] == 0 {
            self.places.push(entry.place);
        }
        self.counts[place] += 1;
        self.entries.push(entry);
    }

    /// Asks memory for what is needed to enter something for the campaign at `place`.
    #[inline]
    pub fn prefetch(&self, place: usize) {
        self.counts.get(place).inspect(|it| prefetch(*it));
    }

    /// Whether there is no room for more.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.entries.len() >= self.room
    }

    /// Orders the entries by campaign, and those of one by the log. What `counts` has of a
    /// campaign is then where its entries end.
    fn sort(&mut self) {
        let mut start = 0;
        for &place in &self.places {
            let count = &mut self.counts[place as usize];
            start += std::mem::replace(count, start);
        }
        self.order.resize(self.entries.len(), 0);
        for (number, entry) in (0..).zip(&self.entries) {
            let next = &mut self.counts[entry.place as usize];
            self.order[*next as usize] = number;
            *next += 1;
        }
    }
}

impl Shard {
    /// How many bytes it may take for events that their campaigns have not got yet. The more
    /// there are, the more of them are of one campaign, which then is waited for once.
    pub fn set_journal_room(&mut self, bytes: usize) {
        self.journal.room = bytes / ENTRY_BYTES;
    }

    /// Posts what the journal holds to the campaigns.
    pub(super) fn post(&mut self) {
        let mut journal = std::mem::take(&mut self.journal);
        journal.sort();
        let mut start = 0;
        for (number, &place) in journal.places.iter().enumerate() {
            if let Some(&place) = journal.places.get(number + 2 * AHEAD) {
                prefetch(&self.campaigns[place as usize]);
            }
            if let Some(&place) = journal.places.get(number + AHEAD) {
                let campaign = &self.campaigns[place as usize];
                campaign.values.panes.prefetch();
                campaign.donors.prefetch();
            }
            let end = std::mem::take(&mut journal.counts[place as usize]) as usize;
            let entries = (start..end).map(|at| {
                if let Some(&number) = journal.order.get(at + AHEAD) {
                    prefetch(&journal.entries[number as usize]);
                }
                journal.entries[journal.order[at] as usize]
            });
            self.post_to(place as usize, entries);
            start = end;
        }
        journal.entries.clear();
        journal.places.clear();
        self.journal = journal;
    }

    fn post_to(&mut self, place: usize, entries: impl Iterator<Item = Entry>) {
        let campaign = &mut self.campaigns[place];
        if let Some(begun) = &mut self.begun {
            // As it was before these events.
            begun.encode(place, &self.names[place], campaign);
        }
        if !campaign.changed {
            campaign.changed = true;
            self.changed.push(place);
        }
        if campaign.in_snapshot != self.next_snapshot {
            campaign.in_snapshot = self.next_snapshot;
            self.kept_changed.push(place);
        }
        for entry in entries {
            let Values {
                counts,
                ledger,
                panes,
            } = &mut campaign.values;
            counts.seen += 1;
            match entry.what {
                What::Counted | What::Late => {}
                What::Duplicate => {
                    counts.duplicates += 1;
                    continue;
                }
                What::DeadLetter => {
                    counts.dead_letters += 1;
                    continue;
                }
            }
            let Entry {
                at, gift, donor, ..
            } = entry;
            counts.counted += 1;
            counts.first_at = counts.first_at.min(at);
            counts.last_at = counts.last_at.max(at);
            ledger.add(self.rules.calendar.day_of(at), gift);
            match entry.what {
                What::Late => counts.late += 1,
                _ => panes.add(at, gift, self.watermark.unwrap_or(at)),
            }
            if let Some(donor) = donor {
                campaign.donors.see(donor);
                campaign.kept_donors_changed = true;
                self.new_donors.add(place, donor);
            }
        }
    }
}
