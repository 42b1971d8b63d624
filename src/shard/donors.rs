//! Distinct donors, estimated by HyperLogLog.
//!
//! A sketch is a maximum over its registers, so merging sketches is a union:
//! idempotent, commutative, associative. Small ones are lists of what they have
//! seen; only those of more than about a hundred and fifty donors have registers.

use std::borrow::Cow;
use std::fmt;

use datasketches::hll::{Coupon, HllSketch, HllType, HllUnion};

use crate::native::prefetch;

/// 2^11 registers a campaign: a standard error of 1.04 / √2048 = 2.3 %.
const CAMPAIGN_LG_K: u8 = 11;

/// 2^14 registers over all campaigns: 1.04 / √16384 = 0.8 %.
const OVERALL_LG_K: u8 = 14;

// Places in the serialized form, see datasketches.apache.org, "HLL sketch".
const FLAGS: usize = 5;
const OUT_OF_ORDER: u8 = 16;
const MODE: usize = 7;
const LIST: u8 = 0;
const SET: u8 = 1;
const LIST_COUPONS: usize = 8;
const SET_COUPONS: usize = 12;
const HIP: std::ops::Range<usize> = 8..16;

fn sort_coupons(bytes: &mut [u8]) {
    let (coupons, _) = bytes.as_chunks_mut::<4>();
    coupons.sort_unstable_by_key(|coupon| u32::from_le_bytes(*coupon));
}

/// A donor as sketches see one: a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Donor(Coupon);

impl Donor {
    /// The donor of this name.
    #[inline]
    pub fn of(name: &str) -> Donor {
        Donor(Coupon::from_value(name))
    }
}

/// The donors of a campaign, or of all, in one shard.
#[derive(Clone)]
pub struct Donors {
    lg_k: u8,
    seen: Seen,
}

#[derive(Clone)]
enum Seen {
    /// Each once, in the order in which they came. Most campaigns never have more, and
    /// where these are is known before they are looked at.
    Few(Vec<Coupon>),
    Many(Box<HllSketch>),
}

/// How many a list has at most: as many as are looked through in the time of one answer of
/// memory.
const FEW: usize = 64;

impl Donors {
    /// Nobody, with a campaign's precision.
    pub fn campaign() -> Donors {
        Donors::new(CAMPAIGN_LG_K)
    }

    /// Nobody, with the precision of the sum over all campaigns.
    pub fn overall() -> Donors {
        Donors::new(OVERALL_LG_K)
    }

    fn new(lg_k: u8) -> Donors {
        let seen = Seen::Few(Vec::new());
        Donors { lg_k, seen }
    }

    /// The sketch in the format of Apache DataSketches.
    ///
    /// Two sketches of the same donors, seen in the same order, have the same bytes,
    /// however often they were restored on the way: what depends on the order in
    /// which a table was filled is put in an order of its own, and the estimate
    /// that goes by the order of donors (HIP) is left out. What is restored is
    /// estimated by its registers alone, as unions are anyway.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.sketch().serialize();
        match bytes[MODE] & 3 {
            LIST => sort_coupons(&mut bytes[LIST_COUPONS..]),
            SET => sort_coupons(&mut bytes[SET_COUPONS..]),
            _ => {
                bytes[FLAGS] |= OUT_OF_ORDER;
                bytes[HIP].fill(0);
            }
        }
        bytes
    }

    /// What [`to_bytes`](Donors::to_bytes) made; `None` if the bytes are none such.
    fn from_bytes(bytes: &[u8], lg_k: u8) -> Option<Donors> {
        let sketch = HllSketch::deserialize(bytes).ok()?;
        let fits = sketch.lg_config_k() == lg_k && sketch.target_type() == HllType::Hll8;
        let seen = Seen::Many(Box::new(sketch));
        fits.then_some(Donors { lg_k, seen })
    }

    /// A campaign's sketch from its bytes; `None` if they are none such.
    pub fn campaign_from(bytes: &[u8]) -> Option<Donors> {
        Donors::from_bytes(bytes, CAMPAIGN_LG_K)
    }

    /// The sketch over all campaigns from its bytes; `None` if they are none such.
    pub fn overall_from(bytes: &[u8]) -> Option<Donors> {
        Donors::from_bytes(bytes, OVERALL_LG_K)
    }

    /// The donors of a campaign that are among these.
    pub(super) fn among(donors: impl IntoIterator<Item = Donor>) -> Donors {
        let mut some = Donors::campaign();
        donors.into_iter().for_each(|donor| some.see(donor));
        some
    }

    /// Takes a donor in.
    #[inline]
    pub fn see(&mut self, donor: Donor) {
        match &mut self.seen {
            Seen::Few(few) if few.contains(&donor.0) => {}
            Seen::Few(few) if few.len() < FEW => few.push(donor.0),
            Seen::Few(_) => self.see_many(donor),
            Seen::Many(sketch) => sketch.update_with_coupon(donor.0),
        }
    }

    #[cold]
    fn see_many(&mut self, donor: Donor) {
        let mut sketch = self.sketch().into_owned();
        sketch.update_with_coupon(donor.0);
        self.seen = Seen::Many(Box::new(sketch));
    }

    /// The same as if all had come to it one after the other.
    fn sketch(&self) -> Cow<'_, HllSketch> {
        match &self.seen {
            Seen::Many(sketch) => Cow::Borrowed(sketch),
            Seen::Few(few) => {
                let sketch = HllSketch::new(self.lg_k, HllType::Hll8);
                let mut sketch = sketch.expect("the precision is within 4..=21");
                few.iter().for_each(|&it| sketch.update_with_coupon(it));
                Cow::Owned(sketch)
            }
        }
    }

    /// Asks memory for what is looked at when a donor comes, as far as it is known.
    #[inline]
    pub(super) fn prefetch(&self) {
        match &self.seen {
            Seen::Few(few) => prefetch(&few[..]),
            Seen::Many(sketch) => prefetch(&**sketch),
        }
    }
}

