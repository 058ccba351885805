//! How the workers of a machine share its processors.
//!
//! In the backward pass of a convolution, oneDNN's threads meet at a barrier of its own, which spins
//! in generated code and never yields; OMP_WAIT_POLICY does not change that. Where a machine has more
//! such threads than processors, one at the barrier keeps the processor from one that it waits for.
//! Two workers with two threads each, on two processors, spent 86 % of their time in that one loop,
//! and trained 29 images/s; with one thread each, 233.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Processors;

/// More threads than processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excess {
    /// The first worker there, by its place.
    pub place: usize,
    /// Workers that share the processors.
    pub workers: u32,
    /// Threads of all of them.
    pub threads: u32,
    /// Processors that they have between them.
    pub processors: u32,
}

/// CPU threads of each worker, in the order of `workers`, and at least 1. Each processor of a
/// machine goes to the worker that has the fewest so far, among those that may use it and that
/// neither their own limit nor the quota of their cgroup holds back.
pub fn shares(workers: &[&Processors]) -> Vec<u32> {
    let mut shares = vec![0; workers.len()];
    for places in machines(workers).into_values() {
        for id in scarcest_first(workers, &places) {
            let may_use = |place: &&usize| {
                let worker = workers[**place];
                worker.ids.contains(&id)
                    && shares[**place] < worker.threads
                    && within_quota(workers, &places, &shares, worker)
            };
            let fewest = places
                .iter()
                .filter(may_use)
                .min_by_key(|place| shares[**place]);
            if let Some(&place) = fewest {
                shares[place] += 1;
            }
        }
    }
    shares.into_iter().map(|share| share.max(1)).collect()
}

