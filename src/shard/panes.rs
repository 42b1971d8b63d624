//! Panes: small slices of event time, of which rolling windows are sums.
//!
//! A pane is 5 s long while it is young, becomes part of a pane of 1 min once
//! no window that moves in steps of 5 s reaches it, and then of one of 30 min;
//! past 24 h it is dropped. So each event lies in exactly one pane, and a
//! campaign has about two hundred at most.
//!
//! Where an instant lies is a function of the instant and the watermark
//! ([`pane_start`]), the borders between the lengths fall on borders of the
//! longer panes, and watermarks only rise. Hence putting panes together early,
//! late, or in several steps comes to the same, and a window's sum is exactly
//! that of the events whose `at` lies in it, in whatever order they came: an
//! event that was too late for a pane is too old for every later window, too.

use serde::{Deserialize, Serialize};

use crate::event::{Gift, Millis, seconds};
use crate::money::Currency;
use crate::native::prefetch;

/// A rolling window of event time.
///
/// A window moves in steps. At watermark `w` with step `s` and length `l` it
/// holds `[e - l, e)` with `e = (⌊w / s⌋ + 1) · s`: the step that `w` lies in
/// belongs to it, as far as it has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Window {
    /// 1 min, in steps of 5 s.
    Minute,
    /// 5 min, in steps of 5 s.
    FiveMinutes,
    /// 1 h, in steps of 1 min.
    Hour,
    /// 24 h, in steps of 30 min.
    Day,
}

impl Window {
    /// All of them, the shortest first.
    pub const ALL: [Window; 4] = [
        Window::Minute,
        Window::FiveMinutes,
        Window::Hour,
        Window::Day,
    ];

    /// Its name in `campaign-windows`.
    pub fn name(self) -> &'static str {
        match self {
            Window::Minute => "1m",
            Window::FiveMinutes => "5m",
            Window::Hour => "1h",
            Window::Day => "24h",
        }
    }

    /// How long it is, in seconds.
    pub fn length_s(self) -> u32 {
        match self {
            Window::Minute => 60,
            Window::FiveMinutes => 5 * 60,
            Window::Hour => 3_600,
            Window::Day => 24 * 3_600,
        }
    }

    /// The step that it moves in, in seconds.
    pub fn step_s(self) -> u32 {
        match self {
            Window::Minute | Window::FiveMinutes => SHORT,
            Window::Hour => MIDDLE,
            Window::Day => LONG,
        }
    }

    /// The first second in it, at a watermark.
    pub fn start_s(self, watermark: Millis) -> u32 {
        floor(seconds(watermark), self.step_s()) + self.step_s() - self.length_s()
    }
}

const SHORT: u32 = 5;
const MIDDLE: u32 = 60;
const LONG: u32 = 30 * 60;

/// Where the pane of an instant starts, in seconds; `None` if it is late: older
/// than the longest window reaches.
fn pane_start(at_s: u32, watermark: Millis) -> Option<u32> {
    let border =
        |window: Window, longer: u32| floor(seconds(watermark) - window.length_s(), longer);
    if at_s >= border(Window::FiveMinutes, MIDDLE) {
        Some(floor(at_s, SHORT))
    } else if at_s >= border(Window::Hour, LONG) {
        Some(floor(at_s, MIDDLE))
    } else {
        (!is_too_old(at_s, watermark)).then(|| floor(at_s, LONG))
    }
}

/// Whether an event is older than any window reaches. A match is in no window, but is late
/// by the same rule.
pub(super) fn is_late(at: Millis, watermark: Millis) -> bool {
    is_too_old(seconds(at), watermark)
}

fn is_too_old(at_s: u32, watermark: Millis) -> bool {
    at_s < Window::Day.start_s(watermark)
}

/// Whether a pane that starts then is of the shortest at a watermark.
fn is_short(start_s: u32, watermark: Millis) -> bool {
    start_s >= floor(seconds(watermark) - Window::FiveMinutes.length_s(), MIDDLE)
}

fn floor(seconds: u32, step: u32) -> u32 {
    seconds - seconds % step
}

