//! Finished spans and their way to the collector: OpenTelemetry's batch processor and its OTLP
//! exporter over gRPC. Sending never blocks: spans that the collector does not take are dropped,
//! which is logged once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_otlp::{RetryPolicy, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks,
    SpanProcessor,
};
use tonic::transport::{Endpoint, Uri};

use super::TraceId;

/// Prefix of the attributes of this program.
const PREFIX: &str = "finetune.";
/// Spans that wait while the collector is slow.
const QUEUE: usize = 512;
/// How long a finished span waits for others to be sent with.
const BATCH_DELAY: Duration = Duration::from_millis(100);
/// Time for one request.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for the last spans when the process ends: a request, and what one before it has left.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether spans can be sent to `url`: gRPC without TLS, with a port.
#[must_use]
pub fn is_endpoint(url: &str) -> bool {
    url.parse::<Uri>()
        .is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.port().is_some())
}

/// A span that has ended.
#[derive(Debug, Clone)]
pub struct Span(SpanData);

impl Span {
    /// A span from `started` until now.
    #[must_use]
    pub fn new(
        name: &'static str,
        id: SpanId,
        parent: Option<SpanId>,
        started: SystemTime,
    ) -> Self {
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"));
        Self(SpanData {
            // `Spans::send` adds the trace.
            span_context: context(opentelemetry::TraceId::INVALID, id),
            parent_span_id: parent.unwrap_or(SpanId::INVALID),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: started,
            end_time: SystemTime::now().max(started),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: scope.with_version(env!("CARGO_PKG_VERSION")).build(),
        })
    }

    /// Sets another end.
    #[must_use]
    pub fn ended(mut self, at: SystemTime) -> Self {
        self.0.end_time = at.max(self.0.start_time);
        self
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        let key = format!("{PREFIX}{key}");
        self.0.attributes.push(KeyValue::new(key, value));
        self
    }

    /// Adds an attribute that is a whole number.
    #[must_use]
    pub fn count(self, key: &str, number: impl Into<u64>) -> Self {
        self.with(key, i64::try_from(number.into()).unwrap_or(i64::MAX))
    }

    /// Marks the span as failed.
    #[must_use]
    pub fn failed(mut self, reason: &str) -> Self {
        self.0.status = Status::error(reason.to_owned());
        self
    }
}

fn context(trace: opentelemetry::TraceId, span: SpanId) -> SpanContext {
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
}

/// Takes the spans of one run; cheap to clone.
#[derive(Debug, Clone)]
pub struct Spans {
    trace: TraceId,
    processor: Arc<BatchSpanProcessor>,
}

impl Spans {
    /// Starts the export of `trace` to the collector at `endpoint`, which need not be up; `None`
    /// where that is no endpoint. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(endpoint: &str, service: &'static str, trace: TraceId) -> Option<Self> {
        let channel = Endpoint::from_shared(endpoint.to_owned())
            .ok()
            .filter(|_| is_endpoint(endpoint))?
            .connect_timeout(EXPORT_TIMEOUT)
            .timeout(EXPORT_TIMEOUT)
            .connect_lazy();
        // A retry would only make the last spans wait longer.
        let otlp = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_channel(channel)
            .with_retry_policy(RetryPolicy::disabled())
            .build()
            .inspect_err(|error| tracing::warn!("cannot send traces to {endpoint}: {error}"))
            .ok()?;
        let mut exporter = WarnOnce {
            inner: otlp,
            endpoint: endpoint.to_owned(),
            warned: AtomicBool::new(false),
        };
        exporter.set_resource(&resource(service));
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_scheduled_delay(BATCH_DELAY)
            .build();
        let processor = BatchSpanProcessor::new(exporter, config).into();
        Some(Self { trace, processor })
    }

    /// The trace of these spans.
    #[must_use]
    pub fn trace(&self) -> TraceId {
        self.trace
    }

    /// Queues `span`, or drops it when the queue is full.
    pub fn send(&self, span: Span) {
        let Span(mut span) = span;
        span.span_context = context(self.trace.into(), span.span_context.span_id());
        self.processor.on_end(span);
    }

    /// Sends the spans that still wait, within three seconds. Later ones are dropped.
    pub async fn finish(self) {
        let shutdown = move || self.processor.shutdown_with_timeout(SHUTDOWN_TIMEOUT);
        // Lost spans were logged, and no caller can do more about them.
        let _ = tokio::task::spawn_blocking(shutdown).await;
    }
}

/// Logs the first failure of an exporter.
#[derive(Debug)]
struct WarnOnce {
    inner: opentelemetry_otlp::SpanExporter,
    endpoint: String,
    warned: AtomicBool,
}

impl SpanExporter for WarnOnce {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.inner.export(batch).await;
        if let Err(error) = &result
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            let endpoint = &self.endpoint;
            tracing::warn!("{endpoint} takes no traces, so they are dropped: {error}");
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// The sender, beside what `OTEL_RESOURCE_ATTRIBUTES` says.
fn resource(service: &'static str) -> Resource {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().into_owned();
    Resource::builder()
        .with_service_name(service)
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("host.name", host),
            KeyValue::new("process.pid", i64::from(std::process::id())),
        ])
        .build()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_collector_that_never_answers_delays_nothing_but_the_end_and_that_within_a_bound() {
        // The kernel accepts for it.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let trace = TraceId::of_run("a");
        let started = Instant::now();
        let spans = Spans::start(&endpoint, "test", trace).unwrap();
        for epoch in 0..2 * QUEUE as u32 {
            let now = SystemTime::now();
            spans.send(Span::new("epoch", trace.epoch(epoch, 1), None, now));
        }
        assert!(started.elapsed() < Duration::from_millis(500));
        spans.finish().await;
        let took = started.elapsed();
        assert!(took < SHUTDOWN_TIMEOUT + Duration::from_secs(1), "{took:?}");
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
