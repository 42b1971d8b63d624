//! Merge: the highest offset wins, and totals are sums of shards.
//!
//! For each partition merge holds the values of its shard at one offset. A
//! [`Flush`] moves them on to a later one. Whatever is old is ignored, whatever
//! would leave a gap is refused, so:
//!
//! - the held values of a partition are always the whole fold up to one offset;
//! - flushes may come twice, late, in any order, or from a process that should
//!   no longer be there: the outcome depends on the highest offset alone;
//! - offsets never step back, and neither does any total.
//!
//! Totals, sums and digest are kept up to date by what changes; adding everything
//! up anew gives the same, and the tests do.

mod digest;
mod gate;
mod sums;
mod windows;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub use digest::{Digest, campaign_digest};
pub use gate::Gate;
pub use sums::Sums;
pub use windows::{CampaignWindows, WindowSums};

use crate::event::Millis;
use crate::native::prefetch;
use crate::offset::{Offset, Partition};
use crate::shard::{Change, Counts, DonorsFlush, DonorsUnion, Flush, Tally, Values};

/// How many campaigns ahead memory is asked for what one points to; for itself, twice as many.
const AHEAD: usize = 8;

/// What merge did with a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The partition has moved on.
    Merged,
    /// Nothing new in it.
    Old,
    /// Something between what is held and `from` is missing; the partition stays
    /// where it is until a flush comes that begins there or before.
    Missing,
}

/// A campaign's total at a cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total {
    /// The campaign.
    pub campaign: Arc<str>,
    /// Its outcomes; `counted` is its version.
    pub counts: Counts,
    /// Its sums.
    pub sums: Sums,
    /// Its distinct donors, estimated.
    pub donors: u64,
}

/// A vector of offsets, and the totals at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// What the totals are exact at.
    pub offsets: BTreeMap<Partition, Offset>,
    /// The highest `at` seen.
    pub as_of: Option<Millis>,
    /// The outcomes of all records.
    pub tally: Tally,
    /// The sums over all campaigns.
    pub sums: Sums,
    /// Distinct donors over all campaigns, estimated.
    pub donors: u64,
    /// How many campaigns have something counted.
    pub campaigns: u64,
    /// The digest of all campaigns' totals.
    pub digest: Digest,
    /// The totals that changed since the cut before.
    pub changed: Vec<Total>,
}

/// The merged view of all partitions.
#[derive(Debug)]
pub struct Merge {
    index: hashbrown::HashMap<Arc<str>, usize>,
    campaigns: Vec<Campaign>,
    places: BTreeMap<Partition, Places>,
    partitions: BTreeMap<Partition, Held>,
    /// The places of campaigns that changed since the last cut.
    changed: Vec<usize>,
    /// The places of those that got donors since they were estimated, in that order.
    donors_changed: VecDeque<usize>,
    /// The place of the campaign whose windows are looked at next.
    windows_next: usize,
    sums: Sums,
    donors: DonorsUnion,
    /// Up to where each partition's donors are in the sketches.
    donors_offsets: BTreeMap<Partition, Offset>,
    digest: Digest,
    counted_campaigns: u64,
}

/// The places of a shard's campaigns.
#[derive(Debug, Default)]
struct Places {
    /// By the place of a campaign in the shard, its place here.
    here: Numbers,
    /// By its place here, its place in the shard.
    there: Numbers,
}

/// Numbers by numbers.
#[derive(Debug, Default)]
struct Numbers(Vec<u32>);

impl Numbers {
    const NONE: u32 = u32::MAX;

    #[inline]
    fn get(&self, of: usize) -> Option<usize> {
        let number = self.0.get(of).copied()?;
        (number != Numbers::NONE).then_some(number as usize)
    }

    fn set(&mut self, of: usize, number: usize) {
        if self.0.len() <= of {
            self.0.resize(of + 1, Numbers::NONE);
        }
        self.0[of] = number as u32;
    }
}

/// A shard's values as merge holds them.
#[derive(Debug, Default)]
struct Held {
    offset: Offset,
    watermark: Option<Millis>,
    tally: Tally,
    /// By the campaign's place in the shard.
    values: Vec<Values>,
}

