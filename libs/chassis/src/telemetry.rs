//! The one place where logging is set up.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Section `[telemetry]`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// tracing's filter syntax.
    pub filter: String,
    /// `auto`, `text` or `json`.
    pub format: String,
}

/// Starts logging to standard error. A second call in one process changes nothing.
///
/// # Errors
/// The filter or format is not valid; the message names the key.
pub fn init(settings: &Telemetry) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.filter).map_err(|error| format!("telemetry.filter: {error}"))?;
    let terminal = std::io::stderr().is_terminal();
    let json = match settings.format.as_str() {
        "json" => true,
        "text" => false,
        "auto" => !terminal,
        other => return Err(format!("telemetry.format = {other:?} should be auto, text or json")),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _already_started = if json {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        builder.with_target(false).with_ansi(terminal).compact().try_init()
    };
    Ok(())
}
