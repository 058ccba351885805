//! The members of the run, and what is known of each.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::WorkerId;
use crate::event::{EpochReport, Heartbeat, MemberInfo, Position, Scan};
use crate::run::Now;

/// How far a member is from being able to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(in crate::run) enum Stage {
    /// It has not reported its data and device yet.
    Joined,
    /// It has.
    Scanned,
    /// It decodes.
    Preparing,
    /// It can be part of a generation.
    Ready,
}

/// A member, by its session.
#[derive(Debug)]
pub(in crate::run) struct Member {
    /// Its machine.
    pub(in crate::run) host: String,
    /// Its process.
    pub(in crate::run) pid: u32,
    /// The same for all sessions of its process, and no other's.
    pub(in crate::run) instance: u64,
    /// Which of the launcher's processes it is.
    pub(in crate::run) local_rank: Option<u32>,
    /// The launcher of a former coordinator started it.
    pub(in crate::run) from_before: bool,
    /// When it joined.
    pub(in crate::run) joined: Now,
    /// How far it is from being able to train.
    pub(in crate::run) stage: Stage,
    /// What it reported of its data and device; without the list of files.
    pub(in crate::run) scan: Option<Scan>,
    /// What it was told to decode.
    pub(in crate::run) decoding: Option<Decoding>,
    /// The state that it retains outside a generation.
    pub(in crate::run) retained: Option<Position>,
    /// The epoch of the best weights of which it has a copy.
    pub(in crate::run) best: Option<u32>,
    /// It was asked to end.
    pub(in crate::run) draining: bool,
    /// The last one, and when it came.
    pub(in crate::run) heartbeat: Option<(Now, Heartbeat)>,
    /// Its place in the generation, until it has left that.
    pub(in crate::run) assignment: Option<Assignment>,
}

/// A member's order to decode images.
#[derive(Debug)]
pub(in crate::run) struct Decoding {
    /// Which.
    pub(in crate::run) samples: Vec<u32>,
    /// How many are done.
    pub(in crate::run) done: u32,
    /// When it was told, or last reported.
    pub(in crate::run) reported: Now,
}

/// A member's place in the generation.
#[derive(Debug)]
pub(in crate::run) struct Assignment {
    /// Its rank.
    pub(in crate::run) rank: u32,
    /// CPU threads with which it computes.
    pub(in crate::run) threads: u32,
    /// When it was assigned.
    pub(in crate::run) since: Now,
    /// It is in the process group.
    pub(in crate::run) in_group: bool,
    /// Steps of the epoch that it has completed.
    pub(in crate::run) completed: u32,
    /// Its part of the epoch.
    pub(in crate::run) share: Share,
    /// Its report of the whole epoch.
    pub(in crate::run) report: Option<EpochReport>,
}

/// A rank's part of an epoch.
#[derive(Debug, Default)]
pub(in crate::run) struct Share {
    /// Training samples, in this generation.
    pub(in crate::run) samples: u32,
    /// Chunks of the validation set.
    pub(in crate::run) chunks: Range<u32>,
}

impl Member {
    /// How others name it.
    pub(in crate::run) fn info(&self, worker: WorkerId) -> MemberInfo {
        MemberInfo {
            worker,
            host: self.host.clone(),
            rank: self.assignment.as_ref().map(|assignment| assignment.rank),
            local_rank: self.local_rank,
        }
    }

    /// Whether it is part of the generation.
    pub(in crate::run) fn is_assigned(&self) -> bool {
        self.assignment.is_some()
    }

    /// Whether it can be part of the next generation.
    pub(in crate::run) fn is_available(&self) -> bool {
        self.stage == Stage::Ready && !self.draining
    }

    /// Whether it decodes into the cache that the launcher's workers share.
    pub(in crate::run) fn shares_cache(&self) -> bool {
        self.local_rank.is_some()
    }
}

/// All members.
#[derive(Debug, Default)]
pub(in crate::run) struct Members {
    members: BTreeMap<WorkerId, Member>,
}

impl Members {
    /// Adds one.
    pub(in crate::run) fn insert(&mut self, worker: WorkerId, member: Member) {
        self.members.insert(worker, member);
    }

    /// Takes one out.
    pub(in crate::run) fn remove(&mut self, worker: WorkerId) -> Option<Member> {
        self.members.remove(&worker)
    }

    /// One of them.
    pub(in crate::run) fn get(&self, worker: WorkerId) -> Option<&Member> {
        self.members.get(&worker)
    }

    /// One of them, to change what is known of it.
    pub(in crate::run) fn get_mut(&mut self, worker: WorkerId) -> Option<&mut Member> {
        self.members.get_mut(&worker)
    }

    /// How many there are.
    pub(in crate::run) fn len(&self) -> usize {
        self.members.len()
    }

    /// All, by their ids.
    pub(in crate::run) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Member)> {
        self.members.iter().map(|(id, member)| (*id, member))
    }

    /// All.
    pub(in crate::run) fn values(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// All, to change what is known of them.
    pub(in crate::run) fn values_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.values_mut()
    }

    /// The members of the generation that have not left it.
    pub(in crate::run) fn assigned(
        &self,
    ) -> impl Iterator<Item = (WorkerId, &Member, &Assignment)> {
        self.iter()
            .filter_map(|(id, member)| Some((id, member, member.assignment.as_ref()?)))
    }

    /// Their places.
    pub(in crate::run) fn assignments_mut(
        &mut self,
    ) -> impl Iterator<Item = (WorkerId, &mut Assignment)> {
        self.members
            .iter_mut()
            .filter_map(|(id, member)| Some((*id, member.assignment.as_mut()?)))
    }

    /// Ranks of the generation that are left.
    pub(in crate::run) fn world_size(&self) -> usize {
        self.assigned().count()
    }

    /// The lowest rank of the generation that is left.
    pub(in crate::run) fn lowest_rank(&self) -> Option<WorkerId> {
        self.assigned()
            .min_by_key(|(_, _, assignment)| assignment.rank)
            .map(|(id, _, _)| id)
    }

    /// The steps of the epoch that all ranks have completed.
    pub(in crate::run) fn completed_by_all(&self) -> u32 {
        let completed = self
            .assigned()
            .map(|(_, _, assignment)| assignment.completed);
        completed.min().unwrap_or(0)
    }

    /// The most steps of the epoch that any rank has completed.
    pub(in crate::run) fn completed_by_any(&self) -> u32 {
        let completed = self
            .assigned()
            .map(|(_, _, assignment)| assignment.completed);
        completed.max().unwrap_or(0)
    }

    /// The member that has a local rank.
    pub(in crate::run) fn with_local_rank(&self, local_rank: u32) -> Option<WorkerId> {
        self.find(|member| member.local_rank == Some(local_rank))
    }

    /// The session of a process.
    pub(in crate::run) fn with_instance(&self, instance: u64) -> Option<WorkerId> {
        self.find(|member| member.instance == instance)
    }

    /// The first member that has a copy of the best weights of this epoch.
    pub(in crate::run) fn with_best(&self, epoch: u32) -> Option<WorkerId> {
        self.find(|member| member.best == Some(epoch))
    }

    /// The first member of which `holds` is true.
    pub(in crate::run) fn find(&self, holds: impl Fn(&Member) -> bool) -> Option<WorkerId> {
        let mut members = self.iter();
        members.find(|(_, member)| holds(member)).map(|(id, _)| id)
    }
}
