//! A worker that sends faster than the coordinator reads.

use super::*;

#[test]
fn a_flood_of_messages_slows_down_its_own_session_only() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let secret = "0123456789abcdef-of-this-test";
    let token = token_file(folder.path(), secret);
    let listen = "--listen=127.0.0.1:0";
    // One more worker than needed may join, so that the session is not ended for another reason.
    let room = "--max-workers=3";
    // Epochs of 50 steps: at the end of each the coordinator holds a checkpoint of 134 MB in
    // memory, which is not to happen between the two measurements.
    let long = "--limit-per-class=100";
    let mut run = Run::small(2, &[ENDLESS, &[&token, listen, room, long]].concat());
    run.until("a first epoch, and what it saves", |run| {
        let is_there = |name: &str| run.path().join(name).exists();
        is_there("best.safetensors") && is_there("checkpoints/latest") && run.steps() > 52
    });
    for pid in run.workers() {
        for shown in ["cmdline", "environ"] {
            let shown = read(format!("/proc/{pid}/{shown}"));
            assert!(!shown.is_empty() && !shown.contains(secret), "{shown}");
        }
    }
    let url = tcp_url(&run);
    let (before, steps) = (resident_kib(run.pid()), run.steps());
    let flood = RogueClient::at(&url, Some(secret)).flood();
    run.until("ten steps meanwhile", |run| run.steps() >= steps + 10);
    let asked = Instant::now();
    assert!(status(&run).contains("\"workers\""));
    let (answered, after) = (asked.elapsed(), resident_kib(run.pid()));
    assert!(run.steps() < 100, "the second epoch is over");
    let sent = flood.stop();
    assert!(sent > 4_000, "only {sent} messages");
    assert!(answered < Duration::from_secs(2), "{answered:?}");
    assert!(after < before + (64 << 10), "{sent} messages: {after} KiB");
    let twice = RogueClient::at(&url, Some(secret)).register_twice();
    assert_eq!(twice.code(), Code::InvalidArgument, "{twice}");
    run.signal(Signal::INT);
    let ended = run.wait();
    assert_eq!(ended.code, 130, "{}", ended.output);
}