/// What one campaign got in a slice of event time, in one currency.
///
/// There may be hundreds of each campaign in each partition, twice: so it is without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C, packed(4))]
pub struct Pane {
    /// Where it starts, in seconds since the epoch.
    pub start_s: u32,
    /// The currency; `None` is a pane of flowers.
    pub currency: Option<Currency>,
    #[serde(skip)]
    changed: bool,
    /// How many donations; 2^32 - 1 at most, which would be 2.4 million a second for one
    /// campaign in one partition.
    pub gifts: u32,
    /// Donations less refunds; in a pane of flowers their number.
    pub net: i64,
}

const _: () = assert!(size_of::<Pane>() == 20);

impl Pane {
    /// By what panes are in order.
    fn place(&self) -> (u32, Option<Currency>) {
        (self.start_s, self.currency)
    }

    fn take_in(&mut self, other: &Pane) {
        self.changed |= other.changed;
        self.gifts = self.gifts.saturating_add(other.gifts);
        self.net += other.net;
    }
}

/// The panes of one campaign in one shard, by start and currency.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Panes {
    panes: Vec<Pane>,
    /// The minute of the watermark at the last [`tidy`](Panes::tidy), in seconds.
    #[serde(skip)]
    tidied_s: u32,
    /// Where the oldest pane starts that is marked as changed.
    #[serde(skip, default = "never")]
    changed_s: u32,
}

/// Later than any pane starts.
fn never() -> u32 {
    u32::MAX
}

impl Default for Panes {
    fn default() -> Panes {
        Panes {
            panes: Vec::new(),
            tidied_s: 0,
            changed_s: never(),
        }
    }
}

impl PartialEq for Panes {
    fn eq(&self, other: &Panes) -> bool {
        self.panes == other.panes
    }
}

impl Eq for Panes {}

