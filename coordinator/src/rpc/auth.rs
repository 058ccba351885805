//! Admits calls: looks at the token where one is asked for, before anything of the call is read.
//! It stands in front of every service, so that a new one cannot forget it.

use std::sync::Arc;

use common::token::{HEADER, Token};
use subtle::ConstantTimeEq;
use tonic::service::Interceptor;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Request, Status};

use super::refusals::{Kind, Refusals};
use super::transport::connection::Caller;

/// The guard of one run; clones share what they accept.
#[derive(Debug, Clone)]
pub struct TokenAuth {
    accepted: Arc<[[u8; 32]]>,
    refusals: Arc<Refusals>,
}

impl TokenAuth {
    pub(super) fn new(accepted: Arc<[[u8; 32]]>, refusals: Arc<Refusals>) -> Self {
        Self { accepted, refusals }
    }

    /// Compares digests, all of them, and each in constant time. The digest makes lengths equal
    /// and what is compared unpredictable to the sender, so even a leak of how far two agree
    /// would tell nothing about the token; `subtle` leaves no such leak in the first place.
    fn check(&self, header: Option<&[u8]>) -> Result<(), &'static str> {
        let Some(header) = header else {
            return Err(
                "this coordinator asks for a join token: give the worker the one of its \
                 --token-file (a run with spawned workers and no --token-file takes no others)",
            );
        };
        let shown = Token::digest_of_header(header).unwrap_or_default();
        let known = self
            .accepted
            .iter()
            .fold(subtle::Choice::from(0), |known, accepted| {
                known | accepted.ct_eq(&shown)
            });
        if known.into() {
            Ok(())
        } else {
            Err("the join token is not the one of this run")
        }
    }
}

impl Interceptor for TokenAuth {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let Some(caller) = request.extensions().get::<Caller>().cloned() else {
            return Err(Status::internal("a connection without an address"));
        };
        if caller.needs_token() {
            let header = request.metadata().get(HEADER).map(|value| value.as_bytes());
            if let Err(why) = self.check(header) {
                self.refusals.say(Kind::Token, caller.remote(), why);
                return Err(Status::unauthenticated(why));
            }
        }
        caller.admit();
        // Nothing behind this line has a use for the token.
        request.metadata_mut().remove(HEADER);
        request.extensions_mut().insert(TcpConnectInfo {
            local_addr: None,
            remote_addr: Some(caller.remote()),
        });
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_accepted_token_passes() {
        let (one, two) = (Token::fresh().unwrap(), Token::fresh().unwrap());
        let accepted = [one.digest(), two.digest()];
        let guard = TokenAuth::new(Arc::new(accepted), Arc::default());
        for token in [&one, &two] {
            let header = token.header().unwrap();
            assert_eq!(guard.check(Some(header.as_bytes())), Ok(()));
            let longer = [header.as_bytes(), b"0"].concat();
            assert!(guard.check(Some(&longer)).is_err());
            let shorter = &header.as_bytes()[..header.as_bytes().len() - 1];
            assert!(guard.check(Some(shorter)).is_err());
        }
        let other = Token::fresh().unwrap().header().unwrap();
        for header in [
            None,
            Some(other.as_bytes()),
            Some(&b"Bearer "[..]),
            Some(b""),
        ] {
            assert!(guard.check(header).is_err(), "{header:?}");
        }
        let none = TokenAuth::new(Arc::new([]), Arc::default());
        assert!(none.check(Some(b"Basic x")).is_err());
    }
}
