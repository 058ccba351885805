//! Hosts with addresses of their own on one machine: network namespaces behind a switch.

use std::process::{Command, Stdio};

/// So many hosts, until dropped. Host `n` has the address 10.213.0.(n + 1).
#[derive(Debug)]
pub struct Network {
    switch: String,
    hosts: Vec<String>,
}

impl Network {
    /// `None`, after a word about it, where namespaces may not be made.
    pub fn of(hosts: usize) -> Option<Self> {
        let id = std::process::id();
        let network = Self {
            switch: format!("finetune-{id}-switch"),
            hosts: (0..hosts).map(|n| format!("finetune-{id}-{n}")).collect(),
        };
        let built = network.build();
        if let Err(step) = &built {
            eprintln!("skipped: `ip {step}` is not possible here");
        }
        built.is_ok().then_some(network)
    }

    fn build(&self) -> Result<(), String> {
        let switch = &self.switch;
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add switch type bridge"))?;
        ip(&format!("-n {switch} link set switch up"))?;
        for (n, host) in self.hosts.iter().enumerate() {
            ip(&format!("netns add {host}"))?;
            ip(&format!(
                "-n {switch} link add port{n} type veth peer name eth0 netns {host}"
            ))?;
            ip(&format!("-n {switch} link set port{n} master switch"))?;
            ip(&format!("-n {switch} link set port{n} up"))?;
            let address = Self::address(n);
            ip(&format!("-n {host} address add {address}/24 dev eth0"))?;
            ip(&format!("-n {host} link set lo up"))?;
            ip(&format!("-n {host} link set eth0 up"))?;
        }
        Ok(())
    }

    /// The address of a host.
    pub fn address(host: usize) -> String {
        format!("10.213.0.{}", host + 1)
    }

    /// Pulls the cable of a host out at the switch: it keeps its address, and what it sends is
    /// lost in silence.
    pub fn cut(&self, host: usize) {
        self.cable(host, "down");
    }

    /// Puts it in again.
    pub fn mend(&self, host: usize) {
        self.cable(host, "up");
    }

    fn cable(&self, host: usize, state: &str) {
        ip(&format!("-n {} link set port{host} {state}", self.switch)).expect("it was possible");
    }

    /// The same command, run on one of the hosts.
    pub fn on(&self, host: usize, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.hosts[host]]);
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            inside.current_dir(folder);
        }
        inside.stdin(Stdio::null());
        inside
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.hosts.iter().chain([&self.switch]) {
            // One that was not made cannot be removed.
            let _ = ip(&format!("netns delete {name}"));
        }
    }
}

fn ip(step: &str) -> Result<(), String> {
    let done = Command::new("ip").args(step.split(' ')).output();
    match done {
        Ok(done) if done.status.success() => Ok(()),
        _ => Err(step.to_owned()),
    }
}
