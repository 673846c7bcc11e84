//! [`Progress`]: the progress of a call as a line on the terminal.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
};

use rmcp::{
    ClientHandler, RoleClient, model::ProgressNotificationParam, service::NotificationContext,
};

use crate::failure::one_line;

/// Most characters of the line, so that it stays one.
const WIDTH: usize = 79;

/// Characters that go back to the beginning of the line, and erase it.
const ERASE: &str = "\r\x1b[K";

/// Client that shows the progress of its call on the standard error, where that is a terminal.
#[derive(Clone)]
pub(crate) struct Progress(Arc<Mutex<Line>>);

enum Line {
    Empty,
    Shown(f64),
    /// Line that shows nothing any more, or never has.
    Closed,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let line = if io::stderr().is_terminal() { Line::Empty } else { Line::Closed };
        Self(Arc::new(Mutex::new(line)))
    }

    /// Erases the line, and shows no more of it.
    pub(crate) fn close(&self) {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Line::Shown(_) = std::mem::replace(&mut *line, Line::Closed) {
            write(ERASE);
        }
    }

    fn show(&self, progress: &ProgressNotificationParam) {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *line {
            Line::Closed => return,
            // Handlers of notifications may overtake each other.
            Line::Shown(before) if before > progress.progress => return,
            Line::Empty | Line::Shown(_) => {}
        }
        *line = Line::Shown(progress.progress);
        write(&format!("{ERASE}{}", text_of(progress)));
    }
}

impl ClientHandler for Progress {
    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.show(&progress);
    }
}

fn text_of(progress: &ProgressNotificationParam) -> String {
    let mut text = progress.progress.to_string();
    if let Some(total) = progress.total {
        text += &format!("/{total}");
    }
    if let Some(message) = &progress.message {
        text += &format!(" {}", one_line(message));
    }
    text.chars().take(WIDTH).collect()
}

fn write(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
