//! Who joins, and what they see.

use std::collections::BTreeSet;

use super::loss::Successor;
use super::{Member, Now, Phase, Run, Stage};
use crate::event::{
    Action, Command, DataError, DataFolder, EnvironmentError, Fact, Loss, LossCause, MemberInfo,
    RefusalReason, RunError, Scan, ShutdownReason, WorkerId,
};

impl Run {
    pub(super) fn on_joined(
        &mut self,
        now: Now,
        worker: WorkerId,
        (host, pid, instance): (String, u32, u64),
        local_rank: Option<u32>,
        out: &mut Vec<Action>,
    ) {
        // Of another launcher's, or none.
        let local_rank = local_rank.filter(|local_rank| *local_rank < self.recipe.local_ranks);
        // A process has one session: a second one tells that the first is broken.
        let former = self
            .members
            .iter()
            .find(|(_, member)| member.instance == instance)
            .map(|(id, _)| *id);
        let info = MemberInfo {
            worker,
            host: host.clone(),
            rank: None,
            local_rank,
        };
        if let Err(reason) = self.admit(former, pid, local_rank) {
            return refuse(info, reason, out);
        }
        let from_before =
            local_rank.is_some_and(|local_rank| self.process_in(local_rank) != Some(pid));
        self.members.insert(
            worker,
            Member {
                host,
                pid,
                instance,
                local_rank,
                from_before,
                joined: now,
                scan: None,
                stage: Stage::Joined,
                decoding: None,
                retained: None,
                best: None,
                draining: false,
                heartbeat: None,
                assignment: None,
            },
        );
        if let (Phase::Assembling(assembling), None, None) = (&mut self.phase, local_rank, former) {
            assembling.absent = assembling.absent.saturating_sub(1);
        }
        out.push(Action::Send(worker, Command::Registered));
        out.push(Action::Notify(Fact::Joined {
            member: info,
            members: self.members.len() - usize::from(former.is_some()),
            expected: self.recipe.workers,
        }));
        if let Some(former) = former {
            let cause = LossCause::NewSession;
            let (reason, abort) = (ShutdownReason::Removed(cause.clone()), false);
            out.push(Action::Send(former, Command::Shutdown { reason, abort }));
            self.drop_member(now, former, cause, Successor::None, out);
        }
    }

    fn admit(
        &self,
        former: Option<WorkerId>,
        pid: u32,
        local_rank: Option<u32>,
    ) -> Result<(), RefusalReason> {
        if matches!(self.phase, Phase::Finishing(_) | Phase::Closed) {
            return Err(RefusalReason::RunEnding);
        }
        if former.is_some() {
            return Ok(());
        }
        if let Some(local_rank) = local_rank {
            return self.claim(local_rank, pid);
        }
        // The launcher's workers have their places, also when they come later.
        let (taken, limit) = (
            self.members.len() + self.open_local_ranks(),
            self.recipe.max_workers,
        );
        match taken >= limit {
            true => Err(RefusalReason::RunFull { limit }),
            false => Ok(()),
        }
    }

    pub(super) fn on_scanned(
        &mut self,
        now: Now,
        worker: WorkerId,
        mut scan: Scan,
        out: &mut Vec<Action>,
    ) {
        let stage = self.members.get(&worker).map(|member| member.stage);
        if stage != Some(Stage::Joined) {
            return;
        }
        let accepted = self
            .compare(worker, &scan)
            .and_then(|()| Ok(self.adopt(&mut scan, out)?));
        if let Err(mismatch) = accepted {
            let strange = self.split.is_none()
                && self.members.get(&worker).is_some_and(
                    // Data that a resumed run was not started with, by somebody from elsewhere.
                    |member| self.resumed.is_none() || member.local_rank.is_some(),
                );
            if strange {
                return self.fail(mismatch.into(), out);
            }
            // The run is fine without it, and the same program would see the same again.
            return self.expel(now, worker, mismatch.into(), out);
        }
        let memory = scan.memory;
        let host = self.members.get(&worker).map_or("", |m| m.host.as_str());
        out.extend(
            std::mem::take(&mut scan.warnings)
                .into_iter()
                .map(|warning| {
                    let host = host.to_owned();
                    Action::Notify(Fact::Warned { host, warning })
                }),
        );
        if let Some(member) = self.members.get_mut(&worker) {
            // Whoever was in a group can read everything; others know only their own part.
            let prepared = memory.prepared && memory.retained.is_some() && self.split.is_some();
            member.stage = if prepared {
                Stage::Ready
            } else {
                Stage::Scanned
            };
            member.retained = memory.retained;
            member.best = memory.best;
            member.scan = Some(scan);
        }
        self.after_scan(now, worker, out);
    }

