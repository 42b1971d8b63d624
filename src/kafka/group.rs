//! Who is in the consumer group.

use std::fmt;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::topics::ANSWER_WITHIN;

/// A live member of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// What it calls itself: `tally99-<host>-<process id>-<start>-member` if it is ours.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
}

impl fmt::Display for GroupMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at {}",
            self.client_id,
            self.host.trim_start_matches('/')
        )
    }
}

/// The live members of a group; none if there is no such group.
pub fn live_members<C: ClientContext>(
    client: &Client<C>,
    group: &str,
) -> Result<Vec<GroupMember>, KafkaError> {
    let groups = client.fetch_group_list(Some(group), ANSWER_WITHIN)?;
    let members = groups.groups().iter().flat_map(|group| group.members());
    Ok(members
        .map(|member| GroupMember {
            client_id: member.client_id().to_owned(),
            host: member.client_host().to_owned(),
        })
        .collect())
}

/// Whether the broker does not know the question, as the embedded one does not.
pub fn is_unsupported(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnsupportedFeature)
}