#[derive(Debug)]
struct Campaign {
    total: Total,
    donors: DonorsUnion,
    changed: bool,
    donors_changed: bool,
    /// What `digest` holds of it.
    digest: Digest,
    /// The windows that were emitted last; `None` before the first time, since
    /// a process before this one may have left others than zero in the topic.
    windows: Option<CampaignWindows>,
}

impl Default for Merge {
    fn default() -> Self {
        Merge::new()
    }
}

impl Merge {
    /// Nothing held.
    pub fn new() -> Merge {
        Merge {
            index: hashbrown::HashMap::new(),
            campaigns: Vec::new(),
            places: BTreeMap::new(),
            partitions: BTreeMap::new(),
            changed: Vec::new(),
            donors_changed: VecDeque::new(),
            windows_next: 0,
            sums: Sums::default(),
            donors: DonorsUnion::overall(),
            donors_offsets: BTreeMap::new(),
            digest: Digest::default(),
            counted_campaigns: 0,
        }
    }

    /// What is held of each partition.
    pub fn offsets(&self) -> BTreeMap<Partition, Offset> {
        self.partitions
            .iter()
            .map(|(&partition, held)| (partition, held.offset))
            .collect()
    }

    /// Up to where each partition's donors are in the sketches, which come on an
    /// interval of their own.
    pub fn donors_offsets(&self) -> &BTreeMap<Partition, Offset> {
        &self.donors_offsets
    }

    /// The highest `at` seen in any partition.
    pub fn watermark(&self) -> Option<Millis> {
        self.partitions
            .values()
            .filter_map(|held| held.watermark)
            .max()
    }

    /// Moves a partition on, if the flush is newer and leaves no gap.
    pub fn apply(&mut self, flush: &Flush) -> Applied {
        match self
            .partitions
            .get(&flush.partition)
            .map(|held| held.offset)
        {
            None if flush.from > Offset::START => return Applied::Missing,
            Some(held) if flush.to <= held => return Applied::Old,
            Some(held) if flush.from > held => return Applied::Missing,
            _ => {}
        }
        self.donors_offsets.entry(flush.partition).or_default();
        let mut held = self.partitions.remove(&flush.partition).unwrap_or_default();
        let mut places = self.places.remove(&flush.partition).unwrap_or_default();
        for (there, name) in (flush.first_new..).zip(&flush.new_names) {
            self.place(&mut places, there, name);
        }
        // What is held is as new as `from`, or newer, so it has the campaigns of that time.
        debug_assert!(flush.first_new <= held.values.len());
        let named = flush.first_new + flush.new_names.len();
        if held.values.len() < named {
            held.values.resize_with(named, Values::default);
        }
        for (number, change) in flush.changes.iter().enumerate() {
            if let Some(ahead) = flush.changes.place(number + 2 * AHEAD) {
                prefetch(&held.values[ahead]);
                let campaign = places.here.get(ahead).map(|place| &self.campaigns[place]);
                campaign.inspect(|campaign| prefetch(&campaign.total));
            }
            if let Some(ahead) = flush.changes.place(number + AHEAD) {
                held.values[ahead].panes.prefetch();
            }
            let place = places.here.get(change.place);
            let place = place.expect("a campaign that was named in this flush, or before");
            let values = &mut held.values[change.place];
            self.update(values, place, change, flush.watermark);
        }
        self.places.insert(flush.partition, places);
        held.offset = flush.to;
        held.watermark = flush.watermark;
        held.tally = flush.tally.clone();
        self.partitions.insert(flush.partition, held);
        Applied::Merged
    }

    fn update(
        &mut self,
        values: &mut Values,
        place: usize,
        change: Change<'_>,
        watermark: Option<Millis>,
    ) {
        let campaign = &mut self.campaigns[place];

        let counts = &mut campaign.total.counts;
        let counted_before = counts.counted;
        sums::replace_counts(counts, &values.counts, change.counts);
        if counted_before == 0 && counts.counted > 0 {
            self.counted_campaigns += 1;
        }
        if counts.counted > counted_before && !campaign.changed {
            campaign.changed = true;
            self.changed.push(place);
        }
        values.counts = *change.counts;
        for &row in change.rows {
            let old = values.ledger.set(row);
            campaign
                .total
                .sums
                .replace(row.currency, &old, &row.figures);
            self.sums.replace(row.currency, &old, &row.figures);
        }
        values.panes.set(change.panes, watermark);
    }

