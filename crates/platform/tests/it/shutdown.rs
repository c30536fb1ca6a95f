use std::{
    future::pending,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout},
};

use holdfast_platform::shutdown::Shutdown;
use rustix::process::{Pid, Signal, kill_process};

use crate::child::child;

const DEAF: &str = "DEAF_DOOR";

#[test]
fn the_first_signal_drains_and_ends_well() {
    for told in [Signal::TERM, Signal::INT] {
        let (mut child, mut lines) = start(false);
        signal(&child, told);
        read_until("drained: Drained { died: [], cut_off: [] }", &mut lines);
        assert_eq!(child.wait().expect("it ended").code(), Some(0));
    }
}

#[test]
fn the_second_signal_ends_at_once() {
    let (mut child, mut lines) = start(true);
    signal(&child, Signal::TERM);
    read_until("closing", &mut lines);
    signal(&child, Signal::TERM);
    let mut rest = String::new();
    lines.read_to_string(&mut rest).expect("it ends");
    assert!(!rest.contains("drained"), "{rest}");
    assert_eq!(child.wait().expect("it ended").code(), Some(128 + 15));
}

#[tokio::test]
#[ignore = "run by the tests above, as a child"]
async fn serves_until_a_signal() {
    let shutdown = Shutdown::new();
    shutdown.on_signals().expect("signals can be heard");
    let begun = shutdown.begun();
    let deaf = std::env::var_os(DEAF).is_some();
    shutdown.serve("door", async move {
        begun.cancelled().await;
        println!("closing");
        if deaf {
            pending::<()>().await;
        }
    });
    println!("serving");
    println!("drained: {:?}", shutdown.drain().await);
}

fn start(deaf: bool) -> (Child, BufReader<ChildStdout>) {
    let mut command = child("shutdown::serves_until_a_signal");
    if deaf {
        command.env(DEAF, "1");
    }
    let mut child = command.spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    read_until("serving", &mut lines);
    (child, lines)
}

fn read_until(wanted: &str, lines: &mut BufReader<ChildStdout>) {
    for line in lines.lines() {
        if line.expect("it prints text").ends_with(wanted) {
            return;
        }
    }
    panic!("it ended without {wanted:?}");
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_child(child);
    kill_process(pid, signal).expect("it lives");
}
