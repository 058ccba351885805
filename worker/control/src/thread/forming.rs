//! How a worker gets into a group, and to the state with which all of its ranks begin.

use super::{Control, Doing};
use crate::protocol::{Assignment, Origin, Report, TrainError};
use crate::task::{State, Task};

impl Assignment {
    fn is_source(&self) -> bool {
        self.rank == self.source
    }
}

impl<S: State> Control<S> {
    /// The group has met. A state that is there stays until all of the common one has arrived.
    pub(super) fn met(&mut self, assignment: Assignment) {
        if assignment.origin == Origin::Fresh {
            self.state = None;
        }
        let source = assignment.is_source();
        if self.state.is_none() {
            if source && assignment.origin == Origin::Retained {
                let message = "this rank is to share a state that it does not hold".to_owned();
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
        self.queue.push_back(Task::Share(assignment.clone()));
        self.doing = Doing::Sharing(assignment);
    }

    /// The coordinator knows of an epoch whose result has not reached this worker.
    pub(super) fn catch_up(&mut self, assignment: &Assignment) {
        if let Some(state) = &mut self.state
            && assignment.is_source()
            && assignment.position.epoch > state.position().epoch
        {
            state.next_epoch();
        }
    }

    /// All ranks hold the source's state.
    pub(super) fn shared(&mut self, assignment: &Assignment) {
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
