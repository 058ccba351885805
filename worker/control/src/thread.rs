//! What the training thread does, one task after the other.
//!
//! ```text
//! Scan ─▶ Prepare ─▶ Assign ─▶ ( Plan ─▶ EpochResult )* ─▶ Finish ─▶ Shutdown
//!                           ▲             │ a peer or the coordinator is lost
//!                           └──── AbortGeneration ◀──┘
//! ```
//!
//! A broken group is not a failure of this worker: the worker reports it, retains its state, and
//! waits for the next order.

mod forming;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::inbox::{Grant, Inbox};
use crate::protocol::{
    Assignment, EpochPlan, EpochReport, EpochResult, Order, Phases, Report, RetainedState,
    SaveState, StepReport, TrainError, ValidationSum,
};
use crate::task::{Best, Done, State, Stepped, Task};

#[derive(Debug)]
enum Doing {
    Idle,
    Preparing,
    Rendezvous(Assignment),
    Broadcasting(Assignment),
    Training(Progress),
    Averaging(Progress),
    Validating(Progress),
    Copying(EpochResult),
    Predicting { generation: u64 },
}

/// An epoch, and the rank's progress in it.
#[derive(Debug)]
struct Progress {
    plan: Arc<EpochPlan>,
    /// Steps, and chunks, that the thread has begun.
    begun: usize,
    chunks_begun: usize,
    /// Steps whose results are known.
    steps: usize,
    sums: Vec<ValidationSum>,
    phases: Phases,
}

impl Progress {
    fn new(plan: Arc<EpochPlan>) -> Self {
        Self {
            plan,
            begun: 0,
            chunks_begun: 0,
            steps: 0,
            sums: Vec::new(),
            phases: Phases::default(),
        }
    }
}

/// The training thread's control flow. It owns the state and the best weights.
#[derive(Debug)]
pub struct Control<S: State> {
    /// Whether an epoch ends with [`Task::AverageBatchNorm`].
    averages: bool,
    prepared: bool,
    state: Option<S>,
    /// The state is being filled for the first time, and is not usable yet.
    incomplete: bool,
    best: Option<Best<S::Weights>>,
    /// Of the group that is formed.
    generation: Option<u64>,
    doing: Doing,
    /// Tasks before whatever else `doing` asks for.
    queue: VecDeque<Task>,
}

impl<S: State> Control<S> {
    /// A thread without a state. With `averages`, ranks average their BatchNorm statistics at
    /// the end of each epoch.
    pub fn new(averages: bool) -> Self {
        Self {
            averages,
            prepared: false,
            state: None,
            incomplete: false,
            best: None,
            generation: None,
            doing: Doing::Idle,
            queue: VecDeque::new(),
        }
    }

    /// The state, also one that is being filled.
    pub fn state(&self) -> Option<&S> {
        self.state.as_ref()
    }

    /// The same, for the task that changes it.
    pub fn state_mut(&mut self) -> Option<&mut S> {
        self.state.as_mut()
    }

    /// The copy of the best weights.
    pub fn best(&self) -> Option<&Best<S::Weights>> {
        self.best.as_ref()
    }

    /// What the worker keeps without a group.
    pub fn retained(&self) -> RetainedState {
        let state = self.state.as_ref().filter(|_| !self.incomplete);
        RetainedState {
            prepared: self.prepared,
            retained: state.map(State::position),
            best: self.best.as_ref().map(|best| best.epoch),
        }
    }

    /// The next task. Orders are taken from `inbox` one at a time, and only between tasks.
    pub fn next(&mut self, inbox: &mut Inbox) -> Task {
        loop {
            if let Some(task) = self.queue.pop_front() {
                if let Task::Broadcast(assignment) = &task {
                    self.catch_up(assignment);
                }
                return task;
            }
            match std::mem::replace(&mut self.doing, Doing::Idle) {
                Doing::Training(progress) => {
                    if let Some(task) = self.next_step(progress, inbox) {
                        return task;
                    }
                }
                Doing::Validating(progress) => {
                    if let Some(task) = self.next_chunk(progress, inbox) {
                        return task;
                    }
                }
                Doing::Idle => match inbox.pop() {
                    Some(order) => self.begin(order),
                    None => return Task::Wait,
                },
                // Its task is still being performed.
                busy => {
                    self.doing = busy;
                    return Task::Wait;
                }
            }
        }
    }

