//! A run that another coordinator began.

use super::*;
use crate::event::{Origin, ProcessStatus};
use crate::split::Split;

fn resumed(validation_losses: &[f64], checkpoint: Option<Position>) -> Resumed {
    let split = Split::new(&[0, 1, 2, 3, 4, 5, 6, 7], 0.25, 1).unwrap();
    let paths = |set: &[u32]| set.iter().map(|n| format!("a/{n}.jpg")).collect();
    Resumed {
        fingerprint: "same".to_owned(),
        train: paths(&split.train),
        validation: paths(&split.validation),
        validation_losses: validation_losses.to_vec(),
        best_epoch: None,
        checkpoint,
        generation: 3,
    }
}

#[test]
fn a_process_that_came_too_late_is_not_restarted() {
    let mut bench = Bench::new(Run::resume(recipe(1, 1), resumed(&[], None)));
    bench.now = Now::from_secs(4);
    assert_eq!(launched(&bench.tell(Event::Tick)), [0]);
    bench.started(0, 500);
    // A worker of the former coordinator is there first, and the new one is refused.
    bench.join(0, Some(0), RetainedState::default());
    let exited = bench.tell(Event::ProcessExited {
        local_rank: 0,
        pid: 500,
        status: ProcessStatus::Code(1),
    });
    assert!(launched(&exited).is_empty());
    assert_eq!(outcome(&exited), None);
}

#[test]
fn a_resumed_run_with_nothing_left_to_train_ends() {
    let mut recipe = recipe(1, 0);
    recipe.schedule.epochs = 2;
    let past = Resumed {
        best_epoch: Some(2),
        ..resumed(&[0.5, 0.4], Some(Position::start_of(2)))
    };
    let mut bench = Bench::new(Run::resume(recipe, past));
    bench.join(0, None, RetainedState::default());
    let prepared = bench.prepared(0);
    assert_eq!(outcome(&prepared), Some(&Ok(StopReason::MaxEpochs)));
}

#[test]
fn a_checkpoint_of_a_whole_epoch_is_taken_as_it_is_stored() {
    let whole = Position {
        epoch: 1,
        completed: 3,
    };
    let past = Resumed {
        best_epoch: Some(1),
        ..resumed(&[0.5], Some(whole))
    };
    let mut bench = Bench::new(Run::resume(recipe(1, 0), past));
    bench.join(0, None, RetainedState::default());
    bench.prepared(0);
    let found = bench.tell(Event::CheckpointFound {
        position: Some(whole),
    });
    let position = sent(&found).iter().find_map(|(_, command)| match command {
        Command::Assign {
            origin, position, ..
        } => Some((*origin, *position)),
        _ => None,
    });
    assert_eq!(position, Some((Origin::Checkpoint, whole)));
    let back = |action: &Action| matches!(action, Action::Notify(Fact::RolledBack { position, .. }) if *position == whole);
    assert!(found.iter().any(back), "{found:?}");
}

#[test]
fn a_late_worker_decodes_what_others_only_began_to() {
    let retained = RetainedState {
        prepared: true,
        retained: Some(Position::start_of(1)),
        best: None,
    };
    let mut recipe = recipe(3, 3);
    recipe.min_workers = 1;
    let mut bench = Bench::new(Run::resume(recipe, resumed(&[], None)));
    for local_rank in 0..3 {
        bench.join(local_rank, Some(local_rank as u32), retained);
    }
    // Two of three die while the run assembles, and two fresh ones come in their places.
    for local_rank in 1..3 {
        bench.lose(local_rank);
        bench.started(local_rank as u32, 110 + local_rank as u32);
    }
    let told = |actions: &[Action]| {
        let orders = sent(actions)
            .into_iter()
            .filter_map(|(_, command)| match command {
                Command::Prepare { samples, .. } => Some(samples.len()),
                _ => None,
            });
        orders.collect::<Vec<_>>()
    };
    assert_eq!(
        told(&bench.join(11, Some(1), RetainedState::default())),
        [8]
    );
    assert_eq!(
        told(&bench.join(12, Some(2), RetainedState::default())),
        [8]
    );
}

#[test]
fn processes_of_a_former_launcher_use_up_no_restart() {
    let mut recipe = recipe(1, 1);
    recipe.max_restarts = 0;
    let mut bench = Bench::new(Run::resume(recipe, resumed(&[], None)));
    bench.join(0, Some(0), RetainedState::default());
    let lost = bench.lose(0);
    assert_eq!(launched(&lost), [0]);
    assert_eq!(outcome(&lost), None);
    bench.started(0, 107);
    bench.join(7, Some(0), RetainedState::default());
    let lost = bench.lose(7);
    assert!(launched(&lost).is_empty(), "its own was the last");
}

#[test]
fn the_last_holder_of_a_state_may_rejoin_while_its_process_lives() {
    let mut bench = Bench::new(Run::new(recipe(1, 1)));
    bench.tell(Event::Tick);
    bench.started(0, 100);
    let worker = WorkerId(0);
    bench.join(0, Some(0), RetainedState::default());
    bench.prepared(0);
    let generation = 1;
    bench.tell(Event::GroupReady { worker, generation });
    bench.step(0, 1, 1.0);

    let lost = bench.tell(Event::Lost { worker });
    assert!(launched(&lost).is_empty(), "{lost:?}");
    bench.now = Now::from_secs(2);
    assert!(launched(&bench.tell(Event::Tick)).is_empty());
    bench.now = Now::from_secs(3);
    assert_eq!(launched(&bench.tell(Event::Tick)), [0]);
}

#[test]
fn a_drained_claim_leaves_the_local_rank_free() {
    let mut bench = Bench::new(Run::resume(recipe(1, 1), resumed(&[], None)));
    let worker = WorkerId(0);
    bench.tell(Event::Joined {
        worker,
        host: "host".to_owned(),
        pid: 100,
        instance: 1,
        local_rank: Some(0),
    });
    let left = bench.tell(Event::Draining { worker });
    assert_eq!(outcome(&left), None);
    bench.now = Now::from_secs(4);
    assert_eq!(launched(&bench.tell(Event::Tick)), [0]);
}

#[test]
fn workers_of_a_run_that_had_not_begun_may_rejoin() {
    let mut bench = Bench::new(Run::inherit(recipe(2, 2)));
    assert!(launched(&bench.tell(Event::Tick)).is_empty());
    let back = bench.join(0, Some(0), RetainedState::default());
    assert_eq!(sent(&back)[0], (0, &Command::Registered));
    bench.now = Now::from_secs(4);
    assert_eq!(launched(&bench.tell(Event::Tick)), [1]);
}

#[test]
fn a_run_that_is_interrupted_before_its_workers_are_back_is_resumed_again() {
    let past = resumed(&[0.5], Some(Position::start_of(2)));
    let mut bench = Bench::new(Run::resume(recipe(1, 0), past));
    assert_eq!(outcome(&bench.tell(Event::Interrupt)), None);
    let position = Some(Position::start_of(2));
    let found = bench.tell(Event::CheckpointFound { position });
    let absent = RunError::BestWeightsAbsent { epoch: 1 };
    assert_eq!(outcome(&found), Some(&Err(absent)));
}
