//! Rolling windows: sums of the shards' panes up to the highest watermark.

use std::sync::Arc;

use super::{AHEAD, Merge};
use crate::event::Millis;
use crate::money::ByCurrency;
use crate::shard::Window;

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
    /// The windows that differ from what this returned for them last, at the
    /// highest watermark of what is held now.
    pub fn take_changed_windows(&mut self) -> Vec<CampaignWindows> {
        let Some(watermark) = self.watermark() else {
            return Vec::new();
        };
        let mut changed = Vec::new();
        let windows = self.windows_at(watermark);
        for (campaign, mut windows) in self.campaigns.iter_mut().zip(windows) {
            if campaign.total.counts.counted == 0 {
                continue;
            }
            for (currency, _) in campaign.total.sums.money.iter() {
                for sums in &mut windows {
                    sums.net.of(currency); // It is there from now on.
                }
            }
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

    /// By campaign. Shard by shard, as their values lie in memory.
    fn windows_at(&self, watermark: Millis) -> Vec<[WindowSums; 4]> {
        let mut windows = vec![<[WindowSums; 4]>::default(); self.campaigns.len()];
        let starts = Window::ALL.map(|window| window.start_s(watermark));
        for (partition, held) in &self.partitions {
            let places = self.places.get(partition).into_iter().flatten();
            let ahead = held.values.iter().skip(AHEAD).map(Some);
            let ahead = ahead.chain(std::iter::repeat(None));
            for ((values, place), ahead) in held.values.iter().zip(places).zip(ahead) {
                if let Some(values) = ahead {
                    values.panes.prefetch();
                }
                let Some(place) = *place else { continue };
                let windows = &mut windows[place];
                for pane in values.panes.since(starts[Window::Day as usize]) {
                    let reached = windows.iter_mut().zip(starts);
                    for (sums, _) in reached.filter(|(_, start_s)| pane.start_s >= *start_s) {
                        match pane.currency {
                            Some(currency) => {
                                sums.gifts += pane.gifts;
                                *sums.net.of(currency) += i128::from(pane.net);
                            }
                            None => sums.flowers += i128::from(pane.net),
                        }
                    }
                }
            }
        }
        windows
    }
}