    /// Removes a member that can be of no use to a run which is fine otherwise.
    pub(super) fn expel(
        &mut self,
        now: Now,
        worker: WorkerId,
        reason: RefusalReason,
        out: &mut Vec<Action>,
    ) {
        if let Some(member) = self.members.remove(&worker) {
            let info = member.info(worker);
            self.last_loss = Some(Loss::Expelled {
                member: info.clone(),
                reason: reason.clone(),
            });
            self.close_local_rank(member.local_rank);
            refuse(info, reason, out);
        }
        self.go_on(now, out);
    }

    /// Whether a worker has the data and the kind of device that the others have.
    fn compare(&self, worker: WorkerId, scan: &Scan) -> Result<(), Mismatch> {
        let host = self.members.get(&worker).map_or("", |m| m.host.as_str());
        let other = self.members.values().find(|member| member.scan.is_some());
        if let Some(other) = other
            && let Some(theirs) = &other.scan
            && theirs.is_on_gpu() != scan.is_on_gpu()
        {
            let (gpu, cpu) = if scan.is_on_gpu() {
                (host, other.host.as_str())
            } else {
                (other.host.as_str(), host)
            };
            return Err(Mismatch::Environment(EnvironmentError::MixedDevices {
                gpu: gpu.to_owned(),
                cpu: cpu.to_owned(),
            }));
        }
        match &self.fingerprint {
            Some(known) if *known != scan.fingerprint => Err(Mismatch::Data(DataError::Mismatch {
                known: DataFolder {
                    host: other.map(|member| member.host.clone()),
                    fingerprint: known.clone(),
                },
                other: DataFolder {
                    host: Some(host.to_owned()),
                    fingerprint: scan.fingerprint.clone(),
                },
                difference: first_difference(&self.files, &scan.files),
            })),
            _ => Ok(()),
        }
    }

    /// Learns classes and files from the first worker that knows them.
    fn adopt(&mut self, scan: &mut Scan, out: &mut Vec<Action>) -> Result<(), DataError> {
        let files = std::mem::take(&mut scan.files);
        if !self.files.is_empty() {
            return Ok(());
        }
        self.files = files;
        self.classes.clone_from(&scan.classes);
        self.fingerprint = Some(scan.fingerprint.clone());
        self.restore_split()?;
        self.show_split(out);
        Ok(())
    }
}

/// What a worker has that the run cannot use.
enum Mismatch {
    Data(DataError),
    Environment(EnvironmentError),
}

impl From<DataError> for Mismatch {
    fn from(error: DataError) -> Self {
        Self::Data(error)
    }
}

impl From<Mismatch> for RunError {
    fn from(mismatch: Mismatch) -> Self {
        match mismatch {
            Mismatch::Data(error) => Self::Data(error),
            Mismatch::Environment(error) => Self::Environment(error),
        }
    }
}

impl From<Mismatch> for RefusalReason {
    fn from(mismatch: Mismatch) -> Self {
        match mismatch {
            Mismatch::Data(error) => Self::Data(error),
            Mismatch::Environment(error) => Self::Environment(error),
        }
    }
}

/// Refuses a worker that is not a member, or no longer one.
fn refuse(member: MemberInfo, reason: RefusalReason, out: &mut Vec<Action>) {
    let worker = member.worker;
    let fact = Fact::Refused {
        member,
        reason: reason.clone(),
    };
    out.push(Action::Notify(fact));
    let (reason, abort) = (ShutdownReason::Refused(reason), false);
    out.push(Action::Send(worker, Command::Shutdown { reason, abort }));
}

/// The first path that only one of two folders has, or has with another size.
fn first_difference(a: &[(String, u64)], b: &[(String, u64)]) -> Option<String> {
    let a: BTreeSet<_> = a.iter().collect();
    let b: BTreeSet<_> = b.iter().collect();
    let differs = a.symmetric_difference(&b).min();
    differs.map(|(path, _)| path.clone())
}
