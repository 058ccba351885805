//! Two network namespaces as two hosts: a link that is cut and mended costs a run nothing.
//! Needs the right to make namespaces, and says so where it has none.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "uninvited/certificates.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod certificates;

use std::process::Command;
use std::time::{Duration, Instant};

use integration_tests::truth::Truth;
use integration_tests::{Run, SMALL, STEADY, worker};

use certificates::{Authority, HOST};

/// Two hosts and the link between them, until dropped.
struct Network {
    names: [String; 2],
}

impl Network {
    /// `None` where namespaces may not be made.
    fn new() -> Option<Self> {
        let id = std::process::id();
        let network = Self {
            names: [format!("finetune-a-{id}"), format!("finetune-b-{id}")],
        };
        let [a, b] = &network.names;
        if !ip(&["netns", "add", a]) {
            eprintln!("skipped: network namespaces cannot be made here");
            return None;
        }
        let steps: [&[&str]; 7] = [
            &["netns", "add", b],
            &[
                "-n", a, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", b,
            ],
            &["-n", a, "address", "add", "10.213.0.1/24", "dev", "wire"],
            &["-n", b, "address", "add", "10.213.0.2/24", "dev", "wire"],
            &["-n", a, "link", "set", "lo", "up"],
            &["-n", b, "link", "set", "lo", "up"],
            &["-n", a, "link", "set", "wire", "up"],
        ];
        for step in steps {
            if !ip(step) {
                eprintln!("skipped: `ip {}` is not possible here", step.join(" "));
                return None;
            }
        }
        network.mend();
        Some(network)
    }

    /// The far end goes down: the near one keeps its address, and what it sends is lost in
    /// silence.
    fn cut(&self) {
        assert!(ip(&["-n", &self.names[1], "link", "set", "wire", "down"]));
    }

    fn mend(&self) {
        assert!(ip(&["-n", &self.names[1], "link", "set", "wire", "up"]));
    }

    /// The same command, run on one of the hosts.
    fn on(&self, host: usize, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.names[host]]);
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside.current_dir(command.get_current_dir().unwrap());
        inside.stdin(std::process::Stdio::null());
        inside
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&["netns", "delete", name]);
        }
    }
}

fn ip(arguments: &[&str]) -> bool {
    let done = Command::new("ip").args(arguments).output();
    done.is_ok_and(|done| done.status.success())
}

#[test]
fn a_link_that_is_cut_and_mended_costs_nothing() {
    let Some(network) = Network::new() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("the run's own");
    let certificates = authority.issue(folder.path());
    let certificates: Vec<&str> = certificates.iter().map(String::as_str).collect();
    let listen = format!("--listen={HOST}:7000");
    let arguments = [
        &["--no-spawn", "--workers=2", &listen],
        SMALL,
        STEADY,
        &certificates,
    ]
    .concat();
    let mut run = Run::start_with(&arguments, |command| *command = network.on(0, command));
    run.until("an address to join", |run| run.join_address().is_some());
    let mut workers: Vec<_> = [0, 1]
        .map(|host| {
            let mut command = worker(&format!("https://{HOST}:7000"));
            command.args(&certificates);
            let mut command = network.on(host, &command);
            run.adopt(&mut command);
            command.spawn().unwrap()
        })
        .into();
    run.until("a first epoch", |run| run.output().contains(" 1/3 "));
    network.cut();
    let cut = Instant::now();
    run.until("the loss to be noticed", |run| {
        run.output().contains("lost rank ")
    });
    let noticed = cut.elapsed();
    eprintln!("noticed after {noticed:.1?}");
    assert!(noticed < Duration::from_secs(15), "{noticed:?}");
    network.mend();
    let ended = run.wait().succeeded().left_no_process();
    for worker in &mut workers {
        assert!(worker.wait().unwrap().success(), "{}", ended.output);
    }
    assert!(ended.output.contains("2 ranks go on"), "{}", ended.output);
    Truth::of(STEADY).assert_same(&ended);
}
