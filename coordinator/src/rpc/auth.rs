//! Admits calls: checks the token where one is required, before anything of the call is read. It
//! wraps every service, so that a new one cannot forget it.

use std::sync::Arc;

use common::token::{HEADER, Token};
use subtle::ConstantTimeEq;
use tonic::service::Interceptor;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Request, Status};

use super::refusals::{Reason, Refusals};
use super::transport::connection::{Caller, Remote};
use crate::config::exposure::CallPolicy;

/// Admits the calls of one run; clones share what they accept.
#[derive(Debug, Clone)]
pub struct TokenAuth {
    /// The digest of the token of `--token-file`.
    accepted: Option<[u8; 32]>,
    refusals: Arc<Refusals>,
}

impl TokenAuth {
    pub(super) fn new(accepted: Option<[u8; 32]>, refusals: Arc<Refusals>) -> Self {
        Self { accepted, refusals }
    }

    fn check(&self, policy: CallPolicy, header: Option<&[u8]>) -> Result<(), &'static str> {
        match (policy, header) {
            (CallPolicy::Allow, _) => Ok(()),
            (CallPolicy::Deny, _) => Err(
                "this run accepts only the workers that its coordinator starts; to let others join \
                 with a join token, start it with --token-file",
            ),
            (CallPolicy::RequireToken, None) => Err(
                "this run requires a join token: give the worker the --token-file of the \
                 coordinator",
            ),
            (CallPolicy::RequireToken, Some(header)) if self.accepts(header) => Ok(()),
            (CallPolicy::RequireToken, Some(_)) => Err("the join token is not the one of this run"),
        }
    }

    /// Compares digests in constant time. A digest has one length, and its sender cannot choose
    /// it, so even a leak of how far two agree would tell nothing about the token.
    fn accepts(&self, header: &[u8]) -> bool {
        let shown = Token::digest_of_header(header).unwrap_or_default();
        self.accepted
            .is_some_and(|accepted| accepted.ct_eq(&shown).into())
    }
}

impl Interceptor for TokenAuth {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let Some(caller) = request.extensions().get::<Caller>().cloned() else {
            return Err(Status::internal("the connection has no caller"));
        };
        let header = request.metadata().get(HEADER).map(|value| value.as_bytes());
        if let Err(why) = self.check(caller.policy(), header) {
            self.refusals.say(Reason::Credentials, caller.remote(), why);
            caller.refuse();
            return Err(Status::unauthenticated(why));
        }
        caller.admit();
        // No handler needs the token.
        request.metadata_mut().remove(HEADER);
        if let Remote::Tcp(address) = caller.remote() {
            request.extensions_mut().insert(TcpConnectInfo {
                local_addr: None,
                remote_addr: Some(address),
            });
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_of_the_run_passes() {
        let token = Token::parse("0123456789abcdef").unwrap();
        let auth = TokenAuth::new(Some(token.digest()), Arc::default());
        let check = |header: Option<&[u8]>| auth.check(CallPolicy::RequireToken, header);
        let header = token.header().unwrap();
        assert_eq!(check(Some(header.as_bytes())), Ok(()));
        let other = Token::parse("0123456789abcdeX").unwrap().header().unwrap();
        let longer = [header.as_bytes(), b"0"].concat();
        let shorter = &header.as_bytes()[..header.as_bytes().len() - 1];
        for wrong in [
            None,
            Some(other.as_bytes()),
            Some(&longer),
            Some(shorter),
            Some(&b"Bearer "[..]),
            Some(b""),
            Some(b"Basic x"),
        ] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
        let none = TokenAuth::new(None, Arc::default());
        assert!(
            none.check(CallPolicy::RequireToken, Some(b"Basic x"))
                .is_err()
        );
    }

    #[test]
    fn without_a_token_a_policy_allows_all_calls_or_none() {
        let auth = TokenAuth::new(None, Arc::default());
        for header in [None, Some(&b"Bearer 0123456789abcdef"[..])] {
            assert!(auth.check(CallPolicy::Allow, header).is_ok());
            assert!(auth.check(CallPolicy::Deny, header).is_err());
        }
    }
}
