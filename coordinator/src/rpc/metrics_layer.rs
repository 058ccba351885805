//! Counts the calls at the edge, those that are turned away included: it stands in front of the
//! guard. It reads the path and the head of the answer, and changes neither.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tonic::codegen::{Service, http};
use tonic::{Code, Status};
use tower::Layer;

use crate::observe::metrics::{Method, Traffic};

/// The layer that counts into `Traffic`.
#[derive(Debug, Clone)]
pub struct RpcMetrics(Traffic);

impl RpcMetrics {
    /// Counts what passes into `traffic`.
    #[must_use]
    pub fn new(traffic: Traffic) -> Self {
        Self(traffic)
    }
}

impl<S> Layer<S> for RpcMetrics {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted {
            inner,
            traffic: self.0.clone(),
        }
    }
}

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    traffic: Traffic,
}

impl<S, B, R> Service<http::Request<B>> for Counted<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (method, began) = (method(request.uri().path()), Instant::now());
        let (answer, traffic) = (self.inner.call(request), self.traffic.clone());
        Box::pin(async move {
            let answer = answer.await?;
            // A refusal has its code in the head; what ends well, or breaks later, has none yet.
            let refused = Status::from_header_map(answer.headers());
            let code = refused.map_or(Code::Ok, |status| status.code());
            traffic.answered(method, code, began.elapsed().as_secs_f64());
            Ok(answer)
        })
    }
}

/// The name of what is called; a closed set, since anybody may call anything.
fn method(path: &str) -> Method {
    let called = path.strip_prefix("/trainer.v1.Trainer/");
    let known = Method::ALL
        .iter()
        .find(|method| called == Some(method.label()));
    known.copied().unwrap_or(Method::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_called_the_set_of_methods_is_closed() {
        assert_eq!(method("/trainer.v1.Trainer/Session"), Method::Session);
        assert_eq!(method("/trainer.v1.Trainer/Upload"), Method::Upload);
        for path in ["", "/", "/trainer.v1.Trainer/", "/x/Session", "/Session/1"] {
            assert_eq!(method(path), Method::Other, "{path}");
        }
    }
}
