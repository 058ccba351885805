//! Workers that the coordinator's launcher starts.

use super::*;
use crate::event::{FailureKind, Loss, ProcessStatus};

fn exited(local_rank: u32, pid: u32, status: ProcessStatus) -> Event {
    Event::ProcessExited {
        local_rank,
        pid,
        status,
    }
}

#[test]
fn a_local_rank_belongs_to_the_process_that_was_started_for_it() {
    let mut bench = Bench::new(Run::new(recipe(1, 1)));
    assert_eq!(launched(&bench.tell(Event::Tick)), [0]);
    bench.started(0, 100);
    let claimed = bench.join(7, Some(0), RetainedState::default());
    assert!(
        matches!(sent(&claimed)[..], [(7, Command::Shutdown { .. })]),
        "{claimed:?}"
    );
    let own = bench.join(0, Some(0), RetainedState::default());
    assert_eq!(sent(&own)[0], (0, &Command::Registered));
}

#[test]
fn a_worker_whose_gpu_cannot_be_used_is_started_again_after_pauses() {
    let mut bench = Bench::new(Run::new(recipe(2, 2)));
    bench.tell(Event::Tick);
    for id in 0..2 {
        bench.started(id, 100 + id);
        bench.join(id.into(), Some(id), RetainedState::default());
    }
    for id in 0..2 {
        bench.prepared(id);
    }
    for id in 0..2 {
        let (worker, generation) = (WorkerId(id), 1);
        bench.tell(Event::GroupReady { worker, generation });
    }
    assert_eq!(launched(&bench.lose(1)), [1]);
    for (id, pause) in [(2, 4), (3, 8)] {
        bench.started(1, 100 + id);
        bench.join(id.into(), Some(1), RetainedState::default());
        let failed = bench.tell(Event::Failed {
            worker: WorkerId(id.into()),
            kind: FailureKind::Device,
            message: String::new(),
        });
        assert_eq!(launched(&failed), [] as [u32; 0]);
        bench.tell(exited(1, 100 + id, ProcessStatus::Code(1)));
        bench.now += Now::from_millis(pause * 1000 - 1);
        assert_eq!(launched(&bench.tell(Event::Tick)), [] as [u32; 0]);
        bench.now += Now::from_millis(1);
        // The third restart in a row would be one too many.
        let expected: &[u32] = if id == 2 { &[1] } else { &[] };
        assert_eq!(launched(&bench.tell(Event::Tick)), expected);
    }
}

#[test]
fn the_end_of_a_process_explains_why_its_session_broke() {
    let exited = |pid| exited(0, pid, ProcessStatus::Signal(9));
    for others in 0..2 {
        let mut bench = Bench::new(Run::new(recipe(1 + others, 1 + others as u32)));
        bench.tell(Event::Tick);
        for id in 0..=others as u32 {
            bench.started(id, 100 + id);
            bench.join(id.into(), Some(id), RetainedState::default());
        }
        for id in 0..=others as u64 {
            bench.prepared(id);
        }
        let worker = WorkerId(0);
        let generation = 1;
        bench.tell(Event::GroupReady { worker, generation });
        bench.tell(Event::Lost { worker });
        let told = bench.tell(exited(100));
        let status = ProcessStatus::Signal(9);
        let fact = Fact::Exited {
            local_rank: 0,
            status,
        };
        assert!(told.contains(&Action::Notify(fact)), "{told:?}");
        let last = bench.run.failures.last();
        assert!(matches!(last, Some(Loss::Exited { .. })), "{last:?}");
        // Its successor, which never joins.
        bench.started(0, 200);
        bench.tell(exited(200));
        let last = bench.run.failures.last();
        assert!(matches!(last, Some(Loss::ExitedEarly { .. })), "{last:?}");
    }
}

#[test]
fn a_worker_that_hangs_in_decoding_is_replaced_once_others_have_trained() {
    let mut bench = Bench::new(Run::new(recipe(1, 1)));
    bench.tell(Event::Tick);
    bench.started(0, 100);
    bench.join(0, Some(0), RetainedState::default());
    bench.now = Now::from_secs(60);
    assert!(launched(&bench.tell(Event::Tick)).is_empty());
    bench.prepared(0);
    let (worker, generation) = (WorkerId(0), 1);
    bench.tell(Event::GroupReady { worker, generation });
    bench.tell(exited(0, 100, ProcessStatus::Signal(9)));
    bench.started(0, 101);
    bench.join(1, Some(0), RetainedState::default());
    let worker = WorkerId(1);
    bench.now += Now::from_secs(9);
    bench.tell(Event::Preparing { worker, done: 1 });
    bench.now += Now::from_secs(9);
    assert!(launched(&bench.tell(Event::Tick)).is_empty());
    bench.now += Now::from_secs(1);
    assert_eq!(launched(&bench.tell(Event::Tick)), [0]);
}
