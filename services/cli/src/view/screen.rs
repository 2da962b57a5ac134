//! Where lines are drawn: moving bars on a terminal, a line for each change elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::lines::Lines;
use crate::output::{self, Output};

/// Characters of a loss curve.
const CURVE: usize = 24;

/// A drawing surface.
pub(super) enum Screen {
    /// A terminal.
    Bars { all: MultiProgress, bars: Vec<ProgressBar> },
    /// A log: what was last said of each line.
    Log { to_errors: bool, said: HashMap<usize, (i32, String, i64)> },
    /// Nothing is drawn.
    Blank,
}

impl Screen {
    /// The surface that suits where the output goes.
    pub(super) fn new(output: Output) -> Self {
        if output.quiet {
            Self::Blank
        } else if std::io::stderr().is_terminal() {
            Self::Bars { all: MultiProgress::new(), bars: Vec::new() }
        } else {
            Self::Log { to_errors: !output.for_people(), said: HashMap::new() }
        }
    }

    /// Shows how things stand.
    pub(super) fn draw(&mut self, lines: &Lines) {
        match self {
            Self::Bars { all, bars } => {
                while bars.len() < lines.0.len() {
                    let style =
                        ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
                    bars.push(all.add(ProgressBar::new_spinner().with_style(style)));
                }
                for (bar, line) in bars.iter().zip(&lines.0) {
                    bar.set_message(line.text(CURVE));
                    bar.tick();
                }
            }
            Self::Log { to_errors, said } => {
                for (at, line) in lines.0.iter().enumerate() {
                    let landmark = line.landmark();
                    let before = said.insert(at, landmark.clone());
                    // A step that has not begun says nothing.
                    let begun = line.state as i32 > 1;
                    if begun && before.as_ref() != Some(&landmark) {
                        if *to_errors { eprintln!("{}", line.text(CURVE)) } else { output::line(&line.text(CURVE)) }
                    }
                }
            }
            Self::Blank => {}
        }
    }

    /// Leaves the last picture on the terminal.
    pub(super) fn finish(&mut self) {
        if let Self::Bars { bars, .. } = self {
            for bar in bars {
                bar.abandon();
            }
        }
    }

    /// How often a picture without news is drawn again.
    pub(super) const REDRAW: Duration = Duration::from_millis(500);
}
