//! A simulated worker process: its state, its start and its end.

use std::collections::BTreeSet;
use std::sync::Arc;

use worker_control::{Control, EpochPlan, Inbox, Report, Session, Stepped, Task, ValidationSum};

use super::cluster::{Blob, Cluster, Item};
use super::lineage::State;
use crate::event::{Activity, Event, Position, ProcessStatus};

/// The kind of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    OtherData,
    OtherDevice,
    /// Not a worker: a client that sends arbitrary messages.
    Rogue,
}

/// What the training thread is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// It waits for its inbox.
    Idle,
    Scanning,
    Preparing,
    Fetching,
    Rendezvous,
    Broadcasting,
    Computing,
    Reducing,
    Averaging,
    Validating,
    Predicting,
    /// The process is about to end, and waits for its uploads.
    Uploading,
}

pub(super) struct Process {
    pub(super) kind: Kind,
    pub(super) local_rank: Option<u32>,
    /// The coordinator whose launcher started it.
    pub(super) parent: Option<u32>,
    pub(super) alive: bool,
    /// The process is stopped until then.
    pub(super) frozen: Option<u64>,
    /// Its thread hangs.
    pub(super) hung: bool,
    pub(super) session: Option<usize>,
    /// Sessions that broke so far.
    pub(super) breaks: u64,
    /// The worker's side of the session, once the coordinator has accepted it.
    pub(super) link: Option<Session>,
    pub(super) inbox: Inbox,
    pub(super) control: Control<State>,
    /// What the thread performs.
    pub(super) task: Task,
    pub(super) doing: Doing,
    pub(super) uploads: u32,
    /// A report that waits for the uploads.
    pub(super) finished: Option<Report>,
    pub(super) since: u64,
    pub(super) place: (u64, Position),
    pub(super) token: u64,
    pub(super) cache: Option<Cache>,
    /// Its ring, and its rank there.
    pub(super) assignment: Option<(usize, u32)>,
    /// The number of the collective that it has entered in its ring.
    pub(super) waits_for: Option<u32>,
    /// The epoch that it trains, and the next step of that.
    pub(super) step: Option<(Arc<EpochPlan>, usize)>,
    /// Results that its device has yet to return.
    pub(super) late: Late,
}

/// Results of steps or of chunks.
#[derive(Default)]
pub(super) struct Late {
    pub(super) steps: Vec<Stepped>,
    pub(super) sums: Vec<ValidationSum>,
}

/// Where the images are decoded.
pub(super) enum Cache {
    Own(BTreeSet<u32>),
    /// That of a coordinator.
    Shared(u32),
}

impl Process {
    fn new(kind: Kind, local_rank: Option<u32>, parent: Option<u32>, averages: bool) -> Self {
        Self {
            kind,
            local_rank,
            parent,
            alive: true,
            frozen: None,
            hung: false,
            session: None,
            breaks: 0,
            link: None,
            inbox: Inbox::default(),
            control: Control::new(averages),
            task: Task::Wait,
            doing: Doing::Idle,
            uploads: 0,
            finished: None,
            since: 0,
            place: (0, Position::start_of(0)),
            token: 0,
            cache: None,
            assignment: None,
            waits_for: None,
            step: None,
            late: Late::default(),
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.link.as_ref().is_some_and(Session::is_draining)
    }

    pub(super) fn is_blocked(&self) -> bool {
        use Doing::{Averaging, Broadcasting, Reducing, Rendezvous};
        matches!(self.doing, Averaging | Broadcasting | Reducing | Rendezvous)
    }

    pub(super) fn activity(&self) -> Activity {
        match self.doing {
            Doing::Idle | Doing::Scanning | Doing::Predicting | Doing::Uploading => Activity::Idle,
            Doing::Preparing => Activity::Preparing,
            Doing::Fetching | Doing::Rendezvous | Doing::Broadcasting => Activity::Forming,
            Doing::Computing => Activity::DataWait,
            Doing::Reducing => Activity::Backward,
            Doing::Averaging | Doing::Validating => Activity::Validation,
        }
    }
}

impl Cluster {
    /// A process is started; it connects a little later.
    pub(super) fn spawn(
        &mut self,
        kind: Kind,
        local_rank: Option<u32>,
        parent: Option<u32>,
    ) -> usize {
        let pid = self.processes.len();
        let averages = self.scenario.averages;
        self.processes
            .push(Process::new(kind, local_rank, parent, averages));
        let delay = self.between(20, 1_500);
        self.after(delay, Item::Connect(pid));
        pid
    }

    /// The process ends; its last messages may still arrive.
    pub(super) fn end_process(&mut self, pid: usize, signalled: bool) {
        let process = &mut self.processes[pid];
        if !std::mem::replace(&mut process.alive, false) {
            return;
        }
        process.token += 1;
        let assignment = process.assignment.take();
        let (session, local_rank, parent) =
            (process.session.take(), process.local_rank, process.parent);
        if let Some(sid) = session {
            let heard = self.one_in(2);
            self.close_session(sid, heard);
        }
        if let Some((ring, _)) = assignment {
            self.break_ring(ring);
        }
        let delay = self.between(0, 100);
        match (local_rank, parent) {
            (Some(local_rank), Some(parent)) if Some(parent) == self.incarnation() => {
                let exited = Event::ProcessExited {
                    local_rank,
                    pid: pid as u32,
                    status: match signalled {
                        true => ProcessStatus::Signal(9),
                        false => ProcessStatus::Code(1),
                    },
                };
                self.after(delay, Item::Local(parent, exited));
            }
            (None, _) => self.schedule_manual_start(),
            _ => {}
        }
    }

    fn schedule_manual_start(&mut self) {
        if self.scenario.recipe.local_ranks == 0 && !self.one_in(4) {
            let delay = self.between(100, 4_000);
            self.after(delay, Item::Supervise);
        }
    }

    /// An operator, or an orchestrator, restarts the workers that no launcher starts.
    pub(super) fn supervise(&mut self) {
        let usable = |p: &&super::process::Process| {
            p.alive && p.kind == Kind::Normal && p.frozen != Some(u64::MAX) && !p.is_draining()
        };
        let running = self.processes.iter().filter(usable).count();
        if running < self.scenario.recipe.workers && self.scenario.recipe.local_ranks == 0 {
            self.spawn(Kind::Normal, None, None);
        }
    }

    /// Whether a process has these samples decoded.
    pub(super) fn can_read(&self, pid: usize, samples: &[u32]) -> bool {
        let decoded = match &self.processes[pid].cache {
            None => return false,
            Some(Cache::Own(decoded)) => decoded,
            Some(Cache::Shared(of)) => match self.shared_caches.get(of) {
                Some(decoded) => decoded,
                None => return samples.is_empty(),
            },
        };
        samples.iter().all(|sample| decoded.contains(sample))
    }

    /// Uploads a blob while the thread continues.
    pub(super) fn upload(&mut self, pid: usize, blob: Blob) {
        let Some(sid) = self.processes[pid].session else {
            return;
        };
        self.processes[pid].uploads += 1;
        let delay = if self.one_in(4) {
            self.between(0, 700)
        } else {
            self.between(1, 100)
        };
        let at = self.sessions[sid].last_upload.max(self.now) + delay;
        self.sessions[sid].last_upload = at;
        self.at(at, Item::Blob(sid, blob));
    }
}
