//! What must protect the TCP listener, as a table of plain facts. It opens no file and no socket.

use std::net::SocketAddr;

use crate::config::RunConfig;

/// The facts that decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Certificates are given, so the listener speaks mutual TLS.
    pub tls: bool,
    /// A file with a join token is given.
    pub token_file: bool,
    /// The coordinator starts its workers itself.
    pub spawns: bool,
    /// `--insecure`: every process that reaches the listener may join.
    pub insecure: bool,
}

/// What the calls of a listener must show to be admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallPolicy {
    /// Nothing: reaching the listener is enough.
    Allow,
    /// The token of `--token-file`.
    RequireToken,
    /// No call is admitted.
    Deny,
}

impl Policy {
    /// The facts of a configuration.
    #[must_use]
    pub fn of(config: &RunConfig) -> Self {
        Self {
            tls: config.tls_files().is_some(),
            token_file: config.token_file.is_some(),
            spawns: !config.no_spawn,
            insecure: config.insecure,
        }
    }

    /// Whether `listen` may be used: it is on loopback, something protects it, or the user wants
    /// it unprotected.
    #[must_use]
    pub fn allows(self, listen: SocketAddr) -> bool {
        is_loopback(listen) || self.tls || self.token_file || self.insecure
    }

    /// What calls over TCP must show. A given token counts beside TLS too. Without one, TLS, or
    /// `--insecure`, a run that starts its own workers, which come through the Unix socket, takes
    /// no others.
    #[must_use]
    pub fn calls_over_tcp(self) -> CallPolicy {
        if self.token_file {
            CallPolicy::RequireToken
        } else if self.spawns && !self.tls && !self.insecure {
            CallPolicy::Deny
        } else {
            CallPolicy::Allow
        }
    }

    /// A warning about what is allowed but risky.
    #[must_use]
    pub fn warning(self, listen: SocketAddr) -> Option<String> {
        if is_loopback(listen) || self.tls {
            None
        } else if self.token_file {
            Some(format!(
                "the join token and all messages pass {listen} unencrypted; --tls-cert, --tls-key \
                 and --tls-ca encrypt them"
            ))
        } else {
            Some(format!(
                "--insecure: every process that reaches {listen} can join this run"
            ))
        }
    }
}

/// Also for an IPv4 address that is mapped into IPv6.
fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy((tls, token_file, spawns, insecure): (bool, bool, bool, bool)) -> Policy {
        Policy {
            tls,
            token_file,
            spawns,
            insecure,
        }
    }

    #[test]
    fn other_machines_need_a_certificate_a_token_or_insecure() {
        for (facts, elsewhere) in [
            ((false, false, false, false), false),
            ((false, false, true, false), false),
            ((true, false, false, false), true),
            ((false, true, false, false), true),
            ((false, false, false, true), true),
        ] {
            let policy = policy(facts);
            for (listen, loopback) in [
                ("127.0.0.1:0", true),
                ("127.8.9.1:7000", true),
                ("[::1]:7000", true),
                ("[::ffff:127.0.0.1]:7000", true),
                ("0.0.0.0:7000", false),
                ("[::]:7000", false),
                ("[::ffff:10.0.0.1]:7000", false),
                ("192.168.0.1:7000", false),
            ] {
                let listen = listen.parse().unwrap();
                let allowed = policy.allows(listen);
                assert_eq!(allowed, loopback || elsewhere, "{policy:?} {listen}");
                let warned = policy.warning(listen).is_some();
                let risky = !loopback && !policy.tls;
                assert!(!allowed || warned == risky, "{policy:?} {listen}");
            }
        }
    }

    #[test]
    fn calls_over_tcp_need_a_token_or_are_denied_where_nothing_else_protects_the_run() {
        use CallPolicy::{Allow, Deny, RequireToken};
        // tls, token file, spawns, insecure
        for (facts, expected) in [
            ((false, false, false, false), Allow),
            ((false, false, true, false), Deny),
            ((false, false, true, true), Allow),
            ((false, true, false, false), RequireToken),
            ((false, true, true, true), RequireToken),
            ((true, false, false, false), Allow),
            ((true, false, true, false), Allow),
            ((true, true, true, false), RequireToken),
            ((true, true, false, true), RequireToken),
        ] {
            assert_eq!(policy(facts).calls_over_tcp(), expected, "{facts:?}");
        }
    }
}
