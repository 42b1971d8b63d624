//! From bytes to an [`Event`].
//!
//! Two steps: the object is taken apart into raw fields by serde_json (which ignores what
//! it does not know, however deep it is nested, without recursion), then each field is
//! checked by hand, so that every fault has its own reason. Most events need neither: they
//! are of the [usual form](usual).

#[cfg(test)]
mod tests;
mod time;
mod usual;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{AT_END, AT_MIN, Event, Gift, Id, MAX_EVENT_BYTES, Millis, Reason, Rejected};
use crate::money::{Currency, Money};

/// Reads one event.
///
/// `payload` is the record's value; `None` is a tombstone.
///
/// ```
/// use tally99::event::{decode, Gift, Reason};
/// let event = decode(Some(br#"{"id":"a1","campaign":"school","amount":990,
///     "currency":"CNY","at":"2022-09-09T10:00:00+08:00"}"#)).unwrap();
/// assert_eq!(event.at, 1_662_688_800_000);
/// assert!(matches!(event.gift, Gift::Donation(..)));
/// assert_eq!(decode(Some(b"{}")).unwrap_err().reason, Reason::MissingField);
/// ```
pub fn decode(payload: Option<&[u8]>) -> Result<Event<'_>, Rejected> {
    let bytes = payload.unwrap_or_default();
    if bytes.is_empty() {
        return Err(Rejected::new(Reason::Empty, "the record has no value"));
    }
    if bytes.len() > MAX_EVENT_BYTES {
        let detail = format!("{} bytes; at most {MAX_EVENT_BYTES} are read", bytes.len());
        return Err(Rejected::new(Reason::TooLarge, detail));
    }
    let text = simdutf8::basic::from_utf8(bytes).or_else(|_| {
        std::str::from_utf8(bytes) // It says where the fault is.
            .map_err(|error| Rejected::new(Reason::NotUtf8, error.to_string()))
    })?;
    match usual::usual(text) {
        Some(event) => Ok(event),
        None => any(text),
    }
}

/// The event of a text of any form.
#[cold]
fn any(text: &str) -> Result<Event<'_>, Rejected> {
    let fields = serde_json::from_str(text)
        .map_err(|error| Rejected::new(Reason::NotJson, error.to_string()))?;
    check(fields)
}

/// Checks the fields one by one.
fn check(fields: Fields<'_>) -> Result<Event<'_>, Rejected> {
    if let Some(name) = fields.twice {
        let detail = format!("{name} stands more than once");
        return Err(Rejected::new(Reason::DuplicateField, detail));
    }
    let id = required(fields.id, "id", 64, Reason::BadId)?;
    let campaign = required(fields.campaign, "campaign", 64, Reason::BadCampaign)?;
    let donor = optional(fields.donor, "donor", 64, Reason::BadDonor)?;
    optional(fields.channel, "channel", 32, Reason::BadChannel)?;
    let refund_of = optional(fields.refund_of, "refund_of", 64, Reason::BadRefundOf)?;
    let gift = gift(fields.kind, fields.amount, fields.currency)?;
    if refund_of.is_some() && !matches!(gift, Gift::Refund(..)) {
        // A refund that lost its kind would be counted as a gift.
        return Err(Rejected::new(
            Reason::BadRefundOf,
            "refund_of on what is not a refund",
        ));
    }
    let at = at(fields.at)?;
    Ok(Event {
        id: Id::of(&id),
        gift,
        campaign,
        donor,
        at,
    })
}

fn gift(kind: Raw<'_>, amount: Raw<'_>, currency: Raw<'_>) -> Result<Gift, Rejected> {
    let amount = match amount {
        Raw::Null => return Err(missing("amount")),
        Raw::Integer(amount @ 1..) => amount,
        other => {
            let detail = format!(
                "amount is {other}, not a whole number from 1 to {}",
                i64::MAX
            );
            return Err(Rejected::new(Reason::BadAmount, detail));
        }
    };
    let kind = match kind {
        Raw::Null => Cow::Borrowed("donation"),
        Raw::Text(kind) => kind,
        other => return Err(Rejected::new(Reason::BadKind, format!("kind is {other}"))),
    };
    if kind == "flower" {
        return match currency {
            Raw::Null => Ok(Gift::Flowers(amount)),
            other => {
                let detail = format!("currency is {other}, but a flower has none");
                Err(Rejected::new(Reason::BadCurrency, detail))
            }
        };
    }
    let with_money = match &*kind {
        "donation" => Gift::Donation,
        "refund" => Gift::Refund,
        "match" => Gift::Match,
        _ => {
            let detail = format!(
                "kind is {}, not donation, refund, match or flower",
                Raw::Text(kind)
            );
            return Err(Rejected::new(Reason::BadKind, detail));
        }
    };
    let currency = match currency {
        Raw::Null => return Err(missing("currency")),
        Raw::Text(code) => match Currency::parse(&code) {
            Some(currency) => currency,
            None => {
                let detail = format!(
                    "currency is {}, not an ISO 4217 code in upper case",
                    Raw::Text(code)
                );
                return Err(Rejected::new(Reason::BadCurrency, detail));
            }
        },
        other => {
            return Err(Rejected::new(
                Reason::BadCurrency,
                format!("currency is {other}"),
            ));
        }
    };
    Ok(with_money(Money(amount), currency))
}

fn at(raw: Raw<'_>) -> Result<Millis, Rejected> {
    let millis = match &raw {
        Raw::Null => return Err(missing("at")),
        Raw::Integer(millis) => Some(*millis),
        Raw::Text(text) => time::rfc3339(text),
        _ => None,
    };
    millis.filter(|at| (AT_MIN..AT_END).contains(at)).ok_or_else(|| {
        let detail = format!(
            "at is {raw}, not RFC 3339 with an offset or integer milliseconds, from 2000 to 2099"
        );
        Rejected::new(Reason::BadAt, detail)
    })
}

fn required<'a>(
    raw: Raw<'a>,
    name: &str,
    max_bytes: usize,
    reason: Reason,
) -> Result<Cow<'a, str>, Rejected> {
    if matches!(raw, Raw::Null) {
        return Err(missing(name));
    }
    optional(raw, name, max_bytes, reason)?
        .ok_or_else(|| Rejected::new(reason, format!("{name} is empty")))
}

