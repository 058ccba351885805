//! A crash after any job leaves what the jobs before it wrote, perhaps without the last large
//! files. A run can continue from that.

mod resumed;
mod script;

use std::time::{Duration, Instant};

use coordinator_core::early_stopping::EarlyStopping;
use coordinator_core::event::Origin;
use proptest::prelude::*;

use super::thread::LINES;
use super::*;
use crate::store::{CONFIG, JournalEntry, METRICS, RunHistory};
use resumed::goes_on;
use script::{RULE, Script, blob, event, finished, split, weights};

/// A run directory that holds what these jobs wrote.
fn written(jobs: impl IntoIterator<Item = Job>) -> (tempfile::TempDir, Vec<Recorded>) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("run");
    let store = RunStore::create(&root).unwrap();
    store.write(CONFIG, b"").unwrap();
    let mut journal = Journal::open(&root).unwrap();
    let run_id = "0".to_owned();
    journal
        .append(JournalEntry::Started { run_id, workers: 1 })
        .unwrap();
    drop(journal);
    let (recorder, mut answers) = start(store);
    for job in jobs {
        recorder.hand_over(job).unwrap();
    }
    drop(recorder);
    let mut all = Vec::new();
    while let Some(answer) = answers.blocking_recv() {
        all.push(answer);
    }
    assert!(matches!(all.pop(), Some(Recorded::Closed(_))));
    (directory, all)
}

fn start(store: RunStore) -> (Recorder, UnboundedReceiver<Recorded>) {
    let journal = Journal::open(store.root()).unwrap();
    let checkpoints = Checkpoints::open(store.root());
    Recorder::start(store, journal, checkpoints).unwrap()
}

