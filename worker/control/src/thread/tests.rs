//! What the simulation cannot play, because a correct coordinator never asks for it; and errors.

use super::*;
use crate::protocol::{Backend, Origin, Position, Precision, Prepare};

/// A state that is only its position.
#[derive(Debug)]
struct Marker(Position);

impl State for Marker {
    type Weights = ();

    fn position(&self) -> Position {
        self.0
    }

    fn loss_sum(&self) -> f64 {
        0.0
    }

    fn next_epoch(&mut self) {
        self.0 = at(self.0.epoch + 1, 0);
    }

    fn undo_step(&mut self) {}
}

fn at(epoch: u32, completed: u32) -> Position {
    Position { epoch, completed }
}

fn assignment(origin: Origin, position: Position) -> Assignment {
    Assignment {
        generation: 7,
        rank: 0,
        world_size: 1,
        store: None,
        backend: Backend::Gloo,
        precision: Precision::Fp32,
        origin,
        source: 0,
        position,
        threads: 1,
    }
}

/// Performs tasks until one of them is `until`, or the thread waits or ends.
fn perform(control: &mut Control<Marker>, order: Order, until: fn(&Task) -> bool) -> Task {
    let mut inbox = Inbox::default();
    inbox.push(order);
    loop {
        let task = control.next(&mut inbox);
        if until(&task) || matches!(task, Task::Wait | Task::End(_)) {
            return task;
        }
        control.done(Ok(match &task {
            Task::Create { .. } => Done::Created(Marker(at(1, 0))),
            _ => Done::Plain,
        }));
    }
}

fn message(task: Task) -> String {
    match task {
        Task::End(Err(TrainError::Internal(message))) => message,
        other => panic!("no internal error: {other:?}"),
    }
}

fn nothing(_: &Task) -> bool {
    false
}

#[test]
fn what_is_not_held_is_an_error_that_names_it() {
    for (what, name) in [
        (SaveState::Best(3), "the best weights of epoch 3"),
        (SaveState::Checkpoint, "a checkpoint"),
    ] {
        let mut control = Control::new(false);
        let text = message(perform(&mut control, Order::SaveState(what), nothing));
        assert!(text.contains(name), "{text}");
    }
    let order = Order::Assign(assignment(Origin::Retained, at(1, 0)));
    let text = message(perform(&mut Control::new(false), order, nothing));
    assert!(text.contains("does not have"), "{text}");
}

#[test]
fn a_generation_that_begins_elsewhere_than_its_state_is_an_error() {
    let order = Order::Assign(assignment(Origin::Fresh, at(1, 4)));
    let text = message(perform(&mut Control::new(false), order, nothing));
    assert!(text.contains("generation 7"), "{text}");
}

#[test]
fn a_state_that_was_never_complete_is_dropped_with_its_group() {
    let mut control = Control::new(false);
    let order = || Order::Assign(assignment(Origin::Fresh, at(1, 0)));
    let share = |task: &Task| matches!(task, Task::Broadcast(_));
    assert!(share(&perform(&mut control, order(), share)));
    assert_eq!(control.retained().retained, None);
    control.done(Err(TrainError::Collective("a peer is gone".to_owned())));
    assert!(control.state().is_none());
    // The next one is complete, and stays when its group breaks.
    assert_eq!(perform(&mut control, order(), nothing), Task::Wait);
    assert_eq!(control.retained().retained, Some(at(1, 0)));
    control.done(Err(TrainError::Collective("a peer is gone".to_owned())));
    assert_eq!(control.retained().retained, Some(at(1, 0)));
}

#[test]
fn any_other_error_ends_the_thread_whatever_was_to_follow() {
    let mut control = Control::<Marker>::new(false);
    let prepare = Order::Prepare(Prepare {
        samples: vec![0],
        cache_file: None,
        threads: 1,
    });
    let decodes = |task: &Task| matches!(task, Task::Prepare(_));
    assert!(decodes(&perform(&mut control, prepare, decodes)));
    let error = TrainError::Data("no images".to_owned());
    control.done(Err(error.clone()));
    let mut inbox = Inbox::default();
    inbox.push(Order::Scan);
    assert_eq!(control.next(&mut inbox), Task::End(Err(error)));
}
