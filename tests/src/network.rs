//! Several hosts on one machine: network namespaces with an address each, behind a bridge.

use std::process::{Command, Stdio};

/// Hosts, removed when this is dropped. Host `n` has the address 10.213.0.(n + 1).
#[derive(Debug)]
pub struct Network {
    switch: String,
    hosts: Vec<String>,
}

impl Network {
    /// None, with a printed reason, without the right to create network namespaces.
    pub fn with_hosts(hosts: usize) -> Option<Self> {
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

    /// Takes the link of a host down at the bridge: the host keeps its address, and its packets
    /// are lost without an error.
    pub fn disconnect(&self, host: usize) {
        self.set_link(host, "down");
    }

    /// Takes the link of a host up again.
    pub fn reconnect(&self, host: usize) {
        self.set_link(host, "up");
    }

    fn set_link(&self, host: usize, state: &str) {
        ip(&format!("-n {} link set port{host} {state}", self.switch)).expect("the link exists");
    }

    /// The same command, to be run on one of the hosts.
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
            // This fails for a namespace that was not created.
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
