//! The way to the collector: a task of its own, which sends together what came meanwhile. Whoever
//! hands it a span never waits; what the collector does not take is dropped, which is said once.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::span::attribute;
use crate::{Span, TraceId};

/// Spans that wait while the collector is slow.
const WAITING: usize = 512;
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last one may take, for which a process stays.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// Whether spans can be sent there: in the clear, by gRPC.
#[must_use]
pub fn is_endpoint(url: &str) -> bool {
    url.parse::<Uri>()
        .is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.port().is_some())
}

/// Where the spans of a run are put in.
#[derive(Debug, Clone)]
pub struct Spans {
    trace: TraceId,
    waiting: mpsc::Sender<Span>,
}

impl Spans {
    /// The trace that they are of.
    #[must_use]
    pub fn trace(&self) -> TraceId {
        self.trace
    }

    /// Takes a span that has ended, or drops it when too many wait.
    pub fn send(&self, span: Span) {
        // When the task is gone, so is nearly the process.
        let _ = self.waiting.try_send(span);
    }
}

/// The task that sends them.
#[derive(Debug)]
pub struct Exporter {
    last: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Begins to send spans of `trace` to the collector at `endpoint`, which need not be there;
    /// nothing where that is no endpoint. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(endpoint: &str, service: &str, trace: TraceId) -> Option<(Spans, Self)> {
        let channel = Endpoint::from_shared(endpoint.to_owned())
            .ok()
            .filter(|_| is_endpoint(endpoint))?
            .connect_timeout(LAST_PATIENCE)
            .timeout(PATIENCE)
            .connect_lazy();
        let sending = Sending {
            client: TraceServiceClient::new(channel),
            endpoint: endpoint.to_owned(),
            resource: resource(service),
            trace,
            complained: false,
        };
        let (waiting, spans) = mpsc::channel(WAITING);
        let (last, ends) = oneshot::channel();
        let task = tokio::spawn(sending.run(spans, ends));
        Some((Spans { trace, waiting }, Self { last, task }))
    }

    /// Sends what still waits, unless that takes too long.
    pub async fn finish(self) {
        // A task that has ended needs no order.
        let _ = self.last.send(());
        let _ = tokio::time::timeout(LAST_PATIENCE, self.task).await;
    }
}

struct Sending {
    client: TraceServiceClient<Channel>,
    endpoint: String,
    resource: Resource,
    trace: TraceId,
    complained: bool,
}

impl Sending {
    async fn run(mut self, mut spans: mpsc::Receiver<Span>, mut ends: oneshot::Receiver<()>) {
        let mut over = false;
        while !over {
            let mut batch = Vec::new();
            tokio::select! {
                taken = spans.recv_many(&mut batch, WAITING) => over = taken == 0,
                _ = &mut ends => {
                    over = true;
                    batch.extend(std::iter::from_fn(|| spans.try_recv().ok()));
                }
            }
            if !batch.is_empty() {
                self.send(batch).await;
            }
        }
    }

    async fn send(&mut self, spans: Vec<Span>) {
        let trace_id = self.trace.to_vec();
        let spans = spans.into_iter().map(|Span(mut span)| {
            span.trace_id.clone_from(&trace_id);
            span
        });
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: env!("CARGO_PKG_NAME").to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        ..Default::default()
                    }),
                    spans: spans.collect(),
                    ..Default::default()
                }],
                ..Default::default()
            }],
        };
        if let Err(status) = self.client.export(request).await
            && !std::mem::replace(&mut self.complained, true)
        {
            tracing::warn!(
                "the collector at {} takes no spans, so they are dropped: {}",
                self.endpoint,
                status.message()
            );
        }
    }
}

/// Who sends.
fn resource(service: &str) -> Resource {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    Resource {
        attributes: vec![
            attribute("service.name", service),
            attribute("service.version", env!("CARGO_PKG_VERSION")),
            attribute("host.name", host.as_ref()),
            attribute("process.pid", std::process::id()),
        ],
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_without_tls_and_with_a_port() {
        for good in ["http://localhost:4317", "http://[::1]:4317", "http://a:1/"] {
            assert!(is_endpoint(good), "{good}");
        }
        for bad in [
            "",
            "localhost:4317",
            "http://a",
            "https://a:4317",
            "http:// a:1",
        ] {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }
}