    /// Handles the result of the last task. [`TrainError::Collective`] breaks only the group; any
    /// other error ends the thread.
    pub fn done(&mut self, result: Result<Done<S>, TrainError>) {
        let done = match result {
            Ok(done) => done,
            Err(TrainError::Collective(message)) => {
                self.leave();
                let report = Report::GroupBroken { message };
                return self.queue.push_back(Task::Report(report));
            }
            Err(error) => return self.end(Err(error)),
        };
        // A task that was queued before the one that `doing` waits for has succeeded.
        let before = !self.queue.is_empty();
        match (std::mem::replace(&mut self.doing, Doing::Idle), done) {
            (doing, Done::Plain) if before => self.doing = doing,
            (Doing::Preparing, Done::Prepared(bad)) => {
                self.prepared = true;
                self.report(Report::Prepared { bad });
            }
            (Doing::Rendezvous(assignment), _) => self.joined(assignment),
            (Doing::Broadcasting(assignment), Done::Created(state)) => {
                self.state = Some(state);
                self.doing = Doing::Broadcasting(assignment);
            }
            (Doing::Broadcasting(assignment), _) => self.received(&assignment),
            (Doing::Training(progress), Done::Stepped(results)) => self.stepped(progress, results),
            (Doing::Averaging(progress), _) => self.doing = Doing::Validating(progress),
            (Doing::Validating(mut progress), Done::Validated { sums, seconds }) => {
                progress.sums.extend(sums);
                progress.phases.validation += seconds;
                self.doing = Doing::Validating(progress);
            }
            (Doing::Copying(result), Done::Copied(weights)) => {
                self.best = Some(Best {
                    epoch: result.epoch,
                    validation_loss: result.validation_loss,
                    weights,
                });
                self.next_epoch();
            }
            (Doing::Predicting { generation }, _) => self.report(Report::Finished { generation }),
            // A report or a checkpoint between two steps.
            (doing, _) => self.doing = doing,
        }
    }

    fn begin(&mut self, order: Order) {
        match order {
            Order::Scan => {
                self.leave();
                self.queue.push_back(Task::Scan(self.retained()));
            }
            Order::Prepare(prepare) => {
                self.doing = Doing::Preparing;
                self.queue.push_back(Task::Prepare(prepare));
            }
            Order::Assign(assignment) => {
                self.leave();
                self.doing = Doing::Rendezvous(assignment.clone());
                self.queue.push_back(Task::Rendezvous(assignment));
            }
            // A plan for a group that this worker has left meanwhile is ignored.
            Order::Plan(plan) if self.generation == Some(plan.generation) => {
                self.doing = Doing::Training(Progress::new(plan));
            }
            Order::Plan(_) => {}
            Order::EpochResult(result) => self.take_result(result),
            Order::AbortGeneration(generation) => {
                self.leave();
                self.report(Report::GenerationAborted {
                    generation,
                    retained: self.retained().retained,
                });
            }
            Order::SaveState(what) => self.save(what),
            Order::Finish {
                generation,
                predict,
            } if predict.is_empty() => {
                self.report(Report::Finished { generation });
            }
            Order::Finish {
                generation,
                predict,
            } => {
                self.doing = Doing::Predicting { generation };
                self.queue.push_back(Task::Predict(predict));
            }
            Order::Shutdown => self.end(Ok(())),
        }
    }

