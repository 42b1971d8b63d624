//! What a reader of the topics sees, record by record, and what it must never
//! see. Pure: it is given the records in the order of each topic.
//!
//! A process that was stopped, replaced and woken up may finish the one step that
//! it was in ([ARCHITECTURE.md], "Why a process that should be dead does no
//! harm"). So this is what is allowed, and nothing else:
//!
//! - `cuts`: numbers rise. A record with a lower number than one before it is a
//!   *late* one; a publisher may have one late `open` or `complete` until it is
//!   the newest again. Whoever follows the complete cut of the highest number
//!   never sees an offset fall. A record may come twice: what is not acknowledged
//!   is sent again.
//! - `campaign-totals`: whoever keeps the highest version sees every version with
//!   one set of figures, of cuts that rise. An upsert with a lower version is a
//!   *late* one: it must be of the last cut of a publisher that was replaced, and
//!   its campaign must be emitted again, which [`Reader::unhealed`] waits for.
//!
//! [ARCHITECTURE.md]: ../../ARCHITECTURE.md

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use crate::totals::{CutName, Total, Upsert};

/// The state of a reader of both topics.
#[derive(Default)]
pub struct Reader {
    /// Every complete cut that was the newest when it came.
    pub complete: Vec<Complete>,
    /// By campaign: the highest version, and the cut that it came with first.
    pub highest: HashMap<String, (u64, Total)>,
    /// By campaign: what compaction would keep.
    pub last: HashMap<String, Total>,
    /// Campaigns whose last upsert is not the highest version.
    pub unhealed: BTreeSet<String>,
    pub figures: Figures,
    /// Records of `cuts` with the highest number so far: number, publisher, offsets.
    newest: Option<CutName>,
    /// By publisher: its late record since it was the newest.
    late: HashMap<String, (u64, String)>,
    /// Cuts that are open, by number and publisher: a zombie may use a number that
    /// its successor uses as well.
    open: BTreeMap<(u64, String), Vec<i64>>,
    /// Numbers of cuts that were the last of a publisher when another began.
    pub replaced_at: BTreeSet<u64>,
    /// Numbers of cuts of which a late upsert came.
    pub late_upserts_of: BTreeSet<u64>,
}

/// How much of everything was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub complete: u64,
    pub abandoned: u64,
    pub upserts: u64,
    pub late_cuts: u64,
    pub late_upserts: u64,
    pub publishers: u64,
}

/// A complete cut that was the newest.
pub struct Complete {
    pub at: Instant,
    pub offsets: Vec<i64>,
}

impl Complete {
    /// Whether it lies at these offsets or beyond, in every partition.
    pub fn reaches(&self, ends: &[i64]) -> bool {
        self.offsets.iter().zip(ends).all(|(at, end)| at >= end)
    }
}

/// What must not be, in words.
type Checked = Result<(), String>;

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(what()) }
}

impl Reader {
    /// The publisher of the newest record, and whether its cut is still open.
    pub fn publishing(&self) -> Option<(&str, bool)> {
        let newest = self.newest.as_ref()?;
        Some((&newest.publisher, newest.state == "open"))
    }

    /// Takes the next record of `cuts` in.
    pub fn take_cut(&mut self, name: &CutName) -> Checked {
        ensure(name.epoch == 1, || {
            format!("epoch 1 became another in {name:?}")
        })?;
        let key = (name.cut, name.publisher.clone());
        match name.state.as_str() {
            "open" => {
                let before = self.open.insert(key, name.offsets.clone());
                let is_same = before.as_ref().is_none_or(|before| *before == name.offsets);
                ensure(is_same, || format!("opened before at {before:?}: {name:?}"))?;
            }
            "complete" => {
                let open = self.open.get(&key);
                ensure(open == Some(&name.offsets), || {
                    format!("{name:?} was opened as {open:?}")
                })?;
                self.figures.complete += 1;
            }
            "abandoned" => {
                self.figures.abandoned += 1;
                return Ok(()); // No total, so it may come at any time.
            }
            state => return Err(format!("{state} is no state")),
        }
        let highest = self.newest.as_ref().map_or(0, |newest| newest.cut);
        if name.cut < highest {
            self.figures.late_cuts += 1;
            let step = (name.cut, name.state.clone());
            let publisher = name.publisher.clone();
            let first = self.late.entry(publisher).or_insert(step.clone());
            return ensure(*first == step, || {
                format!("after {first:?} another late step: {name:?}")
            });
        }
        let before = self.newest.replace(name.clone());
        if before
            .as_ref()
            .is_none_or(|before| before.publisher != name.publisher)
        {
            self.figures.publishers += 1;
            self.replaced_at.extend(before.map(|before| before.cut));
        }
        if name.cut > highest {
            self.late.remove(&name.publisher);
        }
        if name.state == "complete" {
            let complete = Complete {
                at: Instant::now(),
                offsets: name.offsets.clone(),
            };
            if let Some(before) = self.complete.last() {
                ensure(complete.reaches(&before.offsets), || {
                    format!("offsets fell from {:?} to {name:?}", before.offsets)
                })?;
            }
            self.complete.push(complete);
            // What is older can only be a zombie's, and there is one step of those.
            let kept = name.cut.saturating_sub(1_000);
            self.open.retain(|(cut, _), _| *cut >= kept);
        }
        Ok(())
    }

