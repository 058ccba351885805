//! What must protect a listener, as a table of plain facts. It opens no file and no socket.

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
    /// `--insecure`: whoever reaches the listener may join.
    pub insecure: bool,
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

    /// Whether anything keeps strangers of other machines out of `listen`, or may be left out.
    #[must_use]
    pub fn allows(self, listen: SocketAddr) -> bool {
        is_loopback(listen) || self.tls || self.token_file || self.insecure
    }

    /// Whether calls through the listener have to show a token. A given one counts beside TLS
    /// too. A random one is made for spawned workers and asks nothing of others only where
    /// those are kept out by TLS, or are wanted (`--insecure`).
    #[must_use]
    pub fn needs_token(self) -> bool {
        self.token_file || (self.spawns && !self.tls && !self.insecure)
    }

    /// Whether spawned workers have a listener of their own.
    #[must_use]
    pub fn spawned_apart(self) -> bool {
        self.spawns && self.tls
    }

    /// What is allowed but worth a line.
    #[must_use]
    pub fn warning(self, listen: SocketAddr) -> Option<String> {
        if is_loopback(listen) || self.tls {
            None
        } else if self.token_file {
            Some(format!(
                "the join token and the run travel unencrypted through {listen}; \
                 --tls-cert, --tls-key and --tls-ca change that"
            ))
        } else {
            Some(format!(
                "--insecure: whoever reaches {listen} can join this run"
            ))
        }
    }
}

/// Also for an IPv4 address in IPv6 clothes.
fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Policy = Policy {
        tls: false,
        token_file: false,
        spawns: false,
        insecure: false,
    };

    #[test]
    fn other_machines_are_let_in_only_by_certificate_token_or_wish() {
        for (policy, elsewhere) in [
            (OPEN, false),
            (
                Policy {
                    spawns: true,
                    ..OPEN
                },
                false,
            ),
            (Policy { tls: true, ..OPEN }, true),
            (
                Policy {
                    token_file: true,
                    ..OPEN
                },
                true,
            ),
            (
                Policy {
                    insecure: true,
                    ..OPEN
                },
                true,
            ),
        ] {
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
                assert_eq!(
                    policy.allows(listen),
                    loopback || elsewhere,
                    "{policy:?} {listen}"
                );
                let warned = policy.warning(listen).is_some();
                if policy.allows(listen) {
                    assert_eq!(warned, !loopback && !policy.tls, "{policy:?} {listen}");
                }
            }
        }
    }

    #[test]
    fn who_has_to_show_a_token() {
        // tls, token file, spawns, insecure → needs a token, spawned workers apart
        for (facts, needs, apart) in [
            ((false, false, false, false), false, false),
            ((false, false, true, false), true, false),
            ((false, false, true, true), false, false),
            ((false, true, false, false), true, false),
            ((false, true, true, true), true, false),
            ((true, false, false, false), false, false),
            ((true, false, true, false), false, true),
            ((true, true, true, false), true, true),
            ((true, true, false, true), true, false),
        ] {
            let (tls, token_file, spawns, insecure) = facts;
            let policy = Policy {
                tls,
                token_file,
                spawns,
                insecure,
            };
            assert_eq!(
                (policy.needs_token(), policy.spawned_apart()),
                (needs, apart),
                "{policy:?}"
            );
        }
    }
}
