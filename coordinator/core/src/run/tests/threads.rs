//! How many CPU threads workers are told to compute with.

use super::*;
use crate::event::Processors;

/// A worker on a machine of four processors, which has reported them.
fn join(bench: &mut Bench, id: u64) -> Vec<Action> {
    let processors = Processors {
        machine: "one".to_owned(),
        ids: (0..4).collect(),
        threads: 4,
        ..Processors::default()
    };
    bench.join_with(
        id,
        None,
        Scan {
            processors,
            ..scan()
        },
    )
}

fn threads(actions: &[Action]) -> Vec<(u64, u32)> {
    let told = sent(actions).into_iter();
    let told = told.filter_map(|(worker, command)| match command {
        Command::Prepare { threads, .. } | Command::Assign { threads, .. } => {
            Some((worker, *threads))
        }
        _ => None,
    });
    told.collect()
}

/// Both assigned, and in their group.
fn formed(bench: &mut Bench) -> Vec<Action> {
    bench.prepared(0);
    let mut actions = bench.prepared(1);
    actions.extend(bench.tell(Event::StoreListening {
        worker: WorkerId(0),
        generation: 1,
        address: "host:1".to_owned(),
    }));
    for id in 0..2 {
        let (worker, generation) = (WorkerId(id), 1);
        actions.extend(bench.tell(Event::GroupReady { worker, generation }));
    }
    actions
}

#[test]
fn the_workers_of_a_machine_share_its_processors_anew_in_each_generation() {
    let mut recipe = recipe(2, 0);
    recipe.rejoin_timeout = Duration::ZERO;
    let mut bench = Bench::new(Run::new(recipe));
    join(&mut bench, 0);
    assert_eq!(threads(&join(&mut bench, 1)), [(0, 2), (1, 2)]);
    let actions = formed(&mut bench);
    assert_eq!(threads(&actions), [(0, 2), (1, 2)]);
    let excess = |action: &Action| matches!(action, Action::Notify(Fact::TooManyThreads { .. }));
    assert!(!actions.iter().any(excess), "{actions:?}");

    let mut actions = bench.lose(1);
    actions.extend(bench.tell(Event::GenerationAborted {
        worker: WorkerId(0),
        generation: 1,
        retained: Some(Position::start_of(1)),
    }));
    assert_eq!(threads(&actions), [(0, 4)]);
}

#[test]
fn threads_that_the_user_chose_win_and_are_warned_of() {
    let mut recipe = recipe(2, 0);
    recipe.threads_per_worker = Some(3);
    let mut bench = Bench::new(Run::new(recipe));
    join(&mut bench, 0);
    assert_eq!(threads(&join(&mut bench, 1)), [(0, 3), (1, 3)]);
    let actions = formed(&mut bench);
    let excess = Fact::TooManyThreads {
        host: "host".to_owned(),
        workers: 2,
        threads: 6,
        processors: 4,
    };
    assert!(actions.contains(&Action::Notify(excess)), "{actions:?}");
}

#[test]
fn a_worker_that_decodes_beside_ranks_that_train_takes_no_processor_from_them() {
    let mut recipe = recipe(2, 0);
    recipe.max_workers = 3;
    let mut bench = Bench::new(Run::new(recipe));
    join(&mut bench, 0);
    join(&mut bench, 1);
    formed(&mut bench);
    assert_eq!(threads(&join(&mut bench, 2)), [(2, 1)]);
}
