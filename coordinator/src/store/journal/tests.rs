//! Every event there and back, and a crash in the middle of a line.

use super::*;

fn every_entry() -> Vec<JournalEntry> {
    use JournalEntry::*;
    let host = || "host-b".to_owned();
    vec![
        Started {
            run_id: "0123456789abcdef".to_owned(),
            workers: 2,
        },
        Resumed {
            epoch: 3,
            completed: 12,
        },
        Formed {
            generation: 4,
            world_size: 2,
        },
        Joined {
            worker: u64::MAX,
            host: host(),
            local_rank: None,
        },
        Lost {
            who: "rank 0 on host-b".to_owned(),
            rank: Some(0),
            local_rank: None,
            when: "after step 14 of epoch 3".to_owned(),
            cause: "its process was killed by signal 9\n".to_owned(),
        },
        Exited {
            local_rank: 0,
            how: "exited with code 1".to_owned(),
        },
        Recovered {
            generation: 2,
            world_size: 1,
            epoch: 3,
            completed: 13,
            seconds: 0.1 + 0.2,
            steps_lost: 1,
        },
        Left {
            who: "worker 7 on host-b".to_owned(),
        },
        Stalled {
            line: "rank 3 on host-b has been in data wait".to_owned(),
        },
        Checkpoint {
            epoch: 4,
            completed: 0,
            bytes: 134_000_000,
            seconds: 1.25,
        },
        CorruptCheckpoint {
            reason: "no manifest".to_owned(),
        },
        Ended {
            reason: "patience".to_owned(),
            ok: true,
        },
    ]
}

#[test]
fn every_event_comes_back_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path()).unwrap();
    for (at, entry) in every_entry().iter().enumerate() {
        let time = format!("2026-11-24T13:45:07.{at:03}Z");
        let entry = entry.clone();
        journal.append_all(&[JournalLine { time, entry }]).unwrap();
    }
    let lines = journal.lines().unwrap();
    assert_eq!(lines[1].time, "2026-11-24T13:45:07.001Z");
    let read: Vec<_> = lines.into_iter().map(|line| line.entry).collect();
    assert_eq!(read, every_entry());

    let text = std::fs::read_to_string(directory.path().join(EVENTS)).unwrap();
    assert_eq!(
        text.lines().nth(1).unwrap(),
        "{\"time\":\"2026-11-24T13:45:07.001Z\",\"event\":\"resumed\",\"epoch\":3,\
         \"completed\":12}"
    );
}

#[test]
fn lines_that_are_added_together_stay_apart() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path()).unwrap();
    let lines: Vec<_> = every_entry().into_iter().map(JournalLine::now).collect();
    journal.append_all(&lines).unwrap();
    journal.append_all(&[]).unwrap();
    journal.append(every_entry()[0].clone()).unwrap();
    let read: Vec<_> = journal.lines().unwrap();
    assert_eq!(read.len(), lines.len() + 1);
    assert_eq!(read[..lines.len()], lines);
}

#[test]
fn a_crash_anywhere_in_a_line_costs_that_line_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(EVENTS);
    let entries = every_entry();
    let mut journal = Journal::open(directory.path()).unwrap();
    journal.append(entries[0].clone()).unwrap();
    let first = std::fs::read(&path).unwrap().len();
    journal.append(entries[3].clone()).unwrap();
    drop(journal);
    let whole = std::fs::read(&path).unwrap();

    for cut in first..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let mut journal = Journal::open(directory.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole[..first]);
        journal.append(entries[9].clone()).unwrap();
        let read: Vec<_> = journal.lines().unwrap();
        assert_eq!(read.len(), 2, "cut at {cut}");
        assert_eq!(read[1].entry, entries[9]);
    }
}

#[test]
fn a_failed_append_leaves_no_piece_for_the_next_one_to_join() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path()).unwrap();
    journal.append(every_entry()[0].clone()).unwrap();
    // As a full disk leaves it when even the taking back failed.
    let mut other = File::options()
        .append(true)
        .open(directory.path().join(EVENTS))
        .unwrap();
    other.write_all(b"{\"time\":\"19").unwrap();
    journal.append(every_entry()[9].clone()).unwrap();
    assert_eq!(journal.lines().unwrap().len(), 2);

    journal.file = File::options().write(true).open("/dev/full").unwrap();
    journal.length = 0;
    let full = journal.append(every_entry()[0].clone()).unwrap_err();
    assert!(
        full.to_string().contains("events.jsonl: No space left"),
        "{full}"
    );
}

#[test]
fn a_damaged_line_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path()).unwrap();
    journal.append(every_entry()[0].clone()).unwrap();
    let path = directory.path().join(EVENTS);
    let mut text = std::fs::read(&path).unwrap();
    text.extend(b"{\"time\":\"now\",\"event\":\"exploded\"}\n");
    std::fs::write(&path, text).unwrap();
    let damaged = journal.lines().unwrap_err().to_string();
    assert!(
        damaged.contains("events.jsonl is damaged in line 2: unknown variant `exploded`"),
        "{damaged}"
    );
}
