//! Facts as the status that the page shows: the epochs so far, and each worker's last heartbeat.
//! The status is its only copy.

use std::time::{SystemTime, UNIX_EPOCH};

use super::view::RunView;
use crate::net::clock::unix_seconds;
use crate::observe::console::seconds_left;
use crate::observe::metrics::{RunState, WorkerState};
use crate::observe::status::{BestEpoch, Board, LearningRate, WorkerView};
use coordinator_core::event::{MemberInfo, Ranked, WaitReason};
use coordinator_core::schedule::by_group;
use coordinator_core::{Fact, WorkerId};

impl Board {
    /// Shows a fact; `view` has taken it into account.
    pub(super) fn apply(&mut self, fact: &Fact, view: &RunView) {
        if let Some(state) = view.entered {
            self.enter(state);
        }
        match fact {
            Fact::Joined {
                member,
                members,
                expected,
            } => self.joined(member, *members, *expected),
            Fact::Lost { member, .. } | Fact::Left { member } | Fact::Refused { member, .. } => {
                self.gone(member.worker);
            }
            Fact::Waiting(reason) => {
                self.change(|status| status.waiting_for = Some(reason.to_string()));
            }
            Fact::GroupFormed {
                generation, ranks, ..
            } => self.change(|status| {
                status.generation = *generation;
                status.world_size = ranks.len();
                status.workers = ranks.iter().enumerate().map(rank_view).collect();
            }),
            Fact::EpochStarted {
                epoch,
                completed,
                steps,
                lrs,
                ..
            } => self.change(|status| {
                status.waiting_for = None;
                status.epoch = *epoch;
                status.step = (*completed).into();
                status.steps_per_epoch = (*steps).into();
                status.learning_rates = by_group(*lrs)
                    .map(|(group, lr)| LearningRate {
                        group: group.to_owned(),
                        lr,
                    })
                    .collect();
            }),
            Fact::Step { rank, report } => {
                let made = report.completed.into();
                self.change_rank(*rank as usize, |rank| rank.step = made);
                self.show_completed_step(view);
            }
            Fact::EpochEnded { .. } | Fact::RolledBack { .. } => self.show_epochs(view),
            _ => {}
        }
    }

    /// The run is in another state.
    pub(super) fn enter(&mut self, state: RunState) {
        self.change(|status| state.label().clone_into(&mut status.state));
    }

    /// Shows the finished epochs, after any change of them.
    pub(super) fn show_epochs(&mut self, view: &RunView) {
        let epochs = &view.finished;
        self.change(|status| {
            status.history = epochs.to_vec();
            status.best = view.best().map(|epoch| BestEpoch {
                epoch: epoch.epoch,
                validation_loss: epoch.validation_loss,
                validation_accuracy: epoch.validation_accuracy,
            });
            status.epochs_without_improvement = view.stopping.wait;
            // Of a resumed run, before its first step.
            if status.epoch == 0 {
                status.epoch = epochs.last().map_or(0, |epoch| epoch.epoch);
            }
        });
    }

    fn show_completed_step(&mut self, view: &RunView) {
        let Some(step) = &view.completed else {
            return;
        };
        let last_epoch = view.finished.last().map(|epoch| epoch.seconds);
        let left = seconds_left(step, last_epoch);
        let ratios = view.straggler_ratios();
        self.change(|status| {
            for (rank, ratio) in status.workers.iter_mut().zip(ratios) {
                rank.straggler_ratio = Some(ratio);
            }
            status.step = step.step;
            status.train_loss = Some(step.loss);
            status.images_per_second = step.images_per_second;
            status.epoch_seconds_left = left.map(|(epoch, _)| epoch);
            status.run_seconds_left = left.map(|(_, run)| run);
        });
    }

