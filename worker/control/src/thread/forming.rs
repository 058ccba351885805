//! How a worker joins a process group, and gets the state with which all of its ranks begin.

use super::{Control, Doing};
use crate::protocol::{Assignment, Origin, Report, TrainError};
use crate::task::{State, Task};

impl Assignment {
    fn is_source(&self) -> bool {
        self.rank == self.source
    }
}

impl<S: State> Control<S> {
    /// The group is complete. An existing state stays until all of the common one has arrived.
    pub(super) fn joined(&mut self, assignment: Assignment) {
        if assignment.origin == Origin::Fresh {
            self.state = None;
        }
        let source = assignment.is_source();
        if self.state.is_none() {
            if source && assignment.origin == Origin::Retained {
                let message = "this rank has to broadcast a state that it does not have".to_owned();
                return self.end(Err(TrainError::Internal(message)));
            }
            self.incomplete = true;
            let pretrained = source && assignment.origin == Origin::Fresh;
            self.queue.push_back(Task::Create { pretrained });
        }
        if source && assignment.origin == Origin::Checkpoint {
            let task = Task::LoadCheckpoint(assignment.position);
            self.queue.push_back(task);
        }
        self.queue.push_back(Task::Broadcast(assignment.clone()));
        self.doing = Doing::Broadcasting(assignment);
    }

    /// The coordinator has completed an epoch whose result has not reached this worker.
    pub(super) fn catch_up(&mut self, assignment: &Assignment) {
        if let Some(state) = &mut self.state
            && assignment.is_source()
            && assignment.position.epoch > state.position().epoch
        {
            state.next_epoch();
        }
    }

    /// All ranks have the source's state.
    pub(super) fn received(&mut self, assignment: &Assignment) {
        let at = self.state.as_ref().map(State::position);
        if at != Some(assignment.position) {
            return self.end(Err(TrainError::Internal(format!(
                "generation {} begins at {:?}, but its state is at {at:?}",
                assignment.generation, assignment.position
            ))));
        }
        self.incomplete = false;
        self.generation = Some(assignment.generation);
        self.report(Report::GroupReady {
            generation: assignment.generation,
        });
    }
}