    /// Begins the next step once it is granted. Whatever else comes next, a checkpoint, a wait, or
    /// the end of the epoch, comes after the results of all steps so far.
    fn next_step(&mut self, mut progress: Progress, inbox: &mut Inbox) -> Option<Task> {
        let index = progress.begun;
        let settled = progress.steps == index;
        let ended = index == progress.plan.local_counts.len();
        if ended && settled {
            if !self.averages {
                self.doing = Doing::Validating(progress);
                return None;
            }
            self.doing = Doing::Averaging(progress);
            return Some(Task::AverageBatchNorm);
        }
        let grant = match ended {
            true => Grant::Wait,
            false => inbox.try_grant(progress.plan.completed + index as u32),
        };
        let task = match grant {
            Grant::Go => {
                progress.begun += 1;
                let plan = Arc::clone(&progress.plan);
                Task::Step { plan, index }
            }
            Grant::Checkpoint if settled => Task::Upload(SaveState::Checkpoint),
            Grant::Checkpoint => {
                let upload = Task::Upload(SaveState::Checkpoint);
                self.queue.push_back(upload);
                Task::Settle
            }
            Grant::Wait | Grant::Stop if !settled => Task::Settle,
            Grant::Wait => Task::Wait,
            Grant::Stop => return None,
        };
        self.doing = Doing::Training(progress);
        Some(task)
    }

    fn stepped(&mut self, mut progress: Progress, results: Vec<Stepped>) {
        let plan = Arc::clone(&progress.plan);
        for result in results {
            let samples = plan.local_counts[progress.steps];
            progress.steps += 1;
            progress.phases.add(&result.phases);
            self.report(Report::Step(StepReport {
                generation: plan.generation,
                epoch: plan.epoch,
                completed: plan.completed + progress.steps as u32,
                loss_sum: result.loss_sum,
                samples,
                seconds: result.seconds,
                phases: result.phases,
            }));
        }
        self.doing = Doing::Training(progress);
    }

    /// Validates chunk after chunk, until the epoch is done or cancelled.
    fn next_chunk(&mut self, mut progress: Progress, inbox: &Inbox) -> Option<Task> {
        if inbox.is_cancelled() {
            return None;
        }
        let (plan, index) = (Arc::clone(&progress.plan), progress.chunks_begun);
        if index < plan.validation.len() {
            progress.chunks_begun += 1;
            self.doing = Doing::Validating(progress);
            return Some(Task::Validate { plan, index });
        }
        if progress.sums.len() < index {
            self.doing = Doing::Validating(progress);
            return Some(Task::Settle);
        }
        let report = EpochReport {
            generation: plan.generation,
            epoch: plan.epoch,
            loss_sum: self.state.as_ref().map_or(0.0, State::loss_sum),
            samples: plan.local_counts.iter().sum(),
            validation: progress.sums,
            phases: progress.phases,
        };
        Some(Task::Report(Report::EpochDone(report)))
    }

    fn take_result(&mut self, result: EpochResult) {
        let epoch = self.state.as_ref().map(|state| state.position().epoch);
        match (epoch == Some(result.epoch), result.improved) {
            (true, true) => {
                self.doing = Doing::Copying(result);
                self.queue.push_back(Task::CopyWeights);
            }
            (true, false) => self.next_epoch(),
            // The state is of another epoch: it came from another rank.
            (false, _) => {}
        }
    }

    fn next_epoch(&mut self) {
        if let Some(state) = &mut self.state {
            state.next_epoch();
        }
    }

    fn save(&mut self, what: SaveState) {
        let retained = self.retained();
        let there = match what {
            SaveState::Best(epoch) => retained.best == Some(epoch),
            SaveState::Checkpoint => retained.retained.is_some(),
        };
        if there {
            return self.queue.push_back(Task::Upload(what));
        }
        let what = match what {
            SaveState::Best(epoch) => format!("the best weights of epoch {epoch}"),
            SaveState::Checkpoint => "a checkpoint".to_owned(),
        };
        let message = format!("the coordinator asked for {what}, which this worker does not have");
        self.end(Err(TrainError::Internal(message)));
    }

    /// Leaves the group. The changes of a failed step are reverted, and a state that is not
    /// complete is dropped.
    fn leave(&mut self) {
        if let Some(state) = &mut self.state {
            state.undo_step();
        }
        if std::mem::replace(&mut self.incomplete, false) {
            self.state = None;
        }
        self.generation = None;
        self.doing = Doing::Idle;
        self.queue.clear();
        self.queue.push_back(Task::Leave);
    }

    fn report(&mut self, report: Report) {
        self.queue.push_back(Task::Report(report));
    }

    fn end(&mut self, result: Result<(), TrainError>) {
        self.queue.clear();
        self.queue.push_back(Task::End(result));
    }
}