impl Panes {
    /// Adds a gift that was not late when it came. If it has become too old since, no
    /// window will have it.
    pub fn add(&mut self, at: Millis, gift: Gift, watermark: Millis) {
        debug_assert!(at <= watermark);
        let Some(start_s) = pane_start(seconds(at), watermark) else {
            return;
        };
        let (currency, gifts, net) = match gift {
            Gift::Donation(amount, currency) => (Some(currency), 1, amount.0),
            Gift::Refund(amount, currency) => (Some(currency), 0, -amount.0),
            Gift::Flowers(number) => (None, 0, number),
            Gift::Match(..) => return,
        };
        self.changed_s = self.changed_s.min(start_s);
        let pane = Pane {
            start_s,
            currency,
            changed: true,
            gifts,
            net,
        };
        match self.find_or_make_room(&pane, Some(watermark)) {
            Ok(place) => self.panes[place].take_in(&pane),
            Err(place) => self.panes.insert(place, pane),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.panes.len()
    }

    /// Asks memory for the newest pane, and the place behind it.
    #[inline]
    pub fn prefetch(&self) {
        if let Some(newest) = self.panes.last() {
            prefetch(newest);
        }
    }

    /// Puts panes together that have become old, and drops what no window
    /// reaches. It may be done at any time; no window's sum changes by it.
    pub fn tidy(&mut self, watermark: Millis) {
        let panes = self.panes.iter();
        let late = panes.take_while(|pane| is_too_old(pane.start_s, watermark));
        let late = late.count();
        self.panes.drain(..late);
        self.put_together(watermark);
    }

    /// Puts panes together that have become old. Only the newest are looked at, which caches
    /// may still hold; so some may be left that no window reaches.
    fn put_together(&mut self, watermark: Millis) {
        let minute_s = floor(seconds(watermark), MIDDLE);
        if minute_s == self.tidied_s {
            return; // The borders between the lengths move with the minute only.
        }
        let tidied_s = std::mem::replace(&mut self.tidied_s, minute_s);
        // Those that were of the longest at the last time are so still.
        let long_before_s = floor(tidied_s.saturating_sub(Window::Hour.length_s()), LONG);
        let newest = self.panes.iter().rev();
        let others = newest.take_while(|pane| pane.start_s >= long_before_s);
        let first = self.panes.len() - others.count();
        // In place: what is put together stands before what is still to be looked at.
        let mut kept = first;
        for at in first..self.panes.len() {
            let pane = self.panes[at];
            let Some(start_s) = pane_start(pane.start_s, watermark) else {
                continue;
            };
            let place = (start_s, pane.currency);
            let behind = self.panes[..kept].iter().rev();
            let behind = behind.take_while(|pane| pane.place() > place).count();
            let to = kept - behind;
            match self.panes[..to].last_mut() {
                Some(sum) if sum.place() == place => sum.take_in(&pane),
                _ => {
                    self.panes.copy_within(to..kept, to + 1);
                    self.panes[to] = Pane { start_s, ..pane };
                    kept += 1;
                }
            }
        }
        self.panes.truncate(kept);
        if self.changed_s != never() {
            self.changed_s = pane_start(self.changed_s, watermark).unwrap_or(0);
        }
    }

    /// Where a pane is, or belongs. Old ones are put together before there are more than
    /// there is room for; a fifth is free after that, so that it need not be done for
    /// every new pane.
    fn find_or_make_room(
        &mut self,
        pane: &Pane,
        watermark: Option<Millis>,
    ) -> Result<usize, usize> {
        let found = self.find(pane.place());
        match watermark {
            Some(watermark) if found.is_err() && self.panes.len() == self.panes.capacity() => {
                self.tidy(watermark);
                self.panes.reserve_exact(self.panes.len() / 4 + 2);
                self.find(pane.place())
            }
            _ => found,
        }
    }

    /// The donations, and the net of each currency, since `start_s`; the
    /// flowers have no currency.
    pub fn since(&self, start_s: u32) -> impl Iterator<Item = &Pane> {
        self.panes
            .iter()
            .rev()
            .take_while(move |pane| pane.start_s >= start_s)
    }

    /// Puts in panes that changed elsewhere, by their values. `watermark` is that of the
    /// place where they were taken.
    pub fn set(&mut self, panes: &[Pane], watermark: Option<Millis>) {
        let Some(first) = panes.first() else { return };
        if let Some(watermark) = watermark
            && !is_short(first.start_s, watermark)
        {
            self.put_together(watermark);
        }
        for pane in panes {
            match self.find_or_make_room(pane, watermark) {
                Ok(place) => self.panes[place] = *pane,
                Err(place) => self.panes.insert(place, *pane),
            }
        }
    }

    /// Whether every pane stands in its place, as it does unless somebody else made it.
    pub(super) fn is_in_order(&self) -> bool {
        self.panes.is_sorted_by(|a, b| a.place() < b.place())
    }

    /// Appends the panes that changed since the last time, in their order.
    ///
    /// They are as they would be if all were tidied at the watermark. That need not be done
    /// while only the shortest have changed: no others are ever put together with those.
    pub(super) fn take_changed(&mut self, watermark: Option<Millis>, taken: &mut Vec<Pane>) {
        if let Some(watermark) = watermark
            && !is_short(self.changed_s, watermark)
        {
            match is_too_old(self.changed_s, watermark) {
                true => self.tidy(watermark),
                false => self.put_together(watermark),
            }
        }
        let changed_s = std::mem::replace(&mut self.changed_s, never());
        let first = self.panes.iter().rposition(|pane| pane.start_s < changed_s);
        for pane in &mut self.panes[first.map_or(0, |place| place + 1)..] {
            if std::mem::take(&mut pane.changed) {
                taken.push(Pane {
                    changed: false,
                    ..*pane
                });
            }
        }
    }

    /// Appends all panes.
    pub(super) fn take_all(&mut self, watermark: Option<Millis>, taken: &mut Vec<Pane>) {
        if let Some(watermark) = watermark {
            self.tidy(watermark);
        }
        self.changed_s = never();
        for pane in &mut self.panes {
            pane.changed = false;
        }
        taken.extend_from_slice(&self.panes);
    }

    /// From the end: most events belong to the newest pane.
    fn find(&self, wanted: (u32, Option<Currency>)) -> Result<usize, usize> {
        match self.panes.last() {
            Some(last) if last.place() == wanted => Ok(self.panes.len() - 1),
            Some(last) if last.place() < wanted => Err(self.panes.len()),
            _ => self.panes.binary_search_by_key(&wanted, Pane::place),
        }
    }
}
