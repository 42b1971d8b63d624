//! The simulated log: what stands in a partition, and what the simulator knows
//! of it apart from its bytes.

use tally99::event::Reason;

pub const MAX_AHEAD_MS: i64 = 300_000;

/// What stands at an offset.
#[derive(Clone)]
pub enum Logged {
    /// A record that names a campaign.
    Event(Event),
    /// A record that cannot be read, for this reason.
    Damaged(Reason),
    /// No record, as behind a transaction: readers never see it.
    Marker,
}

#[derive(Clone)]
pub struct Event {
    pub id: u64,
    pub kind: &'static str,
    pub campaign: &'static str,
    pub currency: &'static str,
    pub amount: i64,
    pub donor: Option<u64>,
    pub at: i64,
    pub timestamp: i64,
}

impl Event {
    pub fn is_ahead(&self) -> bool {
        self.at - self.timestamp > MAX_AHEAD_MS
    }

    /// The row that it belongs to: its business day in Shanghai, which has no
    /// summer time, and its currency.
    pub fn row(&self) -> (i64, Option<&'static str>) {
        let day = (self.at + 8 * 3_600_000).div_euclid(86_400_000);
        (day, (self.kind != "flower").then_some(self.currency))
    }

    /// Gross, refunded, or matched; flowers are gross.
    pub fn column(&self) -> usize {
        match self.kind {
            "refund" => 1,
            "match" => 2,
            _ => 0,
        }
    }
}

impl Logged {
    /// The value of the record, if it is one.
    pub fn payload(&self) -> Option<Vec<u8>> {
        let event = match self {
            Logged::Event(event) => event,
            Logged::Marker => return None,
            Logged::Damaged(reason) => {
                return Some(match reason {
                    Reason::Empty => Vec::new(),
                    Reason::NotUtf8 => b"\xff".to_vec(),
                    Reason::BadAmount => br#"{"id":"x","campaign":"c","amount":"9.9"}"#.to_vec(),
                    other => panic!("nothing is damaged like {other}"),
                });
            }
        };
        let mut json = serde_json::json!({
            "id": format!("order-{}", event.id), "kind": event.kind,
            "campaign": event.campaign, "amount": event.amount, "at": event.at,
        });
        if event.kind != "flower" {
            json["currency"] = event.currency.into();
        }
        if let Some(donor) = event.donor {
            json["donor"] = format!("d{donor}").into();
        }
        Some(json.to_string().into_bytes())
    }

    pub fn is_ahead(&self) -> bool {
        matches!(self, Logged::Event(event) if event.is_ahead())
    }

    /// The record's own timestamp; unreadable ones have some.
    pub fn timestamp(&self) -> i64 {
        match self {
            Logged::Event(event) => event.timestamp,
            _ => 0,
        }
    }
}
