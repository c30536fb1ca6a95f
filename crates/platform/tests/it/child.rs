//! Tests of what ends or is global to a process run it as a child: this binary again, told to run one ignored test.
//!
//! Ignored, because a child alone would wait for its parent or end the run; a test, because a program of its own would be
//! linked for each of them, and would have to be found by its path.

use std::process::{Command, Stdio};

/// Prepares a child that runs the ignored test `name`; its stdout and stderr are for the parent.
pub(crate) fn child(name: &str) -> Command {
    let this = std::env::current_exe().expect("tests run from a file");
    let mut command = Command::new(this);
    command
        .args([name, "--exact", "--ignored", "--nocapture"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}
