//! Random faults for some minutes on a long run, whose result must not show them.

use std::time::{Duration, Instant};

use anyhow::ensure;
use integration_tests::baseline::Baseline;
use integration_tests::fault::{
    Fault, Target, first_step, first_step_after_recovery, now, recoveries,
};
use integration_tests::{Ended, Run, SMALL, STEADY};

use crate::caught;
use crate::table::{Row, by_cause};

/// Part of the time in which a run under fire makes steps.
const USEFUL: f64 = 0.4;
/// How long a fault is waited for, when the next one is not to come into its recovery.
const PATIENCE: Duration = Duration::from_secs(60);

/// Strikes for `minutes` and prints what was struck; whether the result is the undisturbed one.
pub(crate) fn run(minutes: f64, seed: u64) -> anyhow::Result<bool> {
    ensure!(minutes > 0.0, "MINUTES is more than 0");
    let epochs = (minutes * 60.0 * USEFUL / Baseline::of(STEADY).epoch_seconds()).ceil();
    // The seed decides the faults; which steps they meet depends on the machine.
    let epochs = format!("--epochs={}", epochs.max(3.0));
    let arguments = [STEADY, &[epochs.as_str(), "--patience=100000"]].concat();
    println!("an undisturbed run, {epochs}");
    let baseline = Baseline::of(&arguments);
    println!("the same one for {minutes} minutes under fire");
    let mut rows = Vec::new();
    let deadline = Instant::now() + Duration::from_secs_f64(60.0 * minutes);
    let mut random = fastrand::Rng::with_seed(seed);
    // The length is a guess: a run that comes to its end too early is followed by another.
    let result = caught(|| {
        loop {
            let ended = under_fire(&arguments, deadline, &mut random, &mut rows);
            let told = |difference| format!("{difference}\n{}", ended.output);
            if !ended.has_finished() {
                return Err(told(format!("exit code {}", ended.code)));
            }
            let compared = baseline.compare(&ended.path()).map_err(told);
            if compared.is_err() || Instant::now() >= deadline {
                return compared;
            }
            println!("it ended with the same result; the next one");
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

fn under_fire(
    arguments: &[&str],
    deadline: Instant,
    random: &mut fastrand::Rng,
    rows: &mut Vec<Row>,
) -> Ended {
    // Whoever is struck again and again has not failed by itself.
    let further = ["--max-restarts=100"];
    let all = [&["--workers=2"], SMALL, arguments, &further].concat();
    let patience = Duration::from_secs(3600);
    let mut run = Run::start(&all).patiently(patience);
    while Instant::now() < deadline {
        // Everything is drawn before it is known what happens, so that SEED draws the same.
        let hasty = random.u32(..4) == 0;
        let quiet = random.f64() * if hasty { 1.0 } else { 5.0 };
        let target = Target::ALL[random.usize(..Target::ALL.len())];
        let pause = Duration::from_secs_f64(0.2 + 7.8 * random.f64());
        let fault = [Fault::Kill, Fault::Kill, Fault::Pause(pause)][random.usize(..3)];
        let absence = 3.0 * random.f64();
        std::thread::sleep(Duration::from_secs_f64(quiet));
        if run.has_ended() {
            break;
        }
        let (pids, known) = (target.pids(&run), recoveries(&run.path()).len());
        let struck = now();
        fault.strike(&pids);
        let killed = fault == Fault::Kill && target.strikes_coordinator();
        if killed {
            let ended = run.wait();
            if ended.has_finished() {
                return ended.left_no_process();
            }
            std::thread::sleep(Duration::from_secs_f64(absence));
            run = ended.resume(&[]).patiently(patience);
        }
        let limit = if hasty { Duration::ZERO } else { PATIENCE };
        let first = match (killed, fault) {
            (true, _) => first_step(&mut run, limit, |_| Some(struck)),
            (_, Fault::Kill) => first_step_after_recovery(&mut run, limit, struck, known),
            // It may go on as if nothing had been.
            (_, Fault::Pause(_)) => None,
        };
        let recovered = recoveries(&run.path());
        let lost = recovered
            .iter()
            .skip(known)
            .filter_map(|entry| entry["steps_lost"].as_u64());
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
            seconds: first.map(|at| at - struck),
            steps_lost: (!killed).then(|| lost.sum()),
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