impl fmt::Debug for Donors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "about {:.0} donors", self.sketch().estimate())
    }
}

/// The union of the shards' sketches.
///
/// Few are counted; more are estimated, by the registers alone. DataSketches would estimate
/// a union of one sketch by the order of its donors (HIP), which no checkpoint keeps, so that
/// a restart could have the estimate step back.
#[derive(Clone, Debug)]
pub struct DonorsUnion {
    lg_k: u8,
    all: Union,
}

#[derive(Clone, Debug)]
enum Union {
    /// Each once.
    Few(Vec<Coupon>),
    Many(Box<HllUnion>),
}

impl DonorsUnion {
    /// Nobody, with a campaign's precision.
    pub fn campaign() -> DonorsUnion {
        DonorsUnion::new(CAMPAIGN_LG_K)
    }

    /// Nobody, with the precision of the sum over all campaigns.
    pub fn overall() -> DonorsUnion {
        DonorsUnion::new(OVERALL_LG_K)
    }

    fn new(lg_k: u8) -> DonorsUnion {
        let all = Union::Few(Vec::new());
        DonorsUnion { lg_k, all }
    }

    /// Takes a shard's donors in.
    pub fn merge(&mut self, donors: &Donors) {
        if let (Union::Few(all), Seen::Few(few)) = (&mut self.all, &donors.seen)
            && all.len() + few.len() <= FEW
        {
            for donor in few {
                if !all.contains(donor) {
                    all.push(*donor);
                }
            }
            return;
        }
        self.sketch().update(&donors.sketch());
    }

    /// Itself as a sketch, from now on.
    fn sketch(&mut self) -> &mut HllUnion {
        if let Union::Few(all) = &mut self.all {
            let few = Donors {
                lg_k: self.lg_k,
                seen: Seen::Few(std::mem::take(all)),
            };
            let union = HllUnion::new(self.lg_k).expect("the precision is within 4..=21");
            let mut union = Box::new(union);
            union.update(&few.sketch());
            self.all = Union::Many(union);
        }
        match &mut self.all {
            Union::Many(union) => union,
            Union::Few(_) => unreachable!("it has just been made a sketch"),
        }
    }

    /// How many distinct donors, about. Working it out takes microseconds if they are many.
    pub fn estimate(&self) -> u64 {
        match &self.all {
            Union::Few(all) => all.len() as u64,
            Union::Many(union) => union.composite_estimate().round() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However they come, the union is what one sketch of all of them is estimated at.
    #[test]
    fn a_union_is_the_same_as_a_list_and_as_a_sketch() {
        let name = |donor: usize| Donor::of(&format!("donor-{donor}"));
        for (donors, of_each) in [(3, 1), (64, 1), (64, 3), (65, 1), (65, 64), (500, 20)] {
            let (mut union, mut sketches) = (DonorsUnion::campaign(), DonorsUnion::campaign());
            sketches.sketch();
            for first in (0..donors).step_by(of_each).chain([0usize, donors / 2]) {
                // Some of them have come before.
                let some = Donors::among((first.saturating_sub(1)..first + of_each).map(name));
                union.merge(&some);
                sketches.merge(&some);
                assert_eq!(
                    union.estimate(),
                    sketches.estimate(),
                    "{donors} by {of_each}"
                );
            }
            if donors <= FEW {
                let distinct = donors.next_multiple_of(of_each) as u64;
                assert_eq!(union.estimate(), distinct);
            }
        }
    }

    #[test]
    fn what_is_restored_is_estimated_as_before() {
        let (mut donors, mut overall) = (Donors::campaign(), Donors::overall());
        for donor in 0..20_000 {
            let name = Donor::of(&format!("donor-{donor}"));
            donors.see(name);
            overall.see(name);
            if donor % 500 != 0 {
                continue;
            }
            let of_campaign = Donors::campaign_from(&donors.to_bytes());
            let of_all = Donors::overall_from(&overall.to_bytes());
            for (union, before, after) in [
                (DonorsUnion::campaign(), &donors, of_campaign),
                (DonorsUnion::overall(), &overall, of_all),
            ] {
                let [before, after] = [before, &after.expect("its own bytes")].map(|donors| {
                    let mut union = union.clone();
                    union.merge(donors);
                    union.estimate()
                });
                assert_eq!(before, after, "{donor}");
            }
        }
    }
}
