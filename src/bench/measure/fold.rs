//! The real run, in this process, with all that it does in production.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use super::{Teller, ns_of};
use crate::bench::message::{CutAt, Measured, Message};
use crate::config::Config;
use crate::run::{self, RunOptions};
use crate::shutdown::Shutdown;
use crate::view::{PublishedCut, TotalsView};

/// Folds the topic up to its end, or until the end is wished.
pub(super) fn fold(
    config: &Config,
    until_end: bool,
    stop: &Shutdown,
    teller: &Teller,
) -> Result<Measured, String> {
    let view = Arc::new(TotalsView::default());
    let tokio = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    tokio.spawn(tell_cuts(view.clone(), teller.clone()));
    let options = RunOptions {
        until_end,
        standby: false,
    };
    let ran = tokio.block_on(run::run(config, options, stop, view.clone()));
    tokio.shutdown_timeout(Duration::from_secs(1));
    ran.map_err(|error| with_sources(&error))?;
    let newest = view.newest().borrow().clone();
    let (Some(newest), Some(began)) = (newest, view.reading_began()) else {
        return Err("counting ended before the first cut".into());
    };
    let events = newest.cut.tally.seen;
    Ok(teller.measured(ns_of(began), ns_of(newest.at), events, None))
}

/// Tells of every complete cut.
async fn tell_cuts(view: Arc<TotalsView>, teller: Teller) {
    let mut newest = view.newest();
    while newest.changed().await.is_ok() {
        let Some(PublishedCut { cut, at, .. }) = newest.borrow_and_update().clone() else {
            continue;
        };
        teller.tell(&Message::Cut(CutAt {
            at_ns: ns_of(at),
            events: cut.tally.seen,
            offsets: cut.offsets.clone(),
        }));
    }
}

fn with_sources(error: &dyn Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(cause) = source {
        let why = cause.to_string();
        if !text.contains(&why) {
            text.push_str(&format!(": {why}"));
        }
        source = cause.source();
    }
    text
}