    /// Takes in sketches. They come on an interval of their own, and what is estimated by
    /// them may be a little behind the cut.
    pub fn apply_donors(&mut self, flush: &DonorsFlush) {
        let reached = self.donors_offsets.entry(flush.partition).or_default();
        *reached = flush.to.max(*reached);
        self.donors.merge(&flush.overall);
        let mut places = self.places.remove(&flush.partition).unwrap_or_default();
        for of_one in &flush.campaigns {
            let place = self.place(&mut places, of_one.place, &of_one.campaign);
            let campaign = &mut self.campaigns[place];
            campaign.donors.merge(&of_one.donors);
            if !campaign.donors_changed {
                campaign.donors_changed = true;
                self.donors_changed.push_back(place);
            }
        }
        self.places.insert(flush.partition, places);
    }

    /// Closes a cut at what is held now: all sums, and the totals that changed
    /// since the last one closed, with their donors as they were [estimated
    /// last](Merge::estimate_donors).
    pub fn close_cut(&mut self) -> Cut {
        let mut changed = Vec::with_capacity(self.changed.len());
        for place in std::mem::take(&mut self.changed) {
            let campaign = &mut self.campaigns[place];
            campaign.changed = false;
            if campaign.total.counts.counted == 0 {
                continue; // Known by its sketch only; its flush is still to come.
            }
            let digest = campaign_digest(&campaign.total);
            self.digest.replace(campaign.digest, digest);
            campaign.digest = digest;
            changed.push(campaign.total.clone());
        }
        let mut tally = Tally::default();
        for held in self.partitions.values() {
            sums::add_tally(&mut tally, &held.tally);
        }
        Cut {
            offsets: self.offsets(),
            as_of: self.watermark(),
            tally,
            sums: self.sums.clone(),
            donors: self.donors.estimate(),
            campaigns: self.counted_campaigns,
            digest: self.digest,
            changed,
        }
    }

    /// Estimates the donors of so many campaigns that got some, those that have waited
    /// longest first: all together would hold up one cut.
    pub fn estimate_donors(&mut self, campaigns: usize) {
        let campaigns = campaigns.min(self.donors_changed.len());
        for place in self.donors_changed.drain(..campaigns) {
            let campaign = &mut self.campaigns[place];
            campaign.donors_changed = false;
            let before = std::mem::replace(&mut campaign.total.donors, campaign.donors.estimate());
            if campaign.total.donors != before && !campaign.changed {
                campaign.changed = true;
                self.changed.push(place);
            }
        }
    }

    /// How many campaigns were named so far.
    pub fn campaign_count(&self) -> usize {
        self.campaigns.len()
    }

    /// Whether the next cut may hold any total.
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty() || !self.donors_changed.is_empty()
    }

    /// Makes the next cut hold every campaign, changed or not, and the next
    /// windows too.
    pub fn emit_all_again(&mut self) {
        for (place, campaign) in self.campaigns.iter_mut().enumerate() {
            campaign.windows = None;
            if !campaign.changed {
                campaign.changed = true;
                self.changed.push(place);
            }
        }
    }

    /// The place here of a campaign that has the place `there` in its shard. By that, since
    /// looking names up would cost more than all else that is done with a change.
    fn place(&mut self, of_shard: &mut Places, there: usize, name: &Arc<str>) -> usize {
        if let Some(place) = of_shard.here.get(there) {
            debug_assert_eq!(self.campaigns[place].total.campaign, *name);
            return place;
        }
        let place = self.place_of(name);
        of_shard.here.set(there, place);
        of_shard.there.set(place, there);
        place
    }

    fn place_of(&mut self, name: &Arc<str>) -> usize {
        if let Some(&place) = self.index.get(name) {
            return place;
        }
        let place = self.campaigns.len();
        self.index.insert(name.clone(), place);
        self.campaigns.push(Campaign {
            total: Total {
                campaign: name.clone(),
                counts: Counts::default(),
                sums: Sums::default(),
                donors: 0,
            },
            donors: DonorsUnion::campaign(),
            changed: false,
            donors_changed: false,
            digest: Digest::default(),
            windows: None,
        });
        place
    }
}
