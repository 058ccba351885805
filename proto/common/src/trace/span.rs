//! A span as OTLP writes it, but for the trace, which is the exporter's.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::any_value::Value as Otlp;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1 as otlp;

use super::SpanId;

/// What this program's attributes begin with.
const PREFIX: &str = "finetune.";

/// Something that began, took a while, and ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Span(pub(crate) otlp::Span);

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub struct Value(Otlp);

impl Span {
    /// What `name` names, within `parent`, from `started` until now.
    #[must_use]
    pub fn new(name: &str, id: SpanId, parent: Option<SpanId>, started: SystemTime) -> Self {
        Self(otlp::Span {
            span_id: id.to_vec(),
            parent_span_id: parent.map(SpanId::to_vec).unwrap_or_default(),
            name: name.to_owned(),
            kind: otlp::span::SpanKind::Internal.into(),
            start_time_unix_nano: unix_nanos(started),
            end_time_unix_nano: unix_nanos(SystemTime::now().max(started)),
            ..Default::default()
        })
    }

    /// It ended at another time.
    #[must_use]
    pub fn ended(mut self, at: SystemTime) -> Self {
        self.0.end_time_unix_nano = unix_nanos(at).max(self.0.start_time_unix_nano);
        self
    }

    /// With an attribute.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0
            .attributes
            .push(attribute(&format!("{PREFIX}{key}"), value));
        self
    }

    /// It did not come to its end.
    #[must_use]
    pub fn failed(mut self, why: &str) -> Self {
        self.0.status = Some(otlp::Status {
            message: why.to_owned(),
            code: otlp::status::StatusCode::Error.into(),
        });
        self
    }
}

pub(crate) fn attribute(key: &str, value: impl Into<Value>) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(value.into().0),
        }),
        ..Default::default()
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self(Otlp::IntValue(i64::try_from(number).unwrap_or(i64::MAX)))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self(Otlp::IntValue(number.into()))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self(Otlp::DoubleValue(number))
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self(Otlp::BoolValue(truth))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self(Otlp::StringValue(text.to_owned()))
    }
}

fn unix_nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
