//! Where two snapshots differ that should be equal, in words for people.

use super::{Damaged, Head, OwnedEntry, Snapshot, from_bytes};

impl Snapshot {
    /// Where a whole snapshot that was kept differs from one that was folded anew;
    /// `None` if they are equal to the byte.
    pub fn difference(&self, folded: &Snapshot) -> Option<String> {
        if self.offset != folded.offset {
            let (kept, folded) = (self.offset, folded.offset);
            return Some(format!("it is at offset {kept}, and the fold at {folded}"));
        }
        if self.ids != folded.ids {
            let (kept, folded) = (self.ids.places(), folded.ids.places());
            return Some(match kept == folded {
                true => "ids differ, or when they came".to_owned(),
                false => format!("it holds the ids {kept:?}, and the fold {folded:?}"),
            });
        }
        if self.counters != folded.counters {
            let where_ = first_difference(&self.counters, &folded.counters);
            return Some(where_.unwrap_or_else(|damaged| damaged.to_string()));
        }
        None
    }
}

fn first_difference(mut kept: &[u8], mut folded: &[u8]) -> Result<String, Damaged> {
    let heads: [Head; 2] = [from_bytes(&mut kept)?, from_bytes(&mut folded)?];
    let [of_kept, of_folded] = &heads;
    if of_kept.tally != of_folded.tally {
        let (kept, folded) = (&of_kept.tally, &of_folded.tally);
        return Ok(format!("it has {kept:?}, and the fold {folded:?}"));
    }
    if of_kept.watermark != of_folded.watermark {
        let (kept, folded) = (of_kept.watermark, of_folded.watermark);
        return Ok(format!(
            "its watermark is {kept:?}, and that of the fold {folded:?}"
        ));
    }
    for _ in 0..of_kept.campaigns.min(of_folded.campaigns) {
        let entries: [OwnedEntry<'_>; 2] = [from_bytes(&mut kept)?, from_bytes(&mut folded)?];
        let [of_kept, of_folded] = &entries;
        let name = of_folded.name;
        if of_kept.name != name {
            let kept = of_kept.name;
            return Ok(format!(
                "campaign {kept:?} stands where the fold has {name:?}"
            ));
        }
        let (values, folded) = (&of_kept.values, &of_folded.values);
        let what = match () {
            () if values.counts != folded.counts => "numbers of events",
            () if values.ledger != folded.ledger => "business days",
            () if values.panes != folded.panes => "panes of windows",
            () if of_kept.donors != of_folded.donors => "donors",
            () => continue,
        };
        return Ok(format!("the {what} of campaign {name:?} differ"));
    }
    if of_kept.campaigns != of_folded.campaigns {
        let (kept, folded) = (of_kept.campaigns, of_folded.campaigns);
        return Ok(format!("it has {kept} campaigns, and the fold {folded}"));
    }
    match of_kept.donors == of_folded.donors {
        false => Ok("the donors of all campaigns together differ".to_owned()),
        true => Ok("its counters differ".to_owned()),
    }
}
