//! What leaves a shard: what changed since the last time, absolute.

use std::ops::Range;
use std::sync::Arc;

use super::{Counts, Donor, Donors, Pane, Row, Shard, Tally, Values};
use crate::event::Millis;
use crate::native::prefetch;
use crate::offset::{Offset, Partition};

/// The values of one shard that changed in `(from, to]`, absolute, exact at `to`.
///
/// A campaign is named by its place among those of the shard, which are in the order of
/// their first events. So it follows from the log, like all else.
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
    /// The place of the first campaign that had no event up to `from`.
    pub first_new: usize,
    /// The names of those campaigns, in the order of their places.
    pub new_names: Vec<Arc<str>>,
    /// What changed of the campaigns.
    pub changes: Changes,
}

/// What changed of some campaigns: the figures of all lie together, since on their way
/// they are read once, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    campaigns: Vec<Changed>,
    rows: Vec<Row>,
    panes: Vec<Pane>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Changed {
    place: u32,
    /// Where the campaign's figures end.
    rows_end: u32,
    panes_end: u32,
    counts: Counts,
}

/// What changed of one campaign, absolute: the receiver's copy, if it is as old as
/// the last change or newer, becomes equal to the sender's.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The campaign's place in the shard.
    pub place: usize,
    /// Its outcomes, whole.
    pub counts: &'a Counts,
    /// The rows that changed.
    pub rows: &'a [Row],
    /// The panes that changed.
    pub panes: &'a [Pane],
}

impl Changes {
    /// With room for so many campaigns, which have together so many panes.
    fn with_capacity(campaigns: usize, panes: usize) -> Changes {
        Changes {
            campaigns: Vec::with_capacity(campaigns),
            rows: Vec::with_capacity(campaigns),
            panes: Vec::with_capacity(panes),
        }
    }

    /// Adds what changed of a campaign, or all that there is of it.
    fn add(&mut self, place: usize, values: &mut Values, watermark: Option<Millis>, all: bool) {
        match all {
            true => {
                values.ledger.take_all(&mut self.rows);
                values.panes.take_all(watermark, &mut self.panes);
            }
            false => {
                values.ledger.take_changed(&mut self.rows);
                values.panes.take_changed(watermark, &mut self.panes);
            }
        }
        self.campaigns.push(Changed {
            place: place as u32,
            rows_end: self.rows.len() as u32,
            panes_end: self.panes.len() as u32,
            counts: values.counts,
        });
    }

    /// How many campaigns changed.
    pub fn len(&self) -> usize {
        self.campaigns.len()
    }

    /// Whether none did.
    pub fn is_empty(&self) -> bool {
        self.campaigns.is_empty()
    }

    /// The place of the campaign whose change has this number, if there are so many.
    #[inline]
    pub fn place(&self, number: usize) -> Option<usize> {
        Some(self.campaigns.get(number)?.place as usize)
    }

    /// The changes in their order.
    pub fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        let (mut rows, mut panes) = (0, 0);
        self.campaigns.iter().map(move |campaign| Change {
            place: campaign.place as usize,
            counts: &campaign.counts,
            rows: &self.rows[up_to(&mut rows, campaign.rows_end)],
            panes: &self.panes[up_to(&mut panes, campaign.panes_end)],
        })
    }
}

/// From where one ended to where the next one does.
fn up_to(ended: &mut usize, end: u32) -> Range<usize> {
    std::mem::replace(ended, end as usize)..end as usize
}

/// How many campaigns ahead memory is asked for what one points to; for itself, twice as many.
const AHEAD: usize = 8;

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
    pub campaigns: Vec<CampaignDonors>,
}

/// Donors of one campaign.
#[derive(Clone, Debug)]
pub struct CampaignDonors {
    /// The campaign's place in the shard.
    pub place: usize,
    /// Its name: donors may come before its first values do.
    pub campaign: Arc<str>,
    /// Those that it got.
    pub donors: Donors,
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
    /// What changed since the last flush, and marks it as flushed. The first one is whole:
    /// of what was restored, nobody but a checkpoint has been told.
    pub fn flush(&mut self) -> Flush {
        if self.flushed == Offset::START {
            return self.full_flush();
        }
        self.post();
        let mut changed = std::mem::take(&mut self.changed);
        let flush = self.flush_of(self.flushed, &changed);
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
        self.names_flushed = 0;
        self.flush_of(Offset::START, &all)
    }

    /// What changed of the campaigns at `places` since `from`.
    fn flush_of(&mut self, from: Offset, places: &[usize]) -> Flush {
        let whole = from == Offset::START;
        let panes = match whole {
            true => self.campaigns.iter().map(|it| it.values.panes.len()).sum(),
            false => places.len(),
        };
        let mut changes = Changes::with_capacity(places.len(), panes);
        for (number, &place) in places.iter().enumerate() {
            if let Some(&ahead) = places.get(number + 2 * AHEAD) {
                prefetch(&self.campaigns[ahead]);
            }
            if let Some(&ahead) = places.get(number + AHEAD) {
                self.campaigns[ahead].values.panes.prefetch();
            }
            let campaign = &mut self.campaigns[place];
            if let Some(begun) = &mut self.begun {
                // Before its panes are put together.
                begun.encode(place, &self.names[place], campaign);
            }
            campaign.changed = false;
            changes.add(place, &mut campaign.values, self.watermark, whole);
        }
        self.flushed = self.offset;
        let first_new = std::mem::replace(&mut self.names_flushed, self.names.len());
        Flush {
            partition: self.partition,
            from,
            to: self.offset,
            watermark: self.watermark,
            tally: self.tally.clone(),
            first_new,
            new_names: self.names[first_new..].to_vec(),
            changes,
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
        let of = |place: usize, donors| CampaignDonors {
            place,
            campaign: self.names[place].clone(),
            donors,
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
