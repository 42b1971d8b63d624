//! Who is in the consumer group.

use std::fmt;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::client::{client_id, host_and_pid, is_of_standby};

/// How long the question may take: short, since whoever asks asks again.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A live member of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// What it calls itself: `tally99-<host>-<process id>-<start>-member` if it is ours.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// Its `group.instance.id`; empty if it is no static member.
    pub instance_id: String,
}

impl GroupMember {
    /// Whether it only waits for the others to be gone.
    pub fn is_standby(&self) -> bool {
        is_of_standby(&self.client_id)
    }

    /// Whether it does the work of the group, or may do, and is not of this process.
    pub fn is_another_at_work(&self) -> bool {
        !self.is_standby() && self.client_id != client_id("member")
    }

    /// Whether it is what this process was before a restart: a static member of
    /// the same id and host, whose process is no more. Static members do not leave
    /// when they end, so that whoever comes again has their place.
    pub fn is_before_restart(&self, instance_id: Option<&str>) -> bool {
        let own = client_id("member");
        let (own_host, own_pid) = match host_and_pid(&own) {
            Some(own) if instance_id == Some(&self.instance_id) => own,
            _ => return false,
        };
        host_and_pid(&self.client_id).is_some_and(|(host, pid)| {
            // In a container each has the same process id.
            host == own_host && (pid == own_pid || !is_running(pid))
        })
    }
}

/// Whether there is such a process on this host.
fn is_running(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
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
///
/// librdkafka asks all brokers for it, so one that has just died fails it until
/// the cluster has given that one up. (Its other way, which asks the coordinator
/// alone, aborts the process when it times out while it looks for that:
/// `rd_kafka_admin_coord_request` in 2.12 answers twice.)
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
            instance_id: instance_id(member.id(), member.client_id()).to_owned(),
        })
        .collect())
}

/// Brokers call a member `<client.id>-<uuid>`, and a static one
/// `<group.instance.id>-<uuid>`.
fn instance_id<'a>(member_id: &'a str, client_id: &str) -> &'a str {
    const UUID: usize = 36;
    let before = member_id.len().checked_sub(UUID + 1);
    match before.and_then(|at| member_id.get(..at)) {
        Some(name) if name != client_id => name,
        _ => "",
    }
}

/// Those of them that do the work of the group, or may do, and are not of this
/// process.
pub fn others_at_work<C: ClientContext>(
    client: &Client<C>,
    group: &str,
) -> Result<Vec<GroupMember>, KafkaError> {
    let mut members = live_members(client, group)?;
    members.retain(GroupMember::is_another_at_work);
    Ok(members)
}

/// Whether the broker does not know the question, as the embedded one does not.
pub fn is_unsupported(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnsupportedFeature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_member_is_called_by_its_instance() {
        let uuid = "68827887-f03b-4f08-aaf4-06292948adb9";
        let of = |name: &str| format!("{name}-{uuid}");
        assert_eq!(instance_id(&of("one"), "client"), "one");
        assert_eq!(instance_id(&of("client"), "client"), "");
        for odd in ["", "one", uuid] {
            assert_eq!(instance_id(odd, "client"), "", "{odd}");
        }
    }

    fn member(client_id: String, instance_id: &str) -> GroupMember {
        GroupMember {
            client_id,
            host: "/127.0.0.1".into(),
            instance_id: instance_id.into(),
        }
    }

    #[test]
    fn a_static_member_is_known_again_once_its_process_is_gone() {
        let own = client_id("member");
        let (host, pid) = host_and_pid(&own).unwrap();
        let of = |host: &str, pid: u32| format!("tally99-{host}-{pid}-19a-member");
        // No process has an id this high, and process 1 is always there.
        let (gone, there) = (i32::MAX as u32, 1);
        let before = |client_id, id| member(client_id, id).is_before_restart(Some("a"));
        assert!(before(of(host, gone), "a"));
        assert!(before(of(host, pid), "a"), "a container's");
        assert!(!before(of(host, there), "a"), "it is still there");
        assert!(!before(of("elsewhere", gone), "a"), "nobody here can know");
        assert!(!before(of(host, gone), "b"), "another's");
        assert!(!before("somebody-else".into(), "a"));
        assert!(!member(of(host, gone), "").is_before_restart(None));
    }
}
