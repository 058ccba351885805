//! How the workers of a machine share its processors.
//!
//! In the backward pass of a convolution, oneDNN's threads meet at a barrier of its own, which spins
//! in generated code and never yields; OMP_WAIT_POLICY does not change that. Where a machine has more
//! such threads than processors, one at the barrier keeps the processor from one that it waits for.
//! Two workers with two threads each, on two processors, spent 86 % of their time in that one loop,
//! and trained 28 images/s; with one thread each, 233.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Processors;

/// CPU threads of each worker, in the order of `workers`, and at least 1. Those of one machine
/// share its processors evenly, but for what one of them cannot use.
pub fn shares(workers: &[&Processors]) -> Vec<u32> {
    let mut shares = vec![1; workers.len()];
    for mut places in machines(workers).into_values() {
        let mut left = processors(places.iter().map(|place| workers[*place]));
        places.sort_by_key(|place| workers[*place].threads);
        for (place, after) in places.iter().zip((0..places.len() as u32).rev()) {
            let share = workers[*place].threads.min(left / (after + 1)).max(1);
            shares[*place] = share;
            left = left.saturating_sub(share);
        }
    }
    shares
}

/// Where `threads` are more than the processors of their machine: the first worker there, the
/// threads and the processors.
pub fn excess(workers: &[&Processors], threads: &[u32]) -> Option<(usize, u32, u32)> {
    machines(workers).into_values().find_map(|places| {
        let threads: u32 = places.iter().map(|place| threads[*place]).sum();
        let processors = processors(places.iter().map(|place| workers[*place]));
        (threads > processors).then(|| (places[0], threads, processors))
    })
}

/// The workers of each machine. One that names none has a machine of its own.
fn machines<'a>(workers: &[&'a Processors]) -> BTreeMap<(&'a str, usize), Vec<usize>> {
    let mut machines = BTreeMap::<_, Vec<usize>>::new();
    for (place, worker) in workers.iter().enumerate() {
        let alone = if worker.machine.is_empty() { place } else { 0 };
        let of = machines.entry((worker.machine.as_str(), alone));
        of.or_default().push(place);
    }
    machines
}

/// Those that at least one of them may use.
fn processors<'a>(workers: impl Iterator<Item = &'a Processors>) -> u32 {
    let ids: BTreeSet<u32> = workers
        .flat_map(|worker| worker.ids.iter().copied())
        .collect();
    (ids.len() as u32).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn on(machine: &str, ids: std::ops::Range<u32>, threads: u32) -> Processors {
        Processors {
            machine: machine.to_owned(),
            ids: ids.collect(),
            threads,
        }
    }

    fn shared(workers: &[Processors]) -> Vec<u32> {
        shares(&workers.iter().collect::<Vec<_>>())
    }

    #[test]
    fn workers_of_a_machine_share_its_processors() {
        let whole = || on("a", 0..8, 8);
        assert_eq!(shared(&[whole()]), [8]);
        assert_eq!(shared(&[whole(), on("b", 0..2, 2), whole()]), [4, 2, 4]);
        assert_eq!(shared(&[whole(), whole(), whole()]), [2, 3, 3]);
        // A cgroup gives one of them less, and the others have the rest.
        assert_eq!(shared(&[on("a", 0..8, 1), whole()]), [1, 7]);
        assert_eq!(shared(&[on("a", 0..8, 6), on("a", 0..8, 2)]), [6, 2]);
        // Both are bound to the same two of many, or each to its own.
        assert_eq!(shared(&[on("a", 0..2, 2), on("a", 0..2, 2)]), [1, 1]);
        assert_eq!(shared(&[on("a", 0..2, 2), on("a", 2..4, 2)]), [2, 2]);
    }

    #[test]
    fn a_worker_that_names_no_machine_shares_with_none() {
        assert_eq!(shared(&[on("", 0..2, 2), on("", 0..2, 2)]), [2, 2]);
        assert_eq!(shared(&[Processors::default()]), [1]);
    }

    #[test]
    fn more_threads_than_processors_are_found() {
        let workers = [on("b", 0..4, 4), on("a", 0..2, 2), on("a", 0..2, 2)];
        let workers: Vec<&Processors> = workers.iter().collect();
        assert_eq!(excess(&workers, &[4, 1, 1]), None);
        assert_eq!(excess(&workers, &[4, 2, 1]), Some((1, 3, 2)));
    }

    proptest! {
        #[test]
        fn threads_are_no_more_than_processors(
            total in 1u32..64,
            threads in prop::collection::vec(1u32..64, 1..9),
        ) {
            let workers: Vec<Processors> = threads.iter().map(|n| on("a", 0..total, *n)).collect();
            let shares = shared(&workers);
            let sum: u32 = shares.iter().sum();
            prop_assert!(sum <= total.max(threads.len() as u32));
            // None is left over that one of them could use.
            let wanted: u32 = threads.iter().sum();
            prop_assert!(sum >= total.min(wanted));
            for (share, threads) in shares.iter().zip(&threads) {
                prop_assert!((1..=*threads).contains(share));
            }
        }
    }
}
