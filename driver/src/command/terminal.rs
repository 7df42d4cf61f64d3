//! Progress: a bar on a terminal, plain lines otherwise.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use modelmount::fetch::Amounts;
use modelmount::size::Size;

/// Whether a person watches standard error.
pub(super) fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// How often a bar is drawn.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// How often a plain line is written.
const LINE: Duration = Duration::from_secs(10);

/// `1 file`, `2 files`.
pub(super) fn files(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

/// A line for whoever watches; what a program may read goes to standard output.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The progress of one model.
pub(super) struct Display {
    what: String,
    bar: Option<ProgressBar>,
    begun: Instant,
    last_line: Instant,
}

impl Display {
    pub(super) fn new(what: &str) -> Self {
        let bar = is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let style = "{spinner} {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            // The template is a constant; if it were wrong, the default bar would do.
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(what.to_owned());
            bar
        });
        let now = Instant::now();
        Self { what: what.to_owned(), bar, begun: now, last_line: now }
    }

    pub(super) fn show(&mut self, amounts: Amounts) {
        if let Some(bar) = &self.bar {
            bar.set_length(amounts.bytes_total);
            bar.set_position(amounts.bytes_done);
        } else if self.last_line.elapsed() >= LINE {
            self.last_line = Instant::now();
            let (done, total) = (Size(amounts.bytes_done), Size(amounts.bytes_total));
            note(&format!("{}: {} % ({done} of {total})", self.what, amounts.percent()));
        }
    }

    /// Ends the display with one line that stays.
    pub(super) fn done(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        note(&format!("{}: {text} in {:.1} s", self.what, self.begun.elapsed().as_secs_f64()));
    }

    /// Ends the display without a word: the error says it all.
    pub(super) fn abandon(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
