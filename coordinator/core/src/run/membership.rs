//! Workers that join: who is admitted, and whose data and device fit the run.

use super::departure::Successor;
use super::parts::{Member, Stage};
use super::{Phase, Run};
use crate::event::{
    Action, Command, DataError, DataFolder, EnvironmentError, Fact, Loss, LossCause, MemberInfo,
    RefusalReason, Scan, ShutdownReason, WorkerId,
};

impl Run {
    pub(super) fn on_joined(
        &mut self,
        worker: WorkerId,
        (host, pid, instance): (String, u32, u64),
        local_rank: Option<u32>,
    ) {
        // Of another launcher's, or none.
        let local_rank = local_rank.filter(|local_rank| self.local_workers.includes(*local_rank));
        // A process has one session: a second one shows that the first is broken.
        let former = self.members.with_instance(instance);
        let info = MemberInfo {
            worker,
            host: host.clone(),
            rank: None,
            local_rank,
        };
        if let Err(reason) = self.admit(former, pid, local_rank) {
            if let RefusalReason::LocalRankTaken { local_rank, .. } = reason {
                self.local_workers.displace(local_rank, pid);
            }
            return self.refuse(info, reason);
        }
        let started_here = |local_rank| self.local_workers.pid(local_rank) == Some(pid);
        let member = Member {
            host,
            pid,
            instance,
            local_rank,
            from_before: local_rank.is_some_and(|local_rank| !started_here(local_rank)),
            joined: self.now,
            scan: None,
            stage: Stage::Joined,
            decoding: None,
            retained: None,
            best: None,
            draining: false,
            heartbeat: None,
            assignment: None,
        };
        self.members.insert(worker, member);
        if let (Phase::Assembling(assembling), None, None) = (&mut self.phase, local_rank, former) {
            assembling.absent = assembling.absent.saturating_sub(1);
        }
        self.send(worker, Command::Registered);
        self.notify(Fact::Joined {
            member: info,
            members: self.members.len() - usize::from(former.is_some()),
            expected: self.recipe.workers,
        });
        if let Some(former) = former {
            let cause = LossCause::NewSession;
            self.dismiss(former, ShutdownReason::Removed(cause.clone()), false);
            self.drop_member(former, cause, Successor::None);
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
            if let Some(holder) = self.members.with_local_rank(local_rank) {
                return Err(RefusalReason::LocalRankTaken { local_rank, holder });
            }
            return self.local_workers.claim(local_rank, pid);
        }
        // The launcher's workers have their places, also when they come later.
        let (taken, limit) = (
            self.members.len() + self.vacant_local_ranks(),
            self.recipe.max_workers,
        );
        match taken >= limit {
            true => Err(RefusalReason::RunFull { limit }),
            false => Ok(()),
        }
    }

    pub(super) fn on_scanned(&mut self, worker: WorkerId, mut scan: Scan) {
        let member = self.members.get(worker);
        let Some(member) = member.filter(|member| member.stage == Stage::Joined) else {
            return;
        };
        let (host, is_local) = (member.host.clone(), member.local_rank.is_some());
        let accepted = self
            .compare(&host, &scan)
            .and_then(|()| Ok(self.dataset.adopt(&mut scan)?));
        match accepted {
            Ok(first) => {
                if first {
                    self.out
                        .extend(self.dataset.split_fact().map(Action::Notify));
                }
            }
            // Before anything is known, the first worker decides: but not on a resumed run, about
            // one that others started.
            Err(mismatch) if self.dataset.split().is_none() && (!self.resumed || is_local) => {
                return self.fail(mismatch.convert());
            }
            // The run is fine without it, and the same program would see the same again.
            Err(mismatch) => return self.expel(worker, mismatch.convert()),
        }
        self.out.extend(
            std::mem::take(&mut scan.warnings)
                .into_iter()
                .map(|warning| {
                    let host = host.clone();
                    Action::Notify(Fact::Warned { host, warning })
                }),
        );
        if let Some(member) = self.members.get_mut(worker) {
            let memory = scan.memory;
            // One of the last coordinator's, which may have recorded nothing of it.
            self.initialized |= memory.retained.is_some();
            // One that was in a group can read everything; others know only their own part.
            let split_known = self.dataset.split().is_some();
            let prepared = memory.prepared && memory.retained.is_some() && split_known;
            member.stage = match prepared {
                true => Stage::Ready,
                false => Stage::Scanned,
            };
            member.retained = memory.retained;
            member.best = memory.best;
            member.scan = Some(scan);
        }
        self.after_scan(worker);
    }

    /// Removes a member that cannot train; the run continues without it.
    pub(super) fn expel(&mut self, worker: WorkerId, reason: RefusalReason) {
        if let Some(member) = self.members.remove(worker) {
            let info = member.info(worker);
            self.failures.lose(Loss::Expelled {
                member: info.clone(),
                reason: reason.clone(),
            });
            self.local_workers.close(member.local_rank);
            self.refuse(info, reason);
        }
        self.go_on();
    }

    /// Whether a worker has the data and the kind of device that the others have.
    fn compare(&self, host: &str, scan: &Scan) -> Result<(), Mismatch> {
        let mut members = self.members.values();
        let other = members.find_map(|member| Some((&member.host, member.scan.as_ref()?)));
        if let Some((other_host, other_scan)) = other
            && other_scan.is_on_gpu() != scan.is_on_gpu()
        {
            let (gpu, cpu) = match scan.is_on_gpu() {
                true => (host.to_owned(), other_host.clone()),
                false => (other_host.clone(), host.to_owned()),
            };
            return Err(EnvironmentError::MixedDevices { gpu, cpu }.into());
        }
        let mut members = self.members.values();
        let holder = members.find(|member| {
            let other = member.scan.as_ref().map(|scan| scan.gpu_uuid.as_str());
            !scan.gpu_uuid.is_empty() && other == Some(&scan.gpu_uuid)
        });
        if let Some(holder) = holder {
            return Err(EnvironmentError::SharedGpu {
                host: host.to_owned(),
                holder: holder.host.clone(),
                gpu_uuid: scan.gpu_uuid.clone(),
            }
            .into());
        }
        let Some(known) = self.dataset.differs(&scan.fingerprint) else {
            return Ok(());
        };
        let error = DataError::Mismatch {
            known: DataFolder {
                host: other.map(|(host, _)| host.clone()),
                fingerprint: known.to_owned(),
            },
            other: DataFolder {
                host: Some(host.to_owned()),
                fingerprint: scan.fingerprint.clone(),
            },
            difference: self.dataset.first_difference(&scan.files),
        };
        Err(error.into())
    }

    /// Refuses a worker that is not a member, or no longer one.
    fn refuse(&mut self, member: MemberInfo, reason: RefusalReason) {
        let worker = member.worker;
        let fact = Fact::Refused {
            member,
            reason: reason.clone(),
        };
        self.notify(fact);
        self.dismiss(worker, ShutdownReason::Refused(reason), false);
    }
}

/// What a worker has that the run cannot use.
#[derive(Debug, thiserror::Error)]
enum Mismatch {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
}

impl Mismatch {
    /// As the error of the run, or as the reason why the worker is refused.
    fn convert<E: From<DataError> + From<EnvironmentError>>(self) -> E {
        match self {
            Self::Data(error) => error.into(),
            Self::Environment(error) => error.into(),
        }
    }
}
