//! The processes of the local launcher: one for each local rank, restarted when it dies,
//! a limited number of times.

use std::collections::BTreeMap;

use crate::event::RefusalReason;
use crate::run::Now;

/// How long workers may take to come back before others are started in their place: those of the
/// former coordinator on resuming, and the last one that retained a state.
pub(in crate::run) const REJOIN_GRACE: Now = Now::from_secs(3);

/// How long the first restart of a worker waits whose GPU could not be used.
const FIRST_PAUSE: Now = Now::from_secs(2);

/// What is known of the processes.
#[derive(Debug)]
pub(in crate::run) struct LocalWorkers {
    /// Local ranks below this one are the launcher's.
    count: u32,
    /// Restarts in a row, without a step, of one local rank.
    max_restarts: u32,
    /// A former coordinator may have started processes, which are not known.
    inherited: bool,
    workers: BTreeMap<u32, LocalWorker>,
}

#[derive(Debug, Default)]
struct LocalWorker {
    /// The process, as long as it runs.
    pid: Option<u32>,
    /// A start was asked for, and its process is not known yet.
    starting: bool,
    /// Since its last step.
    restarts: u32,
    /// No process is started any more.
    closed: bool,
    /// Its process is alive, and may open another session until then.
    rejoin_by: Option<Now>,
    /// The process of a member whose session broke, until it is known how the process ended.
    unexplained: Option<u32>,
    /// No process is started before.
    not_before: Option<Now>,
    /// A process that was refused, because another had its local rank.
    displaced: Option<u32>,
}

/// A process that was lost.
#[derive(Debug, Clone, Copy)]
pub(in crate::run) struct Lost {
    /// Its number.
    pub(in crate::run) pid: u32,
    /// The launcher of a former coordinator started it.
    pub(in crate::run) from_before: bool,
}

impl LocalWorkers {
    /// `count` processes, none of which was started yet.
    pub(in crate::run) fn new(count: u32, max_restarts: u32, inherited: bool) -> Self {
        Self {
            count,
            max_restarts,
            inherited,
            workers: BTreeMap::new(),
        }
    }

    /// Whether the launcher starts any.
    pub(in crate::run) fn are_launched(&self) -> bool {
        self.count > 0
    }

    /// Whether a local rank is this launcher's, and not another's.
    pub(in crate::run) fn includes(&self, local_rank: u32) -> bool {
        local_rank < self.count
    }

    /// The process of a local rank.
    pub(in crate::run) fn pid(&self, local_rank: u32) -> Option<u32> {
        self.workers.get(&local_rank)?.pid
    }

    /// Marks each process that is missing now as starting; returns their local ranks.
    pub(in crate::run) fn start_missing(
        &mut self,
        now: Now,
        has_member: impl Fn(u32) -> bool,
    ) -> Vec<u32> {
        if self.inherited && now < REJOIN_GRACE {
            return Vec::new();
        }
        let missing = (0..self.count).filter(|local_rank| !has_member(*local_rank));
        let missing: Vec<u32> = missing.collect();
        missing
            .into_iter()
            .filter(|local_rank| self.start_if_missing(now, *local_rank))
            .collect()
    }

    fn start_if_missing(&mut self, now: Now, local_rank: u32) -> bool {
        let Some(worker) = self.workers.get_mut(&local_rank) else {
            self.workers.entry(local_rank).or_default().starting = true;
            return true;
        };
        if worker.rejoin_by.is_some_and(|by| by <= now) {
            (worker.pid, worker.rejoin_by) = (None, None);
            return self.restart(local_rank, None);
        }
        if worker
            .not_before
            .is_some_and(|not_before| not_before <= now)
        {
            worker.not_before = None;
        }
        let idle = !worker.closed && !worker.starting && worker.pid.is_none();
        idle && self.restart(local_rank, None)
    }

    /// Marks the replacement of `lost` as starting; whether to start it. Not if the local rank has
    /// failed too often, or another process runs already.
    pub(in crate::run) fn restart(&mut self, local_rank: u32, lost: Option<Lost>) -> bool {
        let worker = self.workers.entry(local_rank).or_default();
        if worker.not_before.is_some() {
            return false;
        }
        if worker.starting || worker.pid.is_some() && worker.pid != lost.map(|lost| lost.pid) {
            return false;
        }
        worker.pid = None;
        // Those of a former launcher do not count: this one may yet start its own.
        let counts = lost.is_none_or(|lost| !lost.from_before);
        if worker.closed || counts && worker.restarts >= self.max_restarts {
            worker.closed = true;
            return false;
        }
        worker.restarts += u32::from(counts);
        worker.starting = true;
        true
    }