    /// Takes the next record of a partition of `campaign-totals` in.
    pub fn take_upsert(&mut self, upsert: &Upsert) -> Checked {
        ensure(upsert.epoch == 1, || format!("another epoch: {upsert:?}"))?;
        self.figures.upserts += 1;
        let (campaign, total) = (upsert.campaign.clone(), upsert.total());
        self.last.insert(campaign.clone(), total.clone());
        let Some((cut, highest)) = self.highest.get_mut(&campaign) else {
            self.highest.insert(campaign, (upsert.cut, total));
            return Ok(());
        };
        if total.version < highest.version {
            self.figures.late_upserts += 1;
            self.late_upserts_of.insert(upsert.cut);
            self.unhealed.insert(campaign);
            return ensure(upsert.cut < *cut, || {
                format!("a newer cut has fewer events than cut {cut}: {upsert:?}")
            });
        }
        self.unhealed.remove(&campaign);
        if total.version == highest.version {
            return ensure(total == *highest, || {
                format!("other figures of the same version, {highest:?}: {upsert:?}")
            });
        }
        ensure(upsert.cut > *cut, || {
            format!("more events than in cut {cut}, in no newer cut: {upsert:?}")
        })?;
        (*cut, *highest) = (upsert.cut, total);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::PARTITIONS;

    fn cut(state: &str, cut: u64, publisher: &str, offset: i64) -> CutName {
        CutName {
            state: state.to_owned(),
            cut,
            epoch: 1,
            publisher: publisher.to_owned(),
            offsets: vec![offset; PARTITIONS],
        }
    }

    fn upsert(version: u64, cut: u64, gifts: u64) -> Upsert {
        let json = serde_json::json!({
            "campaign": "c", "epoch": 1, "version": version, "cut": cut, "gifts": gifts,
            "flowers": 0, "donors": 0, "money": {},
            "first_at": "2022-09-09T02:00:00Z", "last_at": "2022-09-09T02:00:00Z",
        });
        serde_json::from_value(json).expect("an upsert")
    }

    fn take_cuts(cuts: &[CutName]) -> (Reader, Checked) {
        let mut reader = Reader::default();
        let taken = cuts.iter().try_for_each(|cut| reader.take_cut(cut));
        (reader, taken)
    }

    #[test]
    fn a_zombie_may_finish_one_step_of_a_cut_and_no_more() {
        let takeover = [
            cut("open", 1, "a", 10),
            cut("open", 2, "b", 20),
            cut("complete", 2, "b", 20),
            cut("complete", 1, "a", 10),
            cut("complete", 1, "a", 10), // Sent again, not being acknowledged.
            cut("abandoned", 1, "a", 10),
        ];
        let (reader, taken) = take_cuts(&takeover);
        taken.expect("all of it is allowed");
        assert_eq!((reader.complete.len(), reader.figures.late_cuts), (1, 2));
        let more = [takeover.as_slice(), &[cut("open", 1, "a", 10)]].concat();
        take_cuts(&more).1.expect_err("a second step");
    }

    #[test]
    fn complete_cuts_are_opened_and_do_not_fall() {
        let (open, complete) = (cut("open", 1, "a", 10), cut("complete", 1, "a", 10));
        take_cuts(std::slice::from_ref(&complete))
            .1
            .expect_err("never opened");
        take_cuts(&[open.clone(), cut("complete", 1, "a", 11)])
            .1
            .expect_err("elsewhere");
        let fallen = [
            open,
            complete,
            cut("open", 2, "b", 9),
            cut("complete", 2, "b", 9),
        ];
        take_cuts(&fallen).1.expect_err("offsets fell");
    }

    #[test]
    fn what_a_zombie_wrote_late_must_be_healed_and_versions_mean_one_thing() {
        let mut reader = Reader::default();
        for (version, cut) in [(5, 1), (7, 3), (6, 2)] {
            reader
                .take_upsert(&upsert(version, cut, version))
                .expect("allowed");
        }
        assert_eq!((reader.unhealed.len(), reader.figures.late_upserts), (1, 1));
        reader
            .take_upsert(&upsert(6, 4, 6))
            .expect_err("fewer in a newer cut");
        reader
            .take_upsert(&upsert(8, 3, 8))
            .expect_err("more in no newer cut");
        reader
            .take_upsert(&upsert(7, 5, 6))
            .expect_err("other figures");
        reader.take_upsert(&upsert(7, 5, 7)).expect("emitted again");
        assert!(reader.unhealed.is_empty());
    }
}