    /// The predictions were drawn, or drawn again.
    pub(super) fn predictions_drawn(&mut self, at: SystemTime) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.change(|status| status.predictions_timestamp = Some(since.as_secs_f64()));
    }

    /// A worker joined: until the next group is formed it has no rank.
    fn joined(&mut self, member: &MemberInfo, members: usize, expected: usize) {
        let newcomer = WorkerView {
            worker: member.worker,
            rank: None,
            host: member.host.clone(),
            device: String::new(),
            state: WorkerState::Joined.label().to_owned(),
            step: 0,
            straggler_ratio: None,
            heartbeat_timestamp: Some(unix_seconds()),
        };
        let missing = expected.saturating_sub(members);
        let waiting = (missing > 0).then(|| WaitReason::Workers { missing }.to_string());
        self.change(|status| {
            // Later the core says what the run waits for.
            if status.generation == 0 && status.state == RunState::Waiting.label() {
                status.waiting_for = waiting;
            }
            status.workers.push(newcomer);
        });
    }

    /// A worker is no member any more: a rank is shown as lost, until another holds it.
    fn gone(&mut self, worker: WorkerId) {
        self.change(|status| {
            status.workers.retain_mut(|view| {
                let gone = view.worker == worker;
                if gone {
                    WorkerState::Lost.label().clone_into(&mut view.state);
                }
                !gone || view.rank.is_some()
            });
        });
    }

    /// Changes what is shown of a rank; of 1,000 too, many times a second.
    pub(super) fn change_rank(&mut self, rank: usize, change: impl FnOnce(&mut WorkerView)) {
        self.change(|status| {
            if let Some(view) = status.workers.get_mut(rank) {
                change(view);
            }
        });
    }
}

/// A rank of a new group.
fn rank_view((rank, of): (usize, &Ranked)) -> WorkerView {
    WorkerView {
        worker: of.worker,
        rank: Some(rank),
        host: of.host.clone(),
        device: of.device.clone(),
        state: WorkerState::Healthy.label().to_owned(),
        step: 0,
        straggler_ratio: None,
        heartbeat_timestamp: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use coordinator_core::event::{Backend, ComputeType, RefusalReason};
    use coordinator_core::schedule::GroupLrs;
    use tokio::sync::watch;

    use super::*;
    use crate::observe::status::Status;

    fn member(worker: u64) -> MemberInfo {
        MemberInfo {
            worker: WorkerId(worker),
            host: "host".to_owned(),
            rank: None,
            local_rank: None,
        }
    }

    fn joined(worker: u64, members: usize) -> Fact {
        Fact::Joined {
            member: member(worker),
            members,
            expected: 2,
        }
    }

    #[test]
    fn workers_that_come_and_go_leave_no_trace_and_stop_no_run() {
        let first = Status::waiting("one".to_owned(), 2, 15);
        let (publish, shown) = watch::channel(Arc::new(first.clone()));
        let mut board = Board::new(first, publish);
        let mut view = RunView::new(15);
        let mut tell = |fact: Fact| {
            view.apply(&fact);
            board.apply(&fact, &view);
            board.publish();
            shown.borrow().clone()
        };
        let waiting = tell(joined(0, 1)).waiting_for.clone();
        assert_eq!(waiting.as_deref(), Some("1 more worker"));
        tell(Fact::GroupFormed {
            generation: 1,
            ranks: vec![Ranked {
                worker: WorkerId(0),
                host: "host".to_owned(),
                device: "cpu".to_owned(),
                gpu_uuid: String::new(),
            }],
            backend: Backend::Gloo,
            precision: ComputeType::Fp32,
        });
        tell(Fact::EpochStarted {
            epoch: 1,
            completed: 0,
            steps: 3,
            world_size: 1,
            lrs: GroupLrs::default(),
        });
        let status = tell(joined(1, 1));
        assert_eq!((status.workers.len(), &status.waiting_for), (2, &None));
        let member = member(1);
        let reason = RefusalReason::RunEnding;
        let status = tell(Fact::Refused { member, reason });
        assert_eq!(status.workers.len(), 1);
        let member = self::member(0);
        let status = tell(Fact::Left { member });
        assert_eq!(status.workers[0].state, WorkerState::Lost.label());
    }
}
