//! Progress of what travels to or from the location: one bar, on a terminal only.

use std::{
    io::{self, IsTerminal as _},
    sync::OnceLock,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use teu::{Progress, ProgressEvent};

/// Draws a bar while bytes travel; silent if stderr is not a terminal.
#[derive(Debug, Default)]
pub(crate) struct Bars(OnceLock<ProgressBar>);

impl Bars {
    fn bar(&self) -> &ProgressBar {
        // Until it is known how much will be sent, there is only what is being done.
        self.0.get_or_init(|| bar(None, "{msg} …"))
    }
}

fn bar(length: Option<u64>, template: &str) -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    ProgressBar::with_draw_target(length, target).with_style(style(template))
}

/// A bar for bytes, of which there are so many, if that is known.
pub(crate) fn counting(what: String, length: Option<u64>) -> ProgressBar {
    let template = match length {
        Some(_) => "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}",
        None => "{msg} {bytes} {bytes_per_sec}",
    };
    bar(length, template).with_message(what)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

impl Progress for Bars {
    fn on_event(&self, event: ProgressEvent) {
        match event {
            ProgressEvent::Exporting { image } => {
                self.bar()
                    .set_message(format!("reading {image} from the local engine"));
                self.bar().tick();
            }
            ProgressEvent::Uploading { image, total_bytes } => {
                let sending = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}";
                self.bar().set_style(style(sending));
                self.bar().set_message(format!("sending {image}"));
                self.bar().set_length(total_bytes);
                self.bar().set_position(0);
            }
            ProgressEvent::Sent { bytes } => self.bar().inc(bytes),
            ProgressEvent::Done => self.bar().finish_and_clear(),
        }
    }
}
