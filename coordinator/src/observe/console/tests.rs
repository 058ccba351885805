//! The texts, and that a pipe gets few and plain lines.

use std::sync::{Arc, Mutex};

use super::*;
use coordinator_core::event::StopReason;

#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Vec<u8>>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn view(step: u64) -> CompletedStep {
    CompletedStep {
        epoch: 2,
        epochs: 15,
        step,
        steps: 50,
        made: step,
        loss: 0.43215,
        images_per_second: 12.55,
        elapsed: 10.0,
        samples: 0,
    }
}

fn row(epoch: u32) -> FinishedEpoch {
    FinishedEpoch {
        epoch,
        train_loss: 1.5,
        validation_loss: 0.25,
        validation_accuracy: 0.9512,
        images_per_second: 123.45,
        seconds: 65.0,
        ..FinishedEpoch::default()
    }
}

#[test]
fn times_read_as_people_say_them() {
    for (seconds, expected) in [
        (0.0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3725.0, "1 h 02 min"),
        (f64::NAN, "?"),
        (-1.0, "?"),
    ] {
        assert_eq!(format::time(seconds), expected);
    }
}

#[test]
fn a_step_tells_what_is_left_of_epoch_and_run() {
    let message = format::step_message(&view(10), Some(60.0));
    assert_eq!(message, "12.6 images/s  loss 0.432  left 0:40  run ≤13:40");
    // Without a whole epoch yet, this one's pace is all there is: 40 + 13 × 50 seconds.
    assert!(format::step_message(&view(10), None).ends_with("run ≤11:30"));
    assert!(format::step_message(&view(10), Some(600.0)).ends_with("run ≤2:10:40"));
    assert!(!format::step_message(&view(0), None).contains("left"));
    // In mid-epoch after a loss: one second a step, as above.
    let recovered = CompletedStep {
        step: 40,
        ..view(10)
    };
    let message = format::step_message(&recovered, None);
    assert!(message.ends_with("left 0:10  run ≤11:00"), "{message}");
}

#[test]
fn a_row_in_a_log_is_read_alone() {
    assert_eq!(
        format::sentence(&row(10), 15, true),
        "epoch 10/15: training loss 1.5000, validation loss 0.2500, accuracy 95.12%, \
         123.5 images/s, 1 min 05 s, the best so far"
    );
}

#[test]
fn rows_stand_under_their_heading() {
    let (heading, row) = (format::heading(), format::row(&row(10), 15, true));
    assert_eq!(
        heading,
        "  epoch  train loss    val loss  accuracy   images/s          time"
    );
    assert_eq!(
        row,
        "  10/15      1.5000      0.2500    95.12%      123.5    1 min 05 s  best"
    );
}

#[test]
fn the_summary_says_why_how_good_and_where() {
    let mut end = Summary {
        reason: StopReason::Patience,
        epochs: 8,
        patience: 3,
        best: Some(FinishedEpoch {
            epoch: 5,
            validation_loss: 0.208,
            validation_accuracy: 0.951,
            ..FinishedEpoch::default()
        }),
        seconds: 211.0,
        run_dir: "runs/one".into(),
        files: vec!["best.safetensors".to_owned()],
    };
    assert_eq!(
        format::summary(&end),
        "\nstopped after 8 epochs: the validation loss did not improve for 3 epochs\n  \
         best epoch       5\n  validation loss  0.2080\n  accuracy         95.10%\n  \
         time             3 min 31 s\n  results          runs/one\n    \
         best.safetensors weights of the best epoch, under torchvision's names"
    );
    (end.reason, end.epochs, end.best) = (StopReason::Interrupted, 1, None);
    let text = format::summary(&end);
    assert!(
        text.contains("interrupted after 1 epoch\n") && text.contains("no weights"),
        "{text}"
    );
}

#[test]
fn a_pipe_gets_plain_lines_and_few_of_them() {
    let pipe = Pipe::default();
    let screen = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
    let mut progress =
        Progress::with(Out::Text(Box::new(pipe.clone())), screen, false, false).unwrap();
    progress.say("two workers");
    for step in 0..50 {
        progress.step(&view(step));
    }
    progress.epoch(&row(1), 15, true);
    progress.epoch(&row(2), 15, false);
    drop(progress);
    let text = String::from_utf8(pipe.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert!(
        lines[1].starts_with("epoch 2/15: 0/50 12.6 images/s"),
        "{text}"
    );
    assert!(!text.contains(['\x1b', '\r']), "{text:?}");
}

/// A pipe that is full until `0` gives or ends.
struct Full(std::sync::mpsc::Receiver<()>, Pipe);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_terminal_that_takes_no_output_misses_only_progress() {
    let (open, full) = std::sync::mpsc::channel();
    let pipe = Pipe::default();
    let out = Out::Text(Box::new(Full(full, pipe.clone())));
    let screen = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
    let mut progress = Progress::with(out, screen, false, false).unwrap();
    for line in 0..100 {
        progress.say(&format!("line {line}"));
        progress.last_heartbeat = None;
        progress.step(&view(line));
    }
    drop(open);
    drop(progress);
    let text = String::from_utf8(pipe.0.lock().unwrap().clone()).unwrap();
    let lasting = text.lines().filter(|line| line.starts_with("line"));
    assert_eq!(lasting.count(), 100, "{text}");
    assert!(text.lines().count() <= 100 + 16, "{text}");
}
