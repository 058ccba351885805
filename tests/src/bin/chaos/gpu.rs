//! SIGKILL of workers that train over NCCL on the fake GPU, at random moments. One worker always
//! survives, so no step may be lost.

use std::time::Duration;

use integration_tests::baseline::Baseline;
use integration_tests::fake_gpu::FakeGpu;
use integration_tests::fault::{Target, first_step_after_recovery, now, recoveries, steps_lost};
use integration_tests::{Ended, Run, SMALL, STEADY, caught, kill};

use crate::table::{Row, by_cause, median};

const KILLS: usize = 50;
/// The median recovery must be shorter.
const SECONDS: f64 = 5.0;
/// How long to wait for a recovery.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Kills workers and prints a table; whether every run ended well, with the result of one without
/// faults, and no step was lost.
pub(crate) fn run(seed: u64) -> bool {
    let Some(gpu) = FakeGpu::new() else {
        return false;
    };
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rows = Vec::new();
    let result = caught(|| {
        println!("a run without faults");
        let baseline = Baseline::from(&checked(start(&gpu).wait().succeeded()));
        println!("the same run with faults, again and again until there were {KILLS}");
        while rows.len() < KILLS {
            let ended = with_faults(&gpu, &mut random, &mut rows);
            assert_eq!(ended.code, 0, "{}", ended.output);
            baseline.assert_same(&checked(ended));
        }
    });
    for row in &mut rows {
        row.same = result.is_ok();
    }
    println!("\n{}", by_cause(&rows));
    if let Err(panic) = &result {
        println!("\n{panic}");
    }
    let slow = median(rows.iter().filter_map(|row| row.seconds).collect());
    let slow = slow.is_none_or(|seconds| seconds >= SECONDS);
    let lost = rows.iter().any(|row| row.steps_lost != Some(0));
    if slow || lost {
        println!("\na median of {SECONDS} s or more, or steps lost");
    }
    result.is_ok() && !slow && !lost
}

fn start(gpu: &FakeGpu) -> Run {
    let ours = [
        "--workers=2",
        "--device=cuda",
        "--epochs=60",
        "--patience=1000",
        // The faults count as restarts if no step lies between them.
        "--max-restarts=100",
    ];
    let run = Run::start_with(&[SMALL, STEADY, &ours].concat(), |command| {
        gpu.prepare(command, "0,1");
    });
    run.with_timeout(Duration::from_secs(600))
}

/// Checks that all processes have ended in peace.
fn checked(ended: Ended) -> Ended {
    let ended = ended.left_no_process();
    let said = ended.said();
    for word in ["terminate", "destroy", "rolled back"] {
        let line = said.lines().find(|line| line.contains(word));
        assert_eq!(line, None, "a line with `{word}`");
    }
    ended
}

fn with_faults(gpu: &FakeGpu, random: &mut fastrand::Rng, rows: &mut Vec<Row>) -> Ended {
    let mut run = start(gpu);
    run.until("a step", |run| run.steps() > 0);
    while rows.len() < KILLS {
        // All numbers are drawn first, so that SEED gives the same ones whatever happens.
        let delay = Duration::from_secs_f64(3.0 * random.f64());
        let target = [Target::RankZero, Target::RankOne][random.usize(..2)];
        let again = (random.u32(..4) == 0).then(|| Duration::from_secs_f64(2.0 * random.f64()));
        std::thread::sleep(delay);
        if run.has_ended() {
            break;
        }
        let (mut injected, known) = (now(), recoveries(&run.path()).len());
        target.pids(&run).into_iter().for_each(kill);
        // The replacement, so that there is a survivor.
        if let Some(later) = again {
            std::thread::sleep(later);
            injected = now();
            target.pids(&run).into_iter().for_each(kill);
        }
        let first = first_step_after_recovery(&mut run, TIMEOUT, injected, known);
        let row = Row {
            cause: match again {
                None => format!("{}, SIGKILL", target.name()),
                Some(_) => format!("{}, SIGKILL, twice within 2 s", target.name()),
            },
            same: false,
            seconds: first.map(|at| at - injected),
            steps_lost: Some(steps_lost(&run.path(), known)),
        };
        let seconds = row
            .seconds
            .map_or("no further step".to_owned(), |s| format!("{s:.2} s"));
        println!("{}: {seconds}", row.cause);
        rows.push(row);
    }
    run.wait()
}
