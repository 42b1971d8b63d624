//! Rolling windows: sums of the shards' panes up to the highest watermark.

use std::sync::Arc;

use super::Merge;
use crate::event::Millis;
use crate::money::ByCurrency;
use crate::native::prefetch;
use crate::shard::{Values, Window};

/// What a campaign got within a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowSums {
    /// Donations.
    pub gifts: u64,
    /// Flowers.
    pub flowers: i128,
    /// Donations less refunds, by currency; every currency that the campaign
    /// ever got is there, with 0 if need be.
    pub net: ByCurrency<i128>,
}

/// The windows of one campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignWindows {
    /// The campaign.
    pub campaign: Arc<str>,
    /// By [`Window::ALL`].
    pub windows: [WindowSums; 4],
    /// Counted events that were too old for every window.
    pub late: u64,
}

impl Merge {
    /// Looks at the windows of so many campaigns, of all in turn: those that differ from what
    /// this returned for them last, at the highest watermark of what is held now.
    pub fn take_changed_windows(&mut self, campaigns: usize) -> Vec<CampaignWindows> {
        let Some(watermark) = self.watermark() else {
            return Vec::new();
        };
        let mut changed = Vec::new();
        for _ in 0..campaigns.min(self.campaigns.len()) {
            let place = self.windows_next % self.campaigns.len();
            self.windows_next = place + 1;
            self.prefetch_windows(place);
            if self.campaigns[place].total.counts.counted == 0 {
                continue;
            }
            let windows = self.windows_of(place, watermark);
            let campaign = &mut self.campaigns[place];
            let emitted = CampaignWindows {
                campaign: campaign.total.campaign.clone(),
                windows,
                late: campaign.total.counts.late,
            };
            if campaign.windows.as_ref() != Some(&emitted) {
                campaign.windows = Some(emitted.clone());
                changed.push(emitted);
            }
        }
        changed
    }

    /// For each partition, what it holds of a campaign by the campaign's place here.
    fn held_values<'a>(&'a self) -> impl Iterator<Item = impl Fn(usize) -> Option<&'a Values>> {
        self.partitions.iter().map(|(partition, held)| {
            let there = self.places.get(partition).map(|places| &places.there);
            move |place| held.values.get(there?.get(place)?)
        })
    }

    /// Asks memory for the windows of the campaigns that follow the one at `place`: of each
    /// partition there are some, all of them elsewhere.
    fn prefetch_windows(&self, place: usize) {
        for values_of in self.held_values() {
            values_of(place + 2).inspect(|values| prefetch(*values));
            values_of(place + 1).inspect(|values| values.panes.prefetch());
        }
    }

    fn windows_of(&self, place: usize, watermark: Millis) -> [WindowSums; 4] {
        let mut windows: [WindowSums; 4] = Default::default();
        let starts = Window::ALL.map(|window| window.start_s(watermark));
        for values in self.held_values().filter_map(|values_of| values_of(place)) {
            for pane in values.panes.since(starts[Window::Day as usize]) {
                let reached = windows.iter_mut().zip(starts);
                for (sums, _) in reached.filter(|(_, start_s)| pane.start_s >= *start_s) {
                    match pane.currency {
                        Some(currency) => {
                            sums.gifts += u64::from(pane.gifts);
                            *sums.net.of(currency) += i128::from(pane.net);
                        }
                        None => sums.flowers += i128::from(pane.net),
                    }
                }
            }
        }
        for (currency, _) in self.campaigns[place].total.sums.money.iter() {
            for sums in &mut windows {
                sums.net.of(currency); // It is there from now on.
            }
        }
        windows
    }
}