/// Where these threads are more than the processors: once for each machine.
pub fn excess(workers: &[&Processors], threads: &[u32]) -> Vec<Excess> {
    let found = |places: &[usize], processors: u32| {
        let threads = places.iter().map(|place| threads[*place]);
        let threads = threads.fold(0, u32::saturating_add);
        (threads > processors).then(|| Excess {
            place: places[0],
            workers: places.len() as u32,
            threads,
            processors,
        })
    };
    let of_machine = |places: Vec<usize>| {
        let all = (union(workers, &places).len() as u32).max(1);
        found(&places, all).or_else(|| {
            places.iter().find_map(|place| {
                let worker = workers[*place];
                let sharing: Vec<usize> = sharing(workers, &places, worker).collect();
                (!worker.cgroup.is_empty()).then(|| found(&sharing, worker.quota))?
            })
        })
    };
    let machines = machines(workers).into_values();
    machines.filter_map(of_machine).collect()
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

/// The processors that at least one of them may use.
fn union(workers: &[&Processors], places: &[usize]) -> BTreeSet<u32> {
    let ids = places.iter().flat_map(|place| &workers[*place].ids);
    ids.copied().collect()
}

/// Those that fewer workers may use come first: else they might find only workers at their limits.
fn scarcest_first(workers: &[&Processors], places: &[usize]) -> Vec<u32> {
    let users = |id: &u32| {
        let may_use = |place: &&usize| workers[**place].ids.contains(id);
        places.iter().filter(may_use).count()
    };
    let mut ids: Vec<u32> = union(workers, places).into_iter().collect();
    ids.sort_by_cached_key(users);
    ids
}

fn within_quota(
    workers: &[&Processors],
    places: &[usize],
    shares: &[u32],
    worker: &Processors,
) -> bool {
    let used = || -> u32 {
        let sharing = sharing(workers, places, worker);
        sharing.map(|place| shares[place]).sum()
    };
    worker.cgroup.is_empty() || used() < worker.quota
}

/// The workers in the same cgroup.
fn sharing<'a>(
    workers: &'a [&Processors],
    places: &'a [usize],
    worker: &'a Processors,
) -> impl Iterator<Item = usize> + 'a {
    let same = |place: &usize| workers[*place].cgroup == worker.cgroup;
    places.iter().copied().filter(same)
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
            ..Processors::default()
        }
    }

    fn in_a_cgroup(cgroup: &str, quota: u32) -> Processors {
        Processors {
            cgroup: cgroup.to_owned(),
            quota,
            ..on("a", 0..64, quota)
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
        assert_eq!(shared(&[whole(), whole(), whole()]), [3, 3, 2]);
        // One of them is to use less, and the others have the rest.
        assert_eq!(shared(&[on("a", 0..8, 1), whole()]), [1, 7]);
        assert_eq!(shared(&[on("a", 0..8, 6), on("a", 0..8, 2)]), [6, 2]);
        // Both are bound to the same two of many, or each to its own, or all but one.
        let two = || on("a", 0..2, 2);
        assert_eq!(shared(&[two(), two()]), [1, 1]);
        assert_eq!(shared(&[two(), on("a", 2..4, 2)]), [2, 2]);
        assert_eq!(shared(&[two(), two(), whole()]), [1, 1, 6]);
    }

    #[test]
    fn workers_of_a_cgroup_share_its_quota() {
        let small = || in_a_cgroup("small", 4);
        assert_eq!(shared(&[small(), small()]), [2, 2]);
        // Another container has a quota of its own.
        assert_eq!(
            shared(&[small(), in_a_cgroup("other", 3), small()]),
            [2, 3, 2]
        );
    }

    #[test]
    fn a_worker_that_names_no_machine_shares_with_none() {
        assert_eq!(shared(&[on("", 0..2, 2), on("", 0..2, 2)]), [2, 2]);
        assert_eq!(shared(&[Processors::default()]), [1]);
    }

    #[test]
    fn more_threads_than_processors_are_found_on_each_machine() {
        let two = || on("a", 0..2, 2);
        let workers = [on("b", 0..4, 4), two(), two(), in_a_cgroup("c", 1)];
        let mut workers: Vec<&Processors> = workers.iter().collect();
        assert_eq!(excess(&workers[..3], &[4, 1, 1]), []);
        let of_a = Excess {
            place: 1,
            workers: 2,
            threads: 3,
            processors: 2,
        };
        let of_b = Excess {
            place: 0,
            workers: 1,
            threads: 5,
            processors: 4,
        };
        assert_eq!(excess(&workers[..3], &[5, 2, 1]), [of_a, of_b]);
        let of_quota = Excess {
            place: 0,
            workers: 1,
            threads: 2,
            processors: 1,
        };
        assert_eq!(excess(&workers.split_off(3), &[2]), [of_quota]);
    }

    proptest! {
        #[test]
        fn no_processors_have_more_threads_than_they_are(
            workers in prop::collection::vec((0u32..12, 1u32..12, 1u32..9, 0u32..3), 1..7),
        ) {
            let workers: Vec<Processors> = workers
                .into_iter()
                .map(|(from, count, threads, cgroup)| Processors {
                    cgroup: if cgroup > 0 { cgroup.to_string() } else { String::new() },
                    quota: 3 * cgroup,
                    ..on("a", from..from + count, threads)
                })
                .collect();
            let shares = shared(&workers);
            let sum = |fits: &dyn Fn(&Processors) -> bool| -> (u32, u32) {
                let found = workers.iter().zip(&shares).filter(|(worker, _)| fits(worker));
                found.fold((0, 0), |(count, sum), (_, share)| (count + 1, sum + share))
            };
            for (worker, share) in workers.iter().zip(&shares) {
                prop_assert!((1..=worker.threads).contains(share));
                // Those that can only run there, each with 1 thread at least.
                let (count, threads) = sum(&|other| other.ids.is_subset(&worker.ids));
                prop_assert!(threads <= worker.ids.len() as u32 + count);
                let (count, threads) = sum(&|other| other.cgroup == worker.cgroup);
                prop_assert!(worker.cgroup.is_empty() || threads <= worker.quota + count);
            }
            let (count, threads) = sum(&|_| true);
            let all: BTreeSet<u32> = workers.iter().flat_map(|worker| worker.ids.clone()).collect();
            prop_assert!(threads <= all.len() as u32 + count);
        }

        #[test]
        fn equal_workers_use_all_processors_evenly(total in 1u32..64, count in 1usize..9) {
            let workers: Vec<Processors> = (0..count).map(|_| on("a", 0..total, total)).collect();
            let shares = shared(&workers);
            let (least, most) = (shares.iter().min(), shares.iter().max());
            prop_assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1));
            prop_assert_eq!(shares.iter().sum::<u32>(), total.max(count as u32));
        }
    }
}
