//! What the supervisor does about others in the group: one process does its work.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Supervisor;
use crate::kafka::client;
use crate::kafka::group::{self, GroupMember};
use crate::run::RunError;
use crate::view::TotalsView;

/// How often the group is asked who else is in it.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Supervisor<'_> {
    /// Once partitions were lost, others may have taken over, or may be about to. They
    /// have precedence, so this process ends as soon as it sees them, unless all
    /// partitions are its own again before.
    pub(super) fn end_if_replaced(&mut self) -> Result<(), RunError> {
        if self.lost_at_cut.is_none() || self.is_back {
            return Ok(());
        }
        let partitions = self.partitions.load(Ordering::Acquire);
        if self.membership.assigned().len() >= partitions {
            self.is_back = true;
            return Ok(());
        }
        if !self.may_ask() {
            return Ok(());
        }
        let members = self.others().unwrap_or_default(); // Else they are asked again.
        match members.is_empty() {
            true => Ok(()),
            false => Err(RunError::Replaced {
                group: self.config.kafka.group.clone(),
                members,
            }),
        }
    }

    /// Two processes that started at the same moment see each other only now:
    /// neither has all partitions. One that publishes stays; of two that do not,
    /// the one whose name comes first.
    pub(super) fn yield_to_others(&mut self) -> Result<(), RunError> {
        let partitions = self.partitions.load(Ordering::Acquire);
        if self.membership.assigned().len() >= partitions {
            self.incomplete_since = None;
            return Ok(());
        }
        let waited = self
            .incomplete_since
            .get_or_insert_with(Instant::now)
            .elapsed();
        let session = self.config.kafka.session_timeout;
        // What was published before partitions were lost, or by this process before it
        // stood back, gives no precedence.
        let publishes = newest_cut(&self.view) > self.lost_at_cut.unwrap_or(self.began_at_cut);
        if waited < session || publishes || !self.may_ask() {
            return Ok(());
        }
        let Some(members) = self.others() else {
            return Ok(());
        };
        let own = client::client_id("member");
        let is_first = members.iter().all(|member| own < member.client_id);
        // The other one may publish; then it stays, whatever its name.
        if !members.is_empty() && (!is_first || waited >= 2 * session) {
            let group = self.config.kafka.group.clone();
            return Err(RunError::GroupInUse { group, members });
        }
        Ok(())
    }

    /// Whether it is time for a question about the group, and if so, that it is
    /// asked now.
    fn may_ask(&mut self) -> bool {
        let may_ask = self
            .asked_at
            .is_none_or(|at| at.elapsed() >= ASK_AGAIN_AFTER);
        if may_ask {
            self.asked_at = Some(Instant::now());
        }
        may_ask
    }

    /// The members of the group that are not of this process; `None` if the
    /// brokers do not say.
    fn others(&self) -> Option<Vec<GroupMember>> {
        let group = &self.config.kafka.group;
        tokio::task::block_in_place(|| group::others_at_work(self.admin.inner(), group)).ok()
    }
}

/// The number of the newest complete cut of ours; 0 if there is none.
pub(super) fn newest_cut(view: &TotalsView) -> u64 {
    let newest = view.newest();
    newest.borrow().as_ref().map_or(0, |cut| cut.number)
}
