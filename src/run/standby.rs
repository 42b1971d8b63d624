//! Standing by: waiting in the group until nobody is at work there any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{RunError, list};
use crate::config::Config;
use crate::kafka::client::{self, Health};
use crate::kafka::group::GroupMember;
use crate::kafka::placeholder::Placeholder;
use crate::shutdown::Shutdown;

/// How often it is said what is waited for while that stays the same.
const SAY_AGAIN: Duration = Duration::from_secs(600);
/// How often the end is looked for.
const LOOK_FOR_END: Duration = Duration::from_millis(20);

/// Whose turn it is.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Ours,
    /// These are at work.
    Work(Vec<GroupMember>),
    /// Nobody is at work, and this standby comes before us.
    Standby(GroupMember),
    /// Our own place is not in the group yet, so other standbys may not see us.
    NotKnown,
}

/// Waits until this process is to do the work of the group. Its place among the
/// standbys is to be kept until it has another. `None` if the end is asked for.
pub(super) async fn wait(
    config: &Config,
    health: &Arc<Health>,
    shutdown: &Shutdown,
) -> Result<Option<Placeholder>, RunError> {
    let kafka = &config.kafka;
    let mut placeholder = Placeholder::join(kafka, &config.topics.cuts, health)?;
    let own = client::client_id(client::STANDBY);
    let mut said: Option<(String, Instant)> = None;
    while !shutdown.has_begun() {
        let Ok(look) = tokio::time::timeout(LOOK_FOR_END, placeholder.look()).await else {
            continue;
        };
        let members = match look.ok_or(RunError::Panic("standby"))? {
            Ok(members) => members,
            Err(error) => {
                if let Some(advice) = client::advice(&error, &config.topics.cuts, &kafka.group) {
                    return Err(RunError::Refused(advice));
                }
                if !health.note(&error) {
                    tracing::debug!("standing by in group {}: {error}", kafka.group);
                }
                continue;
            }
        };
        health.is_up();
        let awaited = match turn(members, &own) {
            Turn::Ours => {
                tracing::info!(
                    "nobody is at work in group {} any more: taking over",
                    kafka.group
                );
                return Ok(Some(placeholder));
            }
            Turn::NotKnown => continue,
            Turn::Work(members) => format!("{} at work", is_or_are(&members)),
            Turn::Standby(first) => format!("{first} is to take over"),
        };
        let is_said = said
            .as_ref()
            .is_some_and(|(what, at)| *what == awaited && at.elapsed() < SAY_AGAIN);
        if !is_said {
            let timeout_s = kafka.session_timeout.as_secs_f32();
            tracing::info!(
                "standing by in group {}: {awaited}. A process that dies is missed after \
                 {timeout_s} s",
                kafka.group
            );
            said = Some((awaited, Instant::now()));
        }
    }
    tokio::task::block_in_place(|| placeholder.leave());
    Ok(None)
}

fn is_or_are(members: &[GroupMember]) -> String {
    let verb = if members.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", list(members))
}

/// Of several standbys the one takes over whose name comes first, so that each of
/// them knows who it is.
fn turn(members: Vec<GroupMember>, own: &str) -> Turn {
    let (standbys, work): (Vec<_>, Vec<_>) = members.into_iter().partition(GroupMember::is_standby);
    let work: Vec<_> = work
        .into_iter()
        .filter(GroupMember::is_another_at_work)
        .collect();
    if !work.is_empty() {
        return Turn::Work(work);
    }
    if !standbys.iter().any(|standby| standby.client_id == own) {
        return Turn::NotKnown;
    }
    let first = standbys
        .into_iter()
        .min_by(|a, b| a.client_id.cmp(&b.client_id));
    match first {
        Some(first) if first.client_id != own => Turn::Standby(first),
        _ => Turn::Ours,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(ids: &[&str]) -> Vec<GroupMember> {
        let member = |id: &&str| GroupMember {
            client_id: format!("tally99-{id}"),
            host: "/127.0.0.1".into(),
            instance_id: String::new(),
        };
        ids.iter().map(member).collect()
    }

    fn turn_of_b(ids: &[&str]) -> Turn {
        turn(members(ids), "tally99-b-standby")
    }

    #[test]
    fn of_standbys_the_first_takes_over_once_nobody_is_at_work() {
        assert_eq!(turn_of_b(&["b-standby"]), Turn::Ours);
        assert_eq!(turn_of_b(&["c-standby", "b-standby"]), Turn::Ours);
        let a = members(&["a-standby"]).remove(0);
        assert_eq!(turn_of_b(&["b-standby", "a-standby"]), Turn::Standby(a));
        let work = members(&["z-member"]);
        assert_eq!(turn_of_b(&["z-member", "b-standby"]), Turn::Work(work));
    }

    #[test]
    fn a_standby_that_others_may_not_see_waits() {
        assert_eq!(turn_of_b(&[]), Turn::NotKnown);
        assert_eq!(turn_of_b(&["c-standby"]), Turn::NotKnown);
    }

    #[test]
    fn what_is_left_of_our_own_work_is_not_waited_for() {
        let own = client::client_id("member");
        let own = own.strip_prefix("tally99-").unwrap();
        assert_eq!(turn_of_b(&[own, "b-standby"]), Turn::Ours);
    }

    #[test]
    fn anybody_else_in_the_group_is_at_work() {
        let stranger = GroupMember {
            client_id: "somebody-else".into(),
            host: "/10.0.0.1".into(),
            instance_id: String::new(),
        };
        let mut all = members(&["b-standby"]);
        all.push(stranger.clone());
        assert_eq!(turn(all, "tally99-b-standby"), Turn::Work(vec![stranger]));
    }
}
