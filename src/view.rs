//! The totals that were published last, for readers within the process.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use dashmap::DashMap;
use tokio::sync::watch;

use crate::merge::{Cut, Total};

/// A complete cut: its number, its sums, and when it was complete.
#[derive(Clone, Debug)]
pub struct PublishedCut {
    /// Its number.
    pub number: u64,
    /// Its offsets and sums, and the totals that changed in it.
    pub cut: Arc<Cut>,
    /// When the brokers had acknowledged all of it.
    pub at: Instant,
}

/// The totals of all campaigns at the newest complete cut. Readers never wait
/// for the fold, nor the fold for them.
///
/// A total appears here when its cut is complete, not before: what is shown here
/// has been published, so it does not step back after a crash either.
#[derive(Debug)]
pub struct TotalsView {
    totals: DashMap<Arc<str>, Total>,
    newest: watch::Sender<Option<PublishedCut>>,
    reading_began: OnceLock<Instant>,
}

impl Default for TotalsView {
    fn default() -> Self {
        TotalsView {
            totals: DashMap::new(),
            newest: watch::Sender::new(None),
            reading_began: OnceLock::new(),
        }
    }
}

impl TotalsView {
    /// Takes in a cut that is complete.
    pub fn publish(&self, number: u64, cut: &Arc<Cut>) {
        for total in &cut.changed {
            self.totals.insert(total.campaign.clone(), total.clone());
        }
        self.newest.send_replace(Some(PublishedCut {
            number,
            cut: cut.clone(),
            at: Instant::now(),
        }));
    }

    /// The first partition is ours, and its reader is about to be pointed at it.
    pub fn begin_reading(&self) {
        self.reading_began.get_or_init(Instant::now);
    }

    /// When the first partition was ours: what came before was the start.
    pub fn reading_began(&self) -> Option<Instant> {
        self.reading_began.get().copied()
    }

    /// The newest complete cut, and a way to wait for the next.
    pub fn newest(&self) -> watch::Receiver<Option<PublishedCut>> {
        self.newest.subscribe()
    }

    /// Every campaign's total.
    pub fn totals(&self) -> Vec<Total> {
        // Copied out: nobody holds the map's locks while drawing or sending.
        self.totals
            .iter()
            .map(|entry| entry.value().clone())
            .collect()
    }
}
