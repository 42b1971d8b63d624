//! Records that cannot be counted: a whole event, damaged in one way each.
//!
//! Every kind is a dead letter by the rules of design.md's "Event" however
//! lenient a decoder is about anything that those rules leave open. None has a
//! newline in it, so each stays one line of a file.

use super::draft::Draft;

/// The kinds of damage, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    Truncated,
    AmountAsText,
    AmountWithFraction,
    NegativeAmount,
    ZeroAmount,
    HugeAmount,
    MissingId,
    MissingCampaign,
    MissingAmount,
    MissingCurrency,
    MissingAt,
    UnknownCurrency,
    LowerCaseCurrency,
    UnknownKind,
    NoSuchDate,
    LongAgo,
    Empty,
    InvalidUtf8,
}

impl Damage {
    pub(super) const ALL: [Damage; 18] = [
        Damage::Truncated,
        Damage::AmountAsText,
        Damage::AmountWithFraction,
        Damage::NegativeAmount,
        Damage::ZeroAmount,
        Damage::HugeAmount,
        Damage::MissingId,
        Damage::MissingCampaign,
        Damage::MissingAmount,
        Damage::MissingCurrency,
        Damage::MissingAt,
        Damage::UnknownCurrency,
        Damage::LowerCaseCurrency,
        Damage::UnknownKind,
        Damage::NoSuchDate,
        Damage::LongAgo,
        Damage::Empty,
        Damage::InvalidUtf8,
    ];

    /// Replaces what is in `out` with the damaged donation. `bits` decides where
    /// a truncated one ends.
    pub(super) fn write(self, draft: &Draft, campaign: &str, bits: u64, out: &mut Vec<u8>) {
        draft.write(campaign, out);
        let amount = format!("\"amount\":{}", draft.amount);
        let new_amount = |value: String| format!("\"amount\":{value}");
        let currency = "\"currency\":\"CNY\"";
        let kind = "\"kind\":\"donation\"";
        let at = format!("\"at\":{}", draft.at);
        match self {
            Damage::Truncated => out.truncate(1 + bits as usize % (out.len() - 1)),
            Damage::AmountAsText => {
                replace(out, &amount, &new_amount(format!("\"{}\"", draft.amount)));
            }
            Damage::AmountWithFraction => {
                replace(out, &amount, &new_amount(format!("{}.5", draft.amount)));
            }
            Damage::NegativeAmount => {
                replace(out, &amount, &new_amount(format!("-{}", draft.amount)));
            }
            Damage::ZeroAmount => replace(out, &amount, &new_amount("0".into())),
            Damage::HugeAmount => replace(out, &amount, &new_amount("9223372036854775808".into())),
            Damage::MissingId => {
                let id = String::from_utf8_lossy(&draft.id);
                replace(out, &format!("\"id\":\"{id}\","), "");
            }
            Damage::MissingCampaign => {
                replace(out, &format!("\"campaign\":\"{campaign}\","), "");
            }
            Damage::MissingAmount => replace(out, &format!("{amount},"), ""),
            Damage::MissingCurrency => replace(out, &format!("{currency},"), ""),
            Damage::MissingAt => replace(out, &format!("{at},"), ""),
            Damage::UnknownCurrency => replace(out, currency, "\"currency\":\"ABC\""),
            Damage::LowerCaseCurrency => replace(out, currency, "\"currency\":\"cny\""),
            Damage::UnknownKind => replace(out, kind, "\"kind\":\"lottery\""),
            Damage::NoSuchDate => replace(out, &at, "\"at\":\"2022-02-30T10:00:00+08:00\""),
            Damage::LongAgo => replace(out, &at, "\"at\":\"1900-01-01T00:00:00+08:00\""),
            Damage::Empty => out.clear(),
            Damage::InvalidUtf8 => {
                // The first byte of the campaign's first character, alone.
                if let Some(place) = find(out, campaign.as_bytes()) {
                    out[place + 1] = 0xff;
                }
            }
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

fn replace(out: &mut Vec<u8>, old: &str, new: &str) {
    let place = find(out, old.as_bytes());
    debug_assert!(place.is_some(), "{old} is not in the draft");
    if let Some(place) = place {
        out.splice(place..place + old.len(), new.bytes());
    }
}