    /// Its process ends, and the next one is started after a pause, which doubles each time.
    pub(in crate::run) fn restart_later(&mut self, local_rank: u32, now: Now) {
        let worker = self.workers.entry(local_rank).or_default();
        worker.pid = None;
        worker.not_before = Some(now + FIRST_PAUSE * (1 << worker.restarts.min(4)));
    }

    /// The session of a member broke, which the end of its process may explain.
    pub(in crate::run) fn session_broke(&mut self, local_rank: u32, pid: u32) {
        self.workers.entry(local_rank).or_default().unexplained = Some(pid);
    }

    /// Whether the end of this process explains why a session broke. Asked once.
    pub(in crate::run) fn explains(&mut self, local_rank: u32, pid: u32) -> bool {
        let worker = self.workers.get_mut(&local_rank);
        worker.is_some_and(|worker| worker.unexplained.take_if(|lost| *lost == pid).is_some())
    }

    /// This process found its local rank taken. One that a former coordinator started may have it.
    pub(in crate::run) fn displace(&mut self, local_rank: u32, pid: u32) {
        if let Some(worker) = self.workers.get_mut(&local_rank) {
            worker.displaced = Some(pid);
        }
    }

    /// Whether this process ends because its local rank was taken. Asked once.
    pub(in crate::run) fn was_displaced(&mut self, local_rank: u32, pid: u32) -> bool {
        let worker = self.workers.get_mut(&local_rank);
        worker.is_some_and(|worker| worker.displaced.take_if(|it| *it == pid).is_some())
    }

    /// Its process is alive, and may open another session until `by`.
    pub(in crate::run) fn await_rejoin(&mut self, local_rank: u32, by: Now) {
        if let Some(worker) = self.workers.get_mut(&local_rank) {
            worker.rejoin_by = Some(by);
        }
    }

    /// No process is started any more: the worker was asked to end, or cannot work.
    pub(in crate::run) fn close(&mut self, local_rank: Option<u32>) {
        if let Some(local_rank) = local_rank {
            self.workers.entry(local_rank).or_default().closed = true;
        }
    }

    /// A worker that makes steps may be restarted as often again.
    pub(in crate::run) fn forgive(&mut self, local_rank: Option<u32>) {
        if let Some(worker) = local_rank.and_then(|rank| self.workers.get_mut(&rank)) {
            worker.restarts = 0;
        }
    }

    /// The launcher has started a process.
    pub(in crate::run) fn started(&mut self, local_rank: u32, pid: u32) {
        let worker = self.workers.entry(local_rank).or_default();
        worker.starting = false;
        worker.pid = Some(pid);
        worker.rejoin_by = None;
    }

    /// The launcher could not start a process, and would not the next time either.
    pub(in crate::run) fn launch_failed(&mut self, local_rank: u32) {
        let worker = self.workers.entry(local_rank).or_default();
        worker.starting = false;
        worker.closed = true;
    }

    /// A process ended. Whether its local rank is closed; `None` if it was not the current one.
    pub(in crate::run) fn exited(&mut self, local_rank: u32, pid: u32) -> Option<bool> {
        let worker = self.workers.get_mut(&local_rank)?;
        if worker.pid != Some(pid) {
            return None;
        }
        (worker.pid, worker.rejoin_by) = (None, None);
        Some(worker.closed)
    }

    /// A process runs, or is about to.
    pub(in crate::run) fn is_coming(&self, local_rank: u32) -> bool {
        let worker = self.workers.get(&local_rank);
        worker.is_some_and(|worker| !worker.closed && (worker.starting || worker.pid.is_some()))
    }

    /// Local ranks without a member that may yet get one.
    pub(in crate::run) fn vacant(&self, has_member: impl Fn(u32) -> bool) -> usize {
        let closed = |local_rank: &u32| {
            let worker = self.workers.get(local_rank);
            worker.is_some_and(|worker| worker.closed)
        };
        (0..self.count)
            .filter(|local_rank| !has_member(*local_rank) && !closed(local_rank))
            .count()
    }

    /// Whether a process may have the local rank that it claims, which no member has.
    pub(in crate::run) fn claim(&self, local_rank: u32, pid: u32) -> Result<(), RefusalReason> {
        if self.inherited || self.pid(local_rank) == Some(pid) {
            Ok(())
        } else {
            Err(RefusalReason::NotLaunched { local_rank, pid })
        }
    }
}
