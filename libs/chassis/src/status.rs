//! Errors by meaning, and the one place where they become gRPC statuses with `google.rpc` details (AIP-193).

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::telemetry;

/// An error as a caller should see it: a code, a REASON that programs can match, a message that says what to do, and details.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// gRPC code.
    pub code: Code,
    /// UPPER_SNAKE reason, at most 63 characters.
    pub reason: &'static str,
    /// What happened and what to do, for people.
    pub message: String,
    /// Wrong fields: (path, description).
    pub fields: Vec<(String, String)>,
    /// Unmet conditions: (subject, description).
    pub preconditions: Vec<(String, String)>,
}

impl Fault {
    /// A fault without details.
    pub fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), fields: Vec::new(), preconditions: Vec::new() }
    }

    /// One wrong field.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::invalid_fields(vec![(field.into(), description.into())])
    }

    /// Wrong fields, all at once.
    pub fn invalid_fields(fields: Vec<(String, String)>) -> Self {
        let message = fields.iter().map(|(field, text)| format!("{field}: {text}")).collect::<Vec<_>>().join("; ");
        Self { fields, ..Self::new(Code::InvalidArgument, "INVALID_FIELD", message) }
    }

    /// A resource that does not exist.
    pub fn not_found(name: &str) -> Self {
        Self::new(Code::NotFound, "NOT_FOUND", format!("{name} does not exist"))
    }

    /// A condition that does not hold.
    pub fn precondition(reason: &'static str, subject: &str, description: impl Into<String>) -> Self {
        let description = description.into();
        Self {
            preconditions: vec![(subject.to_owned(), description.clone())],
            ..Self::new(Code::FailedPrecondition, reason, description)
        }
    }

    /// Something this service needs is away; a retry may succeed.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, "UNAVAILABLE", message)
    }

    /// A full queue or disk.
    pub fn exhausted(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Code::ResourceExhausted, reason, message)
    }

    /// A mistake of ours: the cause is logged here, once, and the caller sees only that it happened.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(error = %cause, "internal error");
        let place = telemetry::trace_id().map_or_else(String::new, |id| format!(" under trace_id {id}"));
        Self::new(Code::Internal, "INTERNAL", format!("internal error; the server's log has the cause{place}"))
    }

    /// Whether trying again later may help.
    pub fn is_transient(&self) -> bool {
        matches!(self.code, Code::Unavailable | Code::Aborted | Code::DeadlineExceeded | Code::ResourceExhausted)
    }

    /// The fault inside a status from another service.
    pub fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let mut fault = Self::new(status.code(), "UPSTREAM", status.message());
        if let Some(bad) = details.bad_request() {
            fault.fields = bad.field_violations.iter().map(|v| (v.field.clone(), v.description.clone())).collect();
        }
        if let Some(unmet) = details.precondition_failure() {
            fault.preconditions = unmet.violations.iter().map(|v| (v.subject.clone(), v.description.clone())).collect();
        }
        fault
    }

    /// As `google.rpc.Status`, for the `error` field of a job.
    pub fn to_rpc(&self, domain: &str) -> tonic_types::Status {
        let status = self.to_status(domain);
        // A status' details are an encoded google.rpc.Status; without details it is rebuilt from code and message.
        prost::Message::decode(status.details()).unwrap_or_else(|_| tonic_types::Status {
            code: status.code() as i32,
            message: status.message().to_owned(),
            details: Vec::new(),
        })
    }

    /// As a gRPC status. `domain` is `<service>.tidemill`.
    pub fn to_status(&self, domain: &str) -> Status {
        let mut details = ErrorDetails::with_error_info(self.reason, domain, HashMap::new());
        for (field, description) in &self.fields {
            details.add_bad_request_violation(field, description);
        }
        for (subject, description) in &self.preconditions {
            details.add_precondition_failure_violation(self.reason, subject, description);
        }
        if matches!(self.code, Code::Unavailable | Code::ResourceExhausted) {
            details.set_retry_info(Some(std::time::Duration::from_secs(1)));
        }
        Status::with_error_details(self.code, &self.message, details)
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        fault.to_status("tidemill")
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        Self::from_status(&status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_survive_the_way_through_a_status() {
        let fault = Fault::invalid_fields(vec![("a.b".into(), "too big".into()), ("c".into(), "missing".into())]);
        let back = Fault::from(Status::from(fault.clone()));
        assert_eq!((back.code, &back.fields), (fault.code, &fault.fields));
        let rpc = fault.to_rpc("training.tidemill");
        assert_eq!(rpc.code, Code::InvalidArgument as i32);
        assert_eq!(rpc.details.len(), 2);
    }

    #[test]
    fn an_internal_fault_tells_nothing() {
        let status = Status::from(Fault::internal("select * from secrets"));
        assert!(!status.message().contains("secrets"));
    }
}
