//! Counts RPCs, rejected ones included: this layer is outside of the one that checks the token. It
//! reads the path and the headers of the response, and changes neither.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tonic::codegen::{Service, http};
use tonic::{Code, Status};
use tower::Layer;

use crate::observe::metrics::{Method, Metrics};

/// The layer that counts RPCs.
#[derive(Debug, Clone)]
pub struct RpcMetrics(Metrics);

impl RpcMetrics {
    /// Counts into `metrics`.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self(metrics)
    }
}

impl<S> Layer<S> for RpcMetrics {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted {
            inner,
            metrics: self.0.clone(),
        }
    }
}

/// A service whose RPCs are counted.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    metrics: Metrics,
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
        let (response, metrics) = (self.inner.call(request), self.metrics.clone());
        Box::pin(async move {
            let response = response.await?;
            // A rejection has its code in the headers; a stream that begins has none yet.
            let rejected = Status::from_header_map(response.headers());
            let code = rejected.map_or(Code::Ok, |status| status.code());
            metrics.answered(method, code, began.elapsed().as_secs_f64());
            Ok(response)
        })
    }
}

/// The method that a path names; a closed set, since clients may call any path.
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
    fn any_path_is_one_of_a_closed_set_of_methods() {
        assert_eq!(method("/trainer.v1.Trainer/Session"), Method::Session);
        assert_eq!(method("/trainer.v1.Trainer/Upload"), Method::Upload);
        for path in ["", "/", "/trainer.v1.Trainer/", "/x/Session", "/Session/1"] {
            assert_eq!(method(path), Method::Other, "{path}");
        }
    }
}
