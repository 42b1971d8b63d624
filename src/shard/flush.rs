//! What leaves a shard: what changed since the last time, absolute.

use std::sync::Arc;

use super::{Donor, Donors, Shard, Tally, Values, ValuesUpdate};
use crate::event::Millis;
use crate::offset::{Offset, Partition};

/// The values of one shard that changed in `(from, to]`, absolute, exact at `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flush {
    /// Whose they are.
    pub partition: Partition,
    /// What the receiver must hold at least; [`Offset::START`] makes it whole.
    pub from: Offset,
    /// What the values are exact at.
    pub to: Offset,
    /// The highest `at` seen, if any event was.
    pub watermark: Option<Millis>,
    /// The shard's outcomes.
    pub tally: Tally,
    /// The campaigns that changed.
    pub campaigns: Vec<Changed<ValuesUpdate>>,
}

/// What changed of one campaign of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<T> {
    /// Its place among the shard's campaigns, which are in the order of their first events.
    /// So it follows from the log, like all else, and may stand for the name.
    pub place: usize,
    /// Its name.
    pub campaign: Arc<str>,
    /// What it has now.
    pub now: T,
}

/// The donors that came since the last time; merging them is a union, so they may come
/// late, twice, in any order, or with others that came before.
#[derive(Clone, Debug)]
pub struct DonorsFlush {
    /// Whose they are.
    pub partition: Partition,
    /// All donors before this offset are in what was flushed so far.
    pub to: Offset,
    /// Over all campaigns of the shard.
    pub overall: Donors,
    /// By campaign.
    pub campaigns: Vec<Changed<Donors>>,
}

/// The donors that campaigns got since they were flushed last.
#[derive(Debug)]
pub(super) enum NewDonors {
    /// Each with the place of its campaign.
    Since(Vec<(u32, Donor)>),
    /// So many, or of so long, that all are flushed.
    Uncounted,
}

impl NewDonors {
    #[inline]
    pub fn add(&mut self, place: usize, donor: Donor) {
        if let NewDonors::Since(donors) = self {
            match donors.len() < donors.capacity() {
                true => donors.push((place as u32, donor)),
                false => *self = NewDonors::Uncounted,
            }
        }
    }

    /// What there is; then it begins anew. Of a few donors for each of so many campaigns, the
    /// sketches are not much more.
    fn take(&mut self, campaigns: usize) -> Option<Vec<(u32, Donor)>> {
        let room = Vec::with_capacity(4 * campaigns + 1_024);
        match std::mem::replace(self, NewDonors::Since(room)) {
            NewDonors::Since(donors) => Some(donors),
            NewDonors::Uncounted => None,
        }
    }
}

impl Shard {
    /// What changed since the last flush, and marks it as flushed.
    pub fn flush(&mut self) -> Flush {
        self.post();
        let mut changed = std::mem::take(&mut self.changed);
        let flush = self.flush_of(self.flushed, &changed, |values, watermark| {
            values.take_changes(watermark)
        });
        changed.clear();
        self.changed = changed;
        flush
    }

    /// Everything: what a worker sends first after every assignment. All sketches
    /// come with the next [`flush_donors`](Shard::flush_donors).
    pub fn full_flush(&mut self) -> Flush {
        self.post();
        self.changed.clear();
        let all: Vec<usize> = (0..self.campaigns.len()).collect();
        self.donors_flushed = Offset::START;
        self.new_donors = NewDonors::Uncounted;
        self.flush_of(Offset::START, &all, |values, watermark| {
            values.take_all(watermark)
        })
    }

    fn flush_of(
        &mut self,
        from: Offset,
        places: &[usize],
        take: impl Fn(&mut Values, Option<Millis>) -> ValuesUpdate,
    ) -> Flush {
        let mut campaigns = Vec::with_capacity(places.len());
        for &place in places {
            let campaign = &mut self.campaigns[place];
            if let Some(begun) = &mut self.begun {
                // Before its panes are put together.
                begun.encode(place, &self.names[place], campaign);
            }
            campaign.changed = false;
            campaigns.push(Changed {
                place,
                campaign: self.names[place].clone(),
                now: take(&mut campaign.values, self.watermark),
            });
        }
        self.flushed = self.offset;
        Flush {
            partition: self.partition,
            from,
            to: self.offset,
            watermark: self.watermark,
            tally: self.tally.clone(),
            campaigns,
        }
    }

    /// Whether a flush would bring anything.
    pub fn has_changes(&self) -> bool {
        self.flushed < self.offset
    }

    /// The donors that campaigns got since the last time, or all of them; `None` if nothing
    /// was applied since.
    pub fn flush_donors(&mut self) -> Option<DonorsFlush> {
        if self.donors_flushed == self.offset {
            return None;
        }
        self.donors_flushed = self.offset;
        self.post();
        let of = |place: usize, now| Changed {
            place,
            campaign: self.names[place].clone(),
            now,
        };
        let campaigns = match self.new_donors.take(self.campaigns.len()) {
            None => {
                let all = self.campaigns.iter().enumerate();
                all.map(|(place, it)| of(place, it.donors.clone()))
                    .collect()
            }
            Some(mut new) => {
                new.sort_by_key(|it| it.0);
                let by_campaign = new.chunk_by(|one, other| one.0 == other.0);
                let donors = |of_one: &[(u32, Donor)]| Donors::among(of_one.iter().map(|it| it.1));
                by_campaign
                    .map(|of_one| of(of_one[0].0 as usize, donors(of_one)))
                    .collect()
            }
        };
        Some(DonorsFlush {
            partition: self.partition,
            to: self.offset,
            overall: self.donors.clone(),
            campaigns,
        })
    }
}
