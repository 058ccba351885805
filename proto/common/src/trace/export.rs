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

use super::span::attribute;
use super::{Span, TraceId};

/// Spans that wait while the collector is slow.
const WAITING: usize = 512;
/// How long one request may take. A process that ends stays for the last.
const PATIENCE: Duration = Duration::from_secs(2);

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
            .connect_lazy();
        let sending = Sending {
            client: TraceServiceClient::new(channel),
            endpoint: endpoint.to_owned(),
            resource: resource(service),
            trace,
            failing: false,
            complained: false,
        };
        let (waiting, spans) = mpsc::channel(WAITING);
        let (last, ends) = oneshot::channel();
        let task = tokio::spawn(sending.run(spans, ends));
        Some((Spans { trace, waiting }, Self { last, task }))
    }

    /// Sends what still waits, if the collector took what came before.
    pub async fn finish(self) {
        // A task that has ended needs no order, and one that panicked has said so.
        let _ = self.last.send(());
        let _ = self.task.await;
    }
}

struct Sending {
    client: TraceServiceClient<Channel>,
    endpoint: String,
    resource: Resource,
    trace: TraceId,
    /// The collector did not take the last spans.
    failing: bool,
    complained: bool,
}

impl Sending {
    async fn run(mut self, mut spans: mpsc::Receiver<Span>, mut ends: oneshot::Receiver<()>) {
        let mut over = false;
        while !over {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                _ = &mut ends => {
                    over = true;
                    if !self.failing {
                        batch.extend(std::iter::from_fn(|| spans.try_recv().ok()));
                    }
                }
                taken = spans.recv_many(&mut batch, WAITING) => over = taken == 0,
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
        let why = match tokio::time::timeout(PATIENCE, self.client.export(request)).await {
            Ok(Ok(_)) => None,
            Ok(Err(status)) => Some(status.message().to_owned()),
            Err(_) => Some(format!("no answer in {} s", PATIENCE.as_secs())),
        };
        self.failing = why.is_some();
        if let Some(why) = why
            && !std::mem::replace(&mut self.complained, true)
        {
            let endpoint = &self.endpoint;
            tracing::warn!("{endpoint} takes no traces, so they are dropped: {why}");
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
    use std::time::{Instant, SystemTime};

    use super::*;

    #[tokio::test]
    async fn a_collector_that_never_answers_holds_nobody_up() {
        // The kernel accepts for it.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let trace = TraceId::of_run("a");
        let started = Instant::now();
        let (spans, exporter) = Exporter::start(&endpoint, "test", trace).unwrap();
        for epoch in 0..2 * WAITING as u32 {
            let now = SystemTime::now();
            spans.send(Span::new("epoch", trace.epoch(epoch, 1), None, now));
        }
        assert!(started.elapsed() < Duration::from_millis(500));
        tokio::task::yield_now().await;
        exporter.finish().await;
        assert!(started.elapsed() < 2 * PATIENCE, "{:?}", started.elapsed());
    }

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