/// A text within its bounds; absent, null and empty are the same.
fn optional<'a>(
    raw: Raw<'a>,
    name: &str,
    max_bytes: usize,
    reason: Reason,
) -> Result<Option<Cow<'a, str>>, Rejected> {
    match raw {
        Raw::Null => Ok(None),
        Raw::Text(text) if text.len() > max_bytes => {
            let detail = format!("{name} has {} bytes; at most {max_bytes}", text.len());
            Err(Rejected::new(reason, detail))
        }
        // They would end up in keys, file names and terminals.
        Raw::Text(text) if has_control(&text) => {
            let detail = format!("{name} is {}, with a control character", Raw::Text(text));
            Err(Rejected::new(reason, detail))
        }
        Raw::Text(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        other => Err(Rejected::new(
            reason,
            format!("{name} is {other}, not a string"),
        )),
    }
}

/// Whether a control character (U+0000 to U+001F, U+007F to U+009F) is in it.
fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

fn missing(name: &str) -> Rejected {
    Rejected::new(Reason::MissingField, format!("{name} is missing"))
}

/// A value before it is checked. Absent and null are the same.
#[derive(Default)]
enum Raw<'a> {
    #[default]
    Null,
    Text(Cow<'a, str>),
    Integer(i64),
    /// Anything that no field may be, in words.
    Other(&'static str),
}

impl fmt::Display for Raw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raw::Null => f.write_str("null"),
            Raw::Text(text) if text.chars().count() > 80 => {
                write!(f, "{:?}…", text.chars().take(80).collect::<String>())
            }
            Raw::Text(text) => write!(f, "{text:?}"),
            Raw::Integer(number) => number.fmt(f),
            Raw::Other(words) => f.write_str(words),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawVisitor;

        impl<'de> Visitor<'de> for RawVisitor {
            type Value = Raw<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Raw<'de>, E> {
                Ok(Raw::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Raw<'de>, E> {
                Ok(Raw::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Raw<'de>, E> {
                Ok(Raw::Integer(number))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Raw<'de>, E> {
                Ok(i64::try_from(number)
                    .map_or(Raw::Other("an integer above 2^63 - 1"), Raw::Integer))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Raw<'de>, E> {
                Ok(Raw::Other("not an integer of 64 bits"))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Raw<'de>, E> {
                Ok(Raw::Other("a boolean"))
            }
            fn visit_unit<E>(self) -> Result<Raw<'de>, E> {
                Ok(Raw::Null)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw<'de>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Raw::Other("an object"))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw<'de>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Raw::Other("an array"))
            }
        }

        deserializer.deserialize_any(RawVisitor)
    }
}

macro_rules! fields {
    ($($name:ident),*) => {
        /// The fields that we know, unchecked.
        #[derive(Default)]
        struct Fields<'a> {
            $($name: Raw<'a>,)*
            /// Which of them were there.
            seen: u32,
            /// A field of ours that stands more than once.
            twice: Option<&'static str>,
        }

        impl<'a> Fields<'a> {
            fn take(&mut self, field: Field, value: Raw<'a>) {
                let bit = 1 << field as u32;
                match field {
                    $(Field::$name => {
                        if self.seen & bit != 0 {
                            self.twice = Some(stringify!($name));
                        }
                        self.$name = value;
                    })*
                    Field::Unknown => {}
                }
                self.seen |= bit;
            }
        }

        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy)]
        enum Field { $($name,)* Unknown }

        impl Field {
            fn of(name: &str) -> Field {
                match name {
                    $(stringify!($name) => Field::$name,)*
                    _ => Field::Unknown,
                }
            }
        }

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields::default();
                while let Some(field) = map.next_key::<Field>()? {
                    match field {
                        Field::Unknown => { map.next_value::<IgnoredAny>()?; }
                        known => fields.take(known, map.next_value()?),
                    }
                }
                Ok(fields)
            }
        }
    };
}

fields!(
    id, kind, campaign, donor, amount, currency, at, channel, refund_of
);

struct FieldsVisitor;

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor;

        impl Visitor<'_> for FieldVisitor {
            type Value = Field;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }
            fn visit_str<E>(self, name: &str) -> Result<Field, E> {
                Ok(Field::of(name))
            }
        }

        deserializer.deserialize_identifier(FieldVisitor)
    }
}
