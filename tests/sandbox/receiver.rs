//! A real OTLP receiver, rotel, which prints what it gets; and the spans it got.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// A span as the receiver got it.
#[derive(Clone, Debug, Default)]
pub struct Span {
    /// `service.name` of who sent it.
    pub service: String,
    /// Its trace.
    pub trace: String,
    /// Its id.
    pub id: String,
    /// The span it is part of; empty for the first of a trace.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// `CLIENT`, `SERVER`, `CONSUMER`, `INTERNAL`.
    pub kind: String,
    /// Nanoseconds since the epoch.
    pub start: u64,
    /// Nanoseconds since the epoch.
    pub end: u64,
    /// Attributes as printed: `Str(chat)`, `Int(3)`.
    pub attributes: BTreeMap<String, String>,
}

/// A running receiver; killed when dropped.
pub struct Receiver {
    /// Where it takes OTLP over gRPC.
    pub endpoint: String,
    output: PathBuf,
    child: Child,
}

impl Receiver {
    /// Starts the program `rotel-agent`; its output goes into a folder.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(program: &Path, folder: &Path) -> Result<Self> {
        let free = || -> Result<String> { Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string()) };
        let (grpc, http, output) = (free()?, free()?, folder.join("received"));
        let child = Command::new(program)
            .args(["start", "--exporter", "blackhole", "--debug-log", "traces", "--debug-log-verbosity", "detailed"])
            .args(["--otlp-grpc-endpoint", &grpc, "--otlp-http-endpoint", &http])
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&output)?)
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} does not start", program.display()))?;
        crate::eventually("the receiver's start", async || std::net::TcpStream::connect(&grpc).ok()).await?;
        Ok(Self { endpoint: format!("http://{grpc}"), output, child })
    }

    /// Stops it and reads what it got.
    ///
    /// # Errors
    /// It does not stop; its output cannot be read.
    pub async fn stop(mut self) -> Result<Received> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("a child has a pid")?;
        kill_process(pid, Signal::TERM)?;
        crate::eventually("the receiver's end", async || self.child.try_wait().ok().flatten()).await?;
        let text = std::fs::read_to_string(&self.output)?;
        Ok(Received { spans: parse(&text), text })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // It may be gone already.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// All that was received.
pub struct Received {
    /// Every span.
    pub spans: Vec<Span>,
    /// As it was printed.
    pub text: String,
}

impl Received {
    /// The spans of a trace.
    pub fn trace(&self, id: &str) -> Vec<&Span> {
        self.spans.iter().filter(|span| span.trace == id).collect()
    }

    /// A trace as a tree, a line a span, children by their start; what has no parent among the spans stands at the margin. Spans
    /// of one name below the same parent are one line.
    pub fn tree(&self, trace: &str) -> String {
        let mut spans = self.trace(trace);
        spans.sort_by_key(|span| span.start);
        let known = |id: &str| spans.iter().any(|span| span.id == id);
        let mut text = String::new();
        for root in spans.iter().filter(|span| !known(&span.parent)) {
            branch(&spans, &[root], "", "", &mut text);
        }
        text
    }
}

fn branch(spans: &[&Span], alike: &[&Span], first: &str, rest: &str, text: &mut String) {
    let span = alike[0];
    let milliseconds = alike.iter().map(|span| (span.end - span.start) as f64 / 1e6).sum::<f64>();
    let times = if alike.len() > 1 { format!(", {} times", alike.len()) } else { String::new() };
    // Writing to a String cannot fail.
    let _written = writeln!(
        text,
        "{first}{} ({}, {}, {milliseconds:.1} ms{times})",
        span.name,
        span.kind.to_lowercase(),
        span.service
    );
    let mut children: Vec<Vec<&Span>> = Vec::new();
    for child in spans.iter().filter(|child| alike.iter().any(|span| child.parent == span.id)) {
        match children.iter_mut().find(|group| (&group[0].name, &group[0].kind) == (&child.name, &child.kind)) {
            Some(group) => group.push(child),
            None => children.push(vec![child]),
        }
    }
    for (index, group) in children.iter().enumerate() {
        let (own, below) = if index + 1 == children.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        branch(spans, group, &format!("{rest}{own}"), &format!("{rest}{below}"), text);
    }
}

fn parse(text: &str) -> Vec<Span> {
    let (mut spans, mut service) = (Vec::new(), String::new());
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("-> service.name: ") {
            service = name.trim_start_matches("Str(").trim_end_matches(')').to_owned();
        } else if line.starts_with("Span #") {
            spans.push(Span { service: service.clone(), ..Span::default() });
        }
        let Some(span) = spans.last_mut() else { continue };
        if let Some((key, value)) = line.strip_prefix("-> ").and_then(|line| line.split_once(": ")) {
            span.attributes.insert(key.to_owned(), value.to_owned());
            continue;
        }
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match key.trim() {
            "Trace ID" => span.trace = value.to_owned(),
            "Parent ID" => span.parent = value.to_owned(),
            "ID" => span.id = value.to_owned(),
            "Name" => span.name = value.to_owned(),
            "Kind" => span.kind = value.trim_start_matches("SPAN_KIND_").to_owned(),
            "Start time" => span.start = value.parse().unwrap_or_default(),
            "End time" => span.end = value.parse().unwrap_or_default(),
            _ => {}
        }
    }
    spans
}
