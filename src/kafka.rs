//! Everything that talks to Kafka's brokers, but for what is said to them.
//!
//! Control and data are apart. A process has one [`member`], a consumer that
//! subscribes and has all that it is assigned paused: it only speaks the group's
//! protocol. Each worker has a [`reader`], a consumer whose partitions are assigned
//! by hand at the offsets that its shards say; it never meets a rebalance. A
//! standby has a [`placeholder`] in the group, until it has a member.

pub mod client;
pub mod clock;
pub mod group;
pub mod member;
pub mod membership;
pub mod placeholder;
pub mod reader;
pub mod topics;
