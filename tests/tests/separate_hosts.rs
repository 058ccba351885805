//! Hosts as network namespaces: a run recovers from a link that goes down, and the topology of
//! `deploy/` works. Without the right to create namespaces these tests are skipped with a message.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "admission/certificates.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod certificates;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use integration_tests::baseline::Baseline;
use integration_tests::network::Network;
use integration_tests::{Run, SMALL, STEADY, demo_set, worker};

use certificates::{Authority, HOST};

#[test]
fn a_link_that_goes_down_and_up_does_not_change_the_result() {
    let Some(network) = Network::with_hosts(2) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("authority of the run");
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
            run.track(&mut command);
            command.spawn().unwrap()
        })
        .into();
    run.until("a first epoch", |run| run.output().contains(" 1/3 "));
    network.disconnect(1);
    let disconnected = Instant::now();
    run.until("the loss to be noticed", |run| {
        run.output().contains("lost rank ")
    });
    let noticed = disconnected.elapsed();
    eprintln!("loss noticed after {noticed:.1?}");
    assert!(noticed < Duration::from_secs(15), "{noticed:?}");
    network.reconnect(1);
    let ended = run.wait().succeeded().left_no_process();
    for worker in &mut workers {
        assert!(worker.wait().unwrap().success(), "{}", ended.output);
    }
    assert!(
        ended.output.contains("2 ranks continue from"),
        "{}",
        ended.output
    );
    Baseline::of(STEADY).assert_same(&ended);
}

/// A Prometheus with the rules of `deploy/` that scrapes one coordinator; stopped when dropped.
struct Prometheus {
    child: Child,
    address: String,
}

impl Prometheus {
    /// None, with a printed reason, where Prometheus is not installed.
    fn start(network: &Network, host: usize, target: &str, folder: &Path) -> Option<Self> {
        if Command::new("prometheus")
            .arg("--version")
            .output()
            .is_err()
        {
            eprintln!("Prometheus is not installed: its part of the test is skipped");
            return None;
        }
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus");
        let copied = Command::new("cp")
            .arg("-r")
            .arg(deploy)
            .arg(folder)
            .status();
        assert!(copied.unwrap().success());
        let folder = folder.join("prometheus");
        let targets = format!("- targets: [\"{target}\"]\n");
        std::fs::create_dir_all(folder.join("targets")).unwrap();
        std::fs::write(folder.join("targets/coordinator.yml"), targets).unwrap();
        let config = folder.join("prometheus.yml");
        let text = std::fs::read_to_string(&config).unwrap();
        let text = text.replace("scrape_interval: 5s", "scrape_interval: 1s");
        std::fs::write(&config, text).unwrap();
        let address = format!("{}:9090", Network::address(host));
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"));
        let mut command = network.on(host, &command);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        Some(Self { child, address })
    }

    /// The value of an expression, as promtool prints it.
    fn query(&self, network: &Network, host: usize, expression: &str) -> String {
        let mut command = Command::new("promtool");
        command.args(["query", "instant"]);
        command
            .arg(format!("http://{}", self.address))
            .arg(expression);
        let answer = network.on(host, &command).output().unwrap();
        String::from_utf8_lossy(&answer.stdout).into_owned()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail only if it has exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The coordinator, two workers without data, and Prometheus, each on its own host, and with a
/// token, as in `deploy/`.
#[test]
fn coordinator_workers_and_prometheus_on_hosts_of_their_own() {
    let Some(network) = Network::with_hosts(4) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "a-secret-of-at-least-so-many-letters\n").unwrap();
    let demo = demo_set();
    let demo = demo.parent().unwrap();
    let token = format!("--token-file={}", token.display());
    let (coordinator, scraped) = (Network::address(0), Network::address(0) + ":9095");
    let own = [
        format!("--listen={coordinator}:7000"),
        format!("--metrics-listen={scraped}"),
        format!("--data={}", demo.display()),
        "--metrics-linger=5".to_owned(),
        "--epochs=4".to_owned(),
        token.clone(),
    ];
    let small = SMALL.iter().filter(|argument| {
        let ours = ["--data", "--metrics-listen", "--metrics-linger"];
        !ours.iter().any(|prefix| argument.starts_with(prefix))
    });
    let mut arguments: Vec<&str> = small.copied().collect();
    arguments.extend(["--no-spawn", "--workers=2"]);
    arguments.extend(own.iter().map(String::as_str));
    let mut run = Run::start_with(&arguments, |command| *command = network.on(0, command));
    run.until("an address to join", |run| run.join_address().is_some());
    let prometheus = Prometheus::start(&network, 3, &scraped, folder.path());
    let mut workers: Vec<Child> = [1, 2]
        .map(|host| {
            let mut command = worker(&format!("http://{coordinator}:7000"));
            let cache = folder.path().join(format!("cache-{host}"));
            command.args([&token, "--data=coordinator"]);
            command.arg(format!("--cache-dir={}", cache.display()));
            let mut command = network.on(host, &command);
            run.track(&mut command);
            command.spawn().unwrap()
        })
        .into();
    if let Some(prometheus) = &prometheus {
        for expression in [
            "finetune_steps_total > 0",
            "finetune_data_sent_bytes_total > 100000",
            "finetune_workers{state=\"healthy\"} == 2",
        ] {
            run.until(expression, |_| {
                prometheus.query(&network, 3, expression).contains("=>")
            });
        }
    }
    let ended = run.wait().succeeded().left_no_process();
    for worker in &mut workers {
        assert!(worker.wait().unwrap().success(), "{}", ended.output);
    }
    let generations = ended.output.matches("group: 2 ranks").count();
    assert_eq!(generations, 1, "{}", ended.output);
}