fn read(directory: &tempfile::TempDir) -> RunHistory {
    let root = directory.path().join("run");
    let store = RunStore::open(&root).unwrap();
    let journal = Journal::open(&root).unwrap();
    RunHistory::read(&store, &journal, &Checkpoints::open(&root)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn after_a_crash_the_first_jobs_are_there_and_the_run_goes_on(
        dice in prop::collection::vec(any::<u8>(), 1..5),
        files in 0_usize..4,
    ) {
        let whole = Script::of(&dice);
        for durable in 0..=whole.jobs.len() {
            // At the end of a run, nothing is in progress.
            let in_progress = if durable < whole.jobs.len() { files } else { 0 };
            let (directory, answers) = written(whole.first(durable, in_progress));
            prop_assert!(!answers.iter().any(|answer| matches!(answer, Recorded::Failed(_))));
            let history = read(&directory);
            if history.split.is_none() {
                prop_assert!(history.epochs.is_empty() && history.checkpoint.is_none());
                continue;
            }
            let epochs = history.epochs.len() as u32;
            let numbers: Vec<u32> = history.epochs.iter().map(|e| e.epoch).collect();
            prop_assert_eq!(numbers, (1..=epochs).collect::<Vec<u32>>());
            // Nothing that builds on an epoch is there without its record.
            prop_assert!(history.checkpoint.is_none_or(|at| at.epoch <= epochs + 1));
            prop_assert!(history.corrupt.is_empty(), "{:?}", history.corrupt);
            if durable == whole.jobs.len() {
                let losses: Vec<f64> = history.epochs.iter().map(|e| e.validation_loss).collect();
                prop_assert_eq!(losses, whole.losses.clone());
                prop_assert_eq!(history.checkpoint, whole.checkpoints.last().copied());
            }

            let (origin, position) = goes_on(&history);
            match history.checkpoint {
                // As far as it got, unless the best weights have to be made again.
                Some(at) if best_is_stored(&history) => {
                    prop_assert_eq!((origin, position), (Origin::Checkpoint, at));
                }
                _ => prop_assert!(position <= history.position()),
            }
        }
    }
}

fn best_is_stored(history: &RunHistory) -> bool {
    let mut stopping = EarlyStopping::new(RULE);
    for epoch in &history.epochs {
        stopping.observe(epoch.epoch, epoch.validation_loss);
    }
    let best = stopping.standing().best;
    best.is_none_or(|best| history.best_epoch >= Some(best.epoch))
}

#[test]
fn a_checkpoint_without_the_record_before_it_gives_way_to_an_older_one() {
    let mut script = Script::default();
    script.add(|| Job::Split(Box::new(split())));
    script.epoch(5);
    // As by a crash between the two halves of a roll back, had it them the other way round.
    script.checkpoint(Position::start_of(3));
    let (directory, _) = written(script.first(script.jobs.len(), 0));
    let history = read(&directory);
    assert_eq!(history.checkpoint, Some(Position::start_of(2)));
    let [line] = &history.corrupt[..] else {
        panic!("{:?}", history.corrupt);
    };
    assert!(line.contains("records of 1 epochs only"), "{line}");
    let expected = (Origin::Checkpoint, Position::start_of(2));
    assert_eq!(goes_on(&history), expected);
}

#[test]
fn a_crash_within_a_roll_back_leaves_no_checkpoint_ahead_of_the_records() {
    let mut script = Script::default();
    script.add(|| Job::Split(Box::new(split())));
    (0..3).for_each(|_| script.epoch(5));
    let (directory, _) = written(script.first(script.jobs.len(), 0));
    let checkpoints = Checkpoints::open(&directory.path().join("run"));
    // The first half.
    let back = Position {
        epoch: 3,
        completed: 2,
    };
    checkpoints.discard_after(back).unwrap();
    let history = read(&directory);
    assert_eq!(history.epochs.len(), 3);
    assert_eq!(history.checkpoint, Some(back));
    assert_eq!(goes_on(&history), (Origin::Checkpoint, back));
}

#[test]
fn each_answer_comes_when_the_job_is_durable_and_lines_share_a_sync() {
    let mut script = Script::default();
    (0..LINES + 10).for_each(|_| script.add(|| event("a line")));
    script.add(|| Job::FindCheckpoint);
    script.epoch(5);
    script.add(|| image(Image::Curves, || Ok(b"png".to_vec())));
    script.add(|| image(Image::Predictions, || Err(anyhow::anyhow!("no tiles"))));
    script.add(|| image(Image::Predictions, || panic!("a defect")));
    let (directory, answers) = written(script.first(script.jobs.len(), 0));
    let root = directory.path().join("run");
    match &answers[..] {
        [
            Recorded::Found(newest),
            Recorded::Checkpoint {
                position: middle, ..
            },
            Recorded::Best { epoch: 1 },
            Recorded::Checkpoint {
                position: end,
                bytes,
                ..
            },
            Recorded::Image {
                image: Image::Curves,
                ..
            },
            Recorded::NoImage {
                image: Image::Predictions,
                reason,
            },
            Recorded::NoImage {
                image: Image::Predictions,
                reason: panicked,
            },
        ] => {
            assert!(newest.checkpoint.is_none());
            assert_eq!((middle.completed, end.epoch), (2, 2));
            assert_eq!(*bytes, format!("{end:?}").len() as u64);
            assert_eq!(reason, "no tiles");
            assert_eq!(panicked, "the drawing panicked");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(root.join(CURVES)).unwrap(), b"png");
    let lines = Journal::open(&root).unwrap().lines().unwrap();
    assert_eq!(lines.len(), 1 + LINES + 10 + 2);
}

#[test]
fn after_a_failure_nothing_is_written_that_builds_on_it() {
    let mut script = Script::default();
    script.add(|| Job::Split(Box::new(split())));
    script.epoch(4);
    let (directory, _) = written(script.first(script.jobs.len(), 0));
    let root = directory.path().join("run");
    // The next record cannot be written: a folder has its name.
    let metrics = root.join(crate::store::METRICS);
    let kept = std::fs::read(&metrics).unwrap();
    let store = RunStore::open(&root).unwrap();
    std::fs::remove_file(&metrics).unwrap();
    std::fs::create_dir(&metrics).unwrap();
    let (recorder, mut answers) = start(store);
    for job in [
        Job::Epoch(Box::new(finished(2, 0.1))),
        Job::File(LargeFile::Best {
            epoch: 2,
            weights: weights(2),
        }),
        Job::File(LargeFile::Checkpoint {
            position: Position::start_of(3),
            state: blob(b"state"),
        }),
        Job::FindCheckpoint,
    ] {
        recorder.hand_over(job).unwrap();
    }
    let ended = |ok| {
        let reason = "reason".to_owned();
        Job::Event(JournalLine::now(JournalEntry::Ended { reason, ok }))
    };
    recorder.hand_over(ended(true)).unwrap();
    recorder.hand_over(ended(false)).unwrap();
    drop(recorder);
    let failed = answers.blocking_recv();
    assert!(
        matches!(failed, Some(Recorded::Failed(StoreError::Write { .. }))),
        "{failed:?}"
    );
    let last = answers.blocking_recv();
    assert!(matches!(last, Some(Recorded::Closed(_))), "it fails once");
    assert!(answers.blocking_recv().is_none());
    drop(last);

    std::fs::remove_dir(&metrics).unwrap();
    std::fs::write(&metrics, kept).unwrap();
    let history = read(&directory);
    assert_eq!((history.epochs.len(), history.best_epoch), (1, Some(1)));
    assert_eq!(history.checkpoint, Some(Position::start_of(2)));
    assert_eq!(history.ended, None, "it can be resumed");
    let lines = Journal::open(&root).unwrap().lines().unwrap();
    assert!(matches!(
        lines.last(),
        Some(JournalLine {
            entry: JournalEntry::Ended { ok: false, .. },
            ..
        })
    ));
}

#[test]
fn records_do_not_wait_for_large_files_but_a_roll_back_does() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("run");
    let (recorder, mut answers) = start(RunStore::create(&root).unwrap());
    let (image, go) = hanging();
    recorder.hand_over(image).unwrap();
    recorder
        .hand_over(Job::Epoch(Box::new(finished(1, 0.5))))
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !root.join(METRICS).exists() {
        assert!(Instant::now() < deadline, "the record waits for the image");
        std::thread::sleep(Duration::from_millis(1));
    }
    recorder.hand_over(Job::FindCheckpoint).unwrap();
    assert!(answers.try_recv().is_err());
    go.send(()).unwrap();
    drop(recorder);
    let order: Vec<Recorded> = std::iter::from_fn(|| answers.blocking_recv()).collect();
    assert!(
        matches!(
            order[..],
            [
                Recorded::Image { .. },
                Recorded::Found(_),
                Recorded::Closed(_)
            ]
        ),
        "{order:?}"
    );
}

#[test]
fn a_queue_that_is_full_is_an_error_and_no_wait() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("run");
    let store = RunStore::create(&root).unwrap();
    let (recorder, mut answers) = start(store);
    // The disk hangs in a large file, and a job waits for that.
    let (image, go) = hanging();
    recorder.hand_over(image).unwrap();
    recorder.hand_over(Job::FindCheckpoint).unwrap();
    let mut lines = 0;
    let full = loop {
        match recorder.hand_over(event("a line")) {
            Ok(()) => lines += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, RecorderError::Full), "{full}");
    // The thread may not have taken the first two yet.
    assert!((QUEUE - 2..=QUEUE).contains(&lines), "{lines}");
    assert_eq!(recorder.waiting(), 2 + lines);
    go.send(()).unwrap();
    drop(recorder);
    while answers.blocking_recv().is_some() {}
    let journal = Journal::open(&root).unwrap().lines().unwrap();
    assert_eq!(journal.len(), lines);
}

fn image(which: Image, render: impl FnOnce() -> anyhow::Result<Vec<u8>> + Send + 'static) -> Job {
    Job::File(LargeFile::Image(which, Box::new(render)))
}

/// A job that is being done until a message is sent.
fn hanging() -> (Job, std::sync::mpsc::Sender<()>) {
    let (go, hang) = std::sync::mpsc::channel();
    let job = image(Image::Curves, move || {
        hang.recv().unwrap();
        Ok(Vec::new())
    });
    (job, go)
}
