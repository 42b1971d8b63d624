//! Distinct donors, estimated by HyperLogLog.
//!
//! A sketch is a maximum over its registers, so merging sketches is a union:
//! idempotent, commutative, associative. Small ones are lists of what they have
//! seen; only those of more than about a hundred and fifty donors have registers.

use std::fmt;

use datasketches::hll::{Coupon, HllSketch, HllType, HllUnion};

/// 2^11 registers a campaign: a standard error of 1.04 / √2048 = 2.3 %.
const CAMPAIGN_LG_K: u8 = 11;

/// 2^14 registers over all campaigns: 1.04 / √16384 = 0.8 %.
const OVERALL_LG_K: u8 = 14;

/// The donors of a campaign, or of all, in one shard.
#[derive(Clone, PartialEq)]
pub struct Donors(HllSketch);

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
        Donors(HllSketch::new(lg_k, HllType::Hll8).expect("the precision is within 4..=21"))
    }

    /// Takes a donor into this sketch and another, hashing once.
    #[inline]
    pub fn see_in_both(&mut self, donor: &str, other: &mut Donors) {
        let coupon = Coupon::from_value(donor);
        self.0.update_with_coupon(coupon);
        other.0.update_with_coupon(coupon);
    }
}

impl fmt::Debug for Donors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "about {:.0} donors", self.0.estimate())
    }
}

/// The union of the shards' sketches.
#[derive(Clone, Debug)]
pub struct DonorsUnion {
    union: HllUnion,
    /// Working it out takes microseconds, so it is kept.
    estimate: u64,
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
        let union = HllUnion::new(lg_k).expect("the precision is within 4..=21");
        DonorsUnion { union, estimate: 0 }
    }

    /// Takes a shard's donors in; `true` if the estimate changed.
    pub fn merge(&mut self, donors: &Donors) -> bool {
        self.union.update(&donors.0);
        let estimate = self.union.estimate().round() as u64;
        let changed = estimate != self.estimate;
        self.estimate = estimate;
        changed
    }

    /// How many distinct donors, about.
    pub fn estimate(&self) -> u64 {
        self.estimate
    }
}
