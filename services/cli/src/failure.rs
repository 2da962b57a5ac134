//! What ends a command other than well: what is printed, with the remedy, and the exit code.

use std::process::ExitCode;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::document::{Mistake, Places};

/// Why a command did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was tried and did not work: exit code 1.
    Failed(String),
    /// The command or a file is wrong: exit code 2.
    Usage(String),
    /// A gate said no: exit code 3.
    Refused(String),
    /// Nothing has that name: exit code 4.
    NotFound(String),
    /// No server answers, or it cannot serve now: exit code 5.
    Unavailable(String),
}

impl Failure {
    /// The exit code, as `tidemill --help` documents it.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
            Self::NotFound(_) => 4,
            Self::Unavailable(_) => 5,
        }
    }

    /// What is printed.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Failed(text)
            | Self::Usage(text)
            | Self::Refused(text)
            | Self::NotFound(text)
            | Self::Unavailable(text) => text,
        }
    }

    /// Prints the text and gives the exit code.
    pub(crate) fn exit(&self) -> ExitCode {
        if !self.text().is_empty() {
            eprintln!("{}", self.text());
        }
        ExitCode::from(self.code())
    }

    /// Mistakes of a file.
    pub(crate) fn document(file: &str, mistakes: &[Mistake]) -> Self {
        let lines: Vec<String> = mistakes.iter().map(|mistake| mistake.in_file(file)).collect();
        Self::Usage(format!("{}\n{} mistake(s) in {file}; nothing was started", lines.join("\n"), mistakes.len()))
    }

    /// What a server said about a document: its field violations led back to lines, or the plain failure.
    pub(crate) fn of_document(status: Status, file: &str, places: &Places) -> Self {
        let details = status.get_error_details();
        let Some(request) = details.bad_request().filter(|request| !request.field_violations.is_empty()) else {
            return status.into();
        };
        let mut mistakes: Vec<Mistake> = request
            .field_violations
            .iter()
            .map(|violation| Mistake {
                line: places.line(&violation.field),
                field: Places::inside(&violation.field).to_owned(),
                text: violation.description.clone(),
            })
            .collect();
        mistakes.sort_by_key(|mistake| mistake.line);
        Self::document(file, &mistakes)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let text = described(&status);
        match status.code() {
            Code::InvalidArgument => Self::Usage(text),
            Code::NotFound => Self::NotFound(text),
            Code::Unavailable => Self::Unavailable(text),
            _ => Self::Failed(text),
        }
    }
}

/// A status in words: message, violations, remedy.
pub(crate) fn described(status: &Status) -> String {
    let details = status.get_error_details();
    let mut violations: Vec<String> = Vec::new();
    if let Some(request) = details.bad_request() {
        violations.extend(request.field_violations.iter().map(|v| format!("{}: {}", v.field, v.description)));
    }
    if let Some(failure) = details.precondition_failure() {
        violations.extend(failure.violations.iter().map(|v| v.description.clone()));
    }
    let mut lines = match status.message() {
        "" => vec![format!("the server answered {}", status.code())],
        // Servers put several violations into one message; a line each is easier to read.
        message if violations.len() > 1 && violations.iter().all(|text| message.contains(text.as_str())) => {
            std::mem::take(&mut violations)
        }
        message => {
            violations.retain(|text| !message.contains(text.as_str()));
            vec![message.to_owned()]
        }
    };
    lines.extend(violations.iter().map(|text| format!("  {text}")));
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        lines.push(format!("  try again in {} s", delay.as_secs().max(1)));
    }
    match status.code() {
        // Without details no server of ours wrote it: the connection broke.
        Code::Unavailable if details.error_info().is_none() => {
            lines.push("  is the server running? start it with `tidemill up`".to_owned())
        }
        Code::Unauthenticated => lines.push("  give a key with --api-key or TIDEMILL_API_KEY".to_owned()),
        Code::Internal => lines.push("  the server's log has the cause: `tidemill status` says where it is".to_owned()),
        _ => {}
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    #[test]
    fn a_servers_field_violations_become_lines_of_the_file() {
        let (_, places) = crate::document::pipeline(include_str!("../../../pipelines/demo.yaml")).unwrap();
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("pipeline.spec.training.steps", "must be at least 1");
        details.add_bad_request_violation("pipeline.spec.source.uri", "no such archive");
        let status = Status::with_error_details(Code::InvalidArgument, "2 fields are wrong", details);
        let failure = Failure::of_document(status, "demo.yaml", &places);
        let lines: Vec<&str> = failure.text().lines().collect();
        assert!(
            lines[0].starts_with(&format!("demo.yaml:{}: source.uri: no such archive", places.line("source.uri"))),
            "{lines:?}"
        );
        assert!(
            lines[1].starts_with(&format!("demo.yaml:{}: training.steps: must be", places.line("training.steps"))),
            "{lines:?}"
        );
        assert_eq!((lines.len(), failure.code()), (3, 2));
    }

    #[test]
    fn every_code_a_server_sends_has_its_exit_code() {
        for (code, expected) in [
            (Code::InvalidArgument, 2),
            (Code::NotFound, 4),
            (Code::Unavailable, 5),
            (Code::Internal, 1),
            (Code::FailedPrecondition, 1),
            (Code::Unauthenticated, 1),
        ] {
            assert_eq!(Failure::from(Status::new(code, "x")).code(), expected);
        }
    }

    #[test]
    fn violations_are_said_once_each_on_its_own_line() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("a", "too big").add_bad_request_violation("b", "missing");
        let status = Status::with_error_details(Code::InvalidArgument, "a: too big; b: missing", details.clone());
        assert_eq!(described(&status), "a: too big\nb: missing");
        let status = Status::with_error_details(Code::InvalidArgument, "no", details);
        assert_eq!(described(&status), "no\n  a: too big\n  b: missing");
    }

    #[test]
    fn a_broken_connection_says_how_to_start_a_server() {
        assert!(described(&Status::unavailable("tcp connect error")).contains("tidemill up"));
    }
}
