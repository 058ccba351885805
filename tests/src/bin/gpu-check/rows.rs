//! The rows: what runs, what must be seen, and which part each belongs to.

use std::time::Instant;

use integration_tests::caught;

use crate::report::{Outcome, Seen, Verdict};
use crate::setting::{Setting, Waits};
use crate::{benchmark, errors, faults, machine, numerics, real_nccl, runs, speed, two_ranks};

/// A row. Its check panics, as the harness does, if what it sees is wrong.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) number: u32,
    /// Each part takes less than 10 minutes on an H100; the last one needs two of them.
    pub(crate) part: u32,
    run: &'static str,
    must: &'static str,
    check: fn(&Setting, &mut Seen) -> Result<(), Waits>,
}

const fn row(
    part: u32,
    number: u32,
    check: fn(&Setting, &mut Seen) -> Result<(), Waits>,
    run: &'static str,
    must: &'static str,
) -> Row {
    Row {
        number,
        part,
        run,
        must,
        check,
    }
}

/// All of them, by part.
pub(crate) const ROWS: &[Row] = &[
    row(
        1,
        0,
        machine::check,
        "nvidia-smi, `/dev/shm`, NCCL's version",
        "driver ≥ 580; NCCL 2.28.9",
    ),
    row(
        1,
        1,
        numerics::c10d,
        "c10d's tests on the GPU",
        "they pass and their process exits with 0",
    ),
    row(
        1,
        2,
        numerics::parity,
        "parity with PyTorch's recording; frozen; bf16",
        "without TF32 within 1e-4, with it within 5e-3",
    ),
    row(
        1,
        3,
        speed::bare_step,
        "the bare step, 60 times, batches of 128 and 16 at 224 px",
        "steady: the middle 80 % of the last 40 are within 10 %",
    ),
    row(
        1,
        11,
        numerics::memcheck,
        "compute-sanitizer memcheck, 2 steps at 64 px",
        "0 errors",
    ),
    row(
        2,
        5,
        speed::training,
        "9,000 drawn images at 224 px, one worker, nvidia-smi dmon",
        "SM ≥ 85 %; of an epoch, data wait < 2 %, checkpoint < 10 %",
    ),
    row(
        2,
        6,
        faults::check,
        "SIGKILL of the worker; of the coordinator, resumed; Ctrl-C, resumed",
        "next step within 15 s; losses within 1e-3 of a run without faults",
    ),
    row(
        3,
        4,
        runs::demo,
        "the demo run, one worker, on the GPU and on the CPU, with one seed",
        "≥ 98 %; training losses within 5 % of the first; exit 0; nothing terminates",
    ),
    row(
        3,
        7,
        two_ranks::check,
        "two ranks on one GPU, over the fake NCCL: SIGKILL of one, a hang of one",
        "losses within 1e-3 of one rank's; no step lost, next step within 10 s; an error within 1 s \
         after the time-out",
    ),
    row(
        4,
        8,
        errors::out_of_memory,
        "an absurd batch",
        "\"out of memory\" with advice, and no restart",
    ),
    row(
        4,
        9,
        errors::sticky,
        "a kernel that breaks the GPU for its process",
        "the worker is replaced; exit 0",
    ),
    row(
        4,
        10,
        benchmark::check,
        "`make bench DEVICE=cuda WORKERS=1 EPOCHS=8 ROUNDS=1`",
        "losses agree; images/s ≥ those of tuned PyTorch",
    ),
    row(
        5,
        12,
        real_nccl::check,
        "real NCCL on two GPUs, NVLS off and on: SIGKILL, a hang, SIGKILL during set-up, ten each",
        "each time the survivor keeps its process and state; no step lost",
    ),
];

impl Row {
    pub(crate) fn judge(&self, setting: &Setting) -> Outcome {
        let began = Instant::now();
        let mut seen = Seen::default();
        let verdict = match setting.gpus {
            0 => Verdict::Waits("a GPU".to_owned()),
            _ => match caught(|| (self.check)(setting, &mut seen)) {
                Err(panic) => Verdict::Failed(panic),
                Ok(Err(Waits(what))) => Verdict::Waits(what),
                Ok(Ok(())) if setting.dry => Verdict::Waits("a GPU".to_owned()),
                Ok(Ok(())) => Verdict::Passed,
            },
        };
        Outcome {
            number: self.number,
            run: self.run,
            must: self.must,
            seen,
            verdict,
            seconds: began.elapsed().as_secs_f64(),
        }
    }
}
