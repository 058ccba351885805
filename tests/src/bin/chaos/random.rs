//! Random faults for some minutes in a long run, whose result must be that of a run without.

use std::time::{Duration, Instant};

use anyhow::ensure;
use integration_tests::baseline::Baseline;
use integration_tests::fault::{
    Fault, Target, first_step, first_step_after_recovery, now, recoveries, steps_lost,
};
use integration_tests::{Ended, Run, SMALL, STEADY, caught};

use crate::table::{Row, by_cause};

/// The estimated share of the time in which a run with faults makes steps.
const USEFUL: f64 = 0.4;
/// How long to wait for the recovery from a fault before the next one.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Injects faults for `minutes` and prints a table; whether the result is that of a run without
/// faults.
pub(crate) fn run(minutes: f64, seed: u64) -> anyhow::Result<bool> {
    ensure!(minutes > 0.0, "MINUTES is more than 0");
    let epochs = (minutes * 60.0 * USEFUL / Baseline::of(STEADY).epoch_seconds()).ceil();
    // The seed determines the faults; in which steps they fall depends on the machine.
    let epochs = format!("--epochs={}", epochs.max(3.0));
    let arguments = [STEADY, &[epochs.as_str(), "--patience=100000"]].concat();
    println!("a run without faults, {epochs}");
    let baseline = Baseline::of(&arguments);
    println!("the same run with faults for {minutes} minutes");
    let mut rows = Vec::new();
    let deadline = Instant::now() + Duration::from_secs_f64(60.0 * minutes);
    let mut random = fastrand::Rng::with_seed(seed);
    // The number of epochs is an estimate: a run that ends early is followed by another.
    let result = caught(|| {
        loop {
            let ended = with_faults(&arguments, deadline, &mut random, &mut rows);
            let with_output = |difference| format!("{difference}\n{}", ended.output);
            if !ended.has_finished() {
                return Err(with_output(format!("exit code {}", ended.code)));
            }
            let compared = baseline.compare(&ended.path()).map_err(with_output);
            if compared.is_err() || Instant::now() >= deadline {
                return compared;
            }
            println!("the run ended with the same result; starting the next one");
        }
    });
    let result = result.and_then(|compared| compared);
    rows.iter_mut().for_each(|row| row.same = result.is_ok());
    println!("\n{}", by_cause(&rows));
    match &result {
        Ok(agreement) => println!(
            "\nlargest differences: {:e} of losses, {:e} of weights",
            agreement.losses, agreement.weights
        ),
        Err(difference) => println!("\n{difference}"),
    }
    Ok(result.is_ok())
}

fn with_faults(
    arguments: &[&str],
    deadline: Instant,
    random: &mut fastrand::Rng,
    rows: &mut Vec<Row>,
) -> Ended {
    // The injected faults count as restarts.
    let further = ["--max-restarts=100"];
    let all = [&["--workers=2"], SMALL, arguments, &further].concat();
    let timeout = Duration::from_secs(3600);
    let mut run = Run::start(&all).with_timeout(timeout);
    while Instant::now() < deadline {
        // All numbers are drawn first, so that SEED gives the same ones whatever happens.
        let overlapping = random.u32(..4) == 0;
        let delay = random.f64() * if overlapping { 1.0 } else { 5.0 };
        let target = Target::ALL[random.usize(..Target::ALL.len())];
        let pause = Duration::from_secs_f64(0.2 + 7.8 * random.f64());
        let fault = [Fault::Kill, Fault::Kill, Fault::Pause(pause)][random.usize(..3)];
        let downtime = 3.0 * random.f64();
        std::thread::sleep(Duration::from_secs_f64(delay));
        if run.has_ended() {
            break;
        }
        let (pids, known) = (target.pids(&run), recoveries(&run.path()).len());
        let injected = now();
        fault.inject(&pids);
        let killed = fault == Fault::Kill && target.includes_coordinator();
        if killed {
            let ended = run.wait();
            if ended.has_finished() {
                return ended.left_no_process();
            }
            std::thread::sleep(Duration::from_secs_f64(downtime));
            run = ended.resume(&[]).with_timeout(timeout);
        }
        let limit = if overlapping { Duration::ZERO } else { TIMEOUT };
        let first = match (killed, fault) {
            (true, _) => first_step(&mut run, limit, |_| Some(injected)),
            (_, Fault::Kill) => first_step_after_recovery(&mut run, limit, injected, known),
            // There may have been no loss.
            (_, Fault::Pause(_)) => None,
        };
        let row = Row {
            cause: format!(
                "{}, {}",
                target.name(),
                if fault == Fault::Kill {
                    "SIGKILL"
                } else {
                    "SIGSTOP for 0.2 to 8 s"
                }
            ),
            same: false,
            seconds: first.map(|at| at - injected),
            steps_lost: (!killed).then(|| steps_lost(&run.path(), known)),
        };
        println!(
            "{}{}",
            row.cause,
            row.seconds
                .map_or_else(String::new, |s| format!(": {s:.2} s"))
        );
        rows.push(row);
    }
    run.wait().left_no_process()
}
