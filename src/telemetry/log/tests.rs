//! The queue before outputs that follow a script: they fail, tear lines, or wait until told otherwise.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::workers::place;

const LONG: Duration = Duration::from_secs(10);

/// What one call of `write` does: takes so many bytes, or fails.
type Step = Result<usize, ErrorKind>;

/// Follows the script, then takes everything.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<(Vec<Step>, Vec<u8>)>>);

impl Script {
    fn of(steps: &[Step]) -> Self {
        let script = Self::default();
        script.0.lock().unwrap().0 = steps.iter().rev().copied().collect();
        script
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().1.clone()).unwrap()
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (steps, taken) = &mut *self.0.lock().unwrap();
        let most = steps.pop().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
        taken.extend_from_slice(&bytes[..most]);
        Ok(most)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits at each write until it may go on.
struct Gate {
    entered: Sender<()>,
    go_on: Receiver<()>,
    to: Script,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.entered.send(()).unwrap();
        let _the_test_is_over = self.go_on.recv();
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn everything_taken_is_written_in_order() {
    let output = Script::default();
    let log = Log::start(output.clone()).unwrap();
    let expected: String = (0..1000).map(|n| format!("line {n}\n")).collect();
    expected.split_inclusive('\n').for_each(|line| log.push(line.as_bytes()));
    assert!(log.flush(LONG));
    assert_eq!(output.text(), expected);
    assert_eq!(log.dropped(), Dropped::default());
}

#[test]
fn lines_of_several_workers_are_all_written_each_worker_s_in_order() {
    let output = Script::default();
    place::expect(2);
    let log = Log::start(output.clone()).unwrap();
    std::thread::scope(|scope| {
        for number in 0..3 {
            let log = &log;
            scope.spawn(move || {
                // The third is no worker.
                place::take(number, false);
                (0..1000).for_each(|n| log.push(format!("{number} {n}\n").as_bytes()));
            });
        }
    });
    assert!(log.flush(LONG));
    assert_eq!(log.dropped(), Dropped::default());
    assert_eq!(log.0.lines.iter().count(), 3);
    let text = output.text();
    for number in 0..3 {
        let of = text.lines().filter_map(|line| line.strip_prefix(&format!("{number} ")));
        assert!(of.map(|n| n.parse::<i32>().unwrap()).eq(0..1000), "{number}: {text}");
    }
}

#[test]
fn a_writer_that_sleeps_is_woken_by_each_worker() {
    let output = Script::default();
    let log = Log::start(output.clone()).unwrap();
    for n in 0..20 {
        // Until it sleeps again.
        let until = std::time::Instant::now() + LONG;
        while !log.0.asleep.load(Ordering::Relaxed) {
            assert!(std::time::Instant::now() < until, "it writes for ever");
            std::thread::yield_now();
        }
        log.push(format!("{n}\n").as_bytes());
        assert!(log.flush(LONG), "{n} is not written");
    }
    assert_eq!(output.text().lines().count(), 20);
}

#[test]
fn an_output_that_waits_holds_up_nobody_and_costs_what_is_beyond_the_bound() {
    let (output, (entered, waits), (go_on, told)) = (Script::default(), channel(), channel());
    let log = Log::start(Gate { entered, go_on: told, to: output.clone() }).unwrap();
    log.push(b"first\n");
    waits.recv_timeout(LONG).unwrap();
    let line = [&[b'x'; 1023][..], b"\n"].concat();
    let fit = log.0.room() / line.len();
    for _ in 0..fit + 3 {
        log.push(&line);
    }
    assert_eq!(log.dropped(), Dropped { queue_full: 3, write_failed: 0 });
    assert!(!log.flush(Duration::from_millis(1)), "it waits");
    drop(go_on);
    assert!(log.flush(LONG));
    assert_eq!(output.text().len(), "first\n".len() + fit * line.len());
    log.push(b"last\n");
    assert!(log.flush(LONG));
    assert!(output.text().ends_with("x\nlast\n"));
}

#[test]
fn an_output_that_refuses_costs_lines_which_are_counted() {
    for refusal in [Err(ErrorKind::StorageFull), Err(ErrorKind::BrokenPipe), Ok(0)] {
        let mut output = Output { to: Script::of(&[refusal]), torn: false };
        assert_eq!(output.write(b"one\ntwo\n"), 2, "{refusal:?}");
        assert_eq!(output.write(b"three\n"), 0);
        assert_eq!(output.to.text(), "three\n");
    }
}

#[test]
fn a_line_that_went_out_in_part_does_not_spoil_the_next_one() {
    let full = Err(ErrorKind::StorageFull);
    let mut output = Output { to: Script::of(&[Ok(5), full, full, Ok(1)]), torn: false };
    assert_eq!(output.write(b"one\ntwo\nthree\n"), 2, "one is out, and two in part");
    assert_eq!(output.write(b"four\n"), 1, "still full");
    assert_eq!(output.write(b"five\n"), 0);
    assert_eq!(output.to.text(), "one\nt\nfive\n");
}

#[test]
fn an_output_that_is_busy_for_a_moment_costs_nothing() {
    let busy = [Err(ErrorKind::Interrupted), Ok(2), Err(ErrorKind::WouldBlock), Ok(1)];
    let mut output = Output { to: Script::of(&busy), torn: false };
    assert_eq!(output.write(b"one\ntwo\n"), 0);
    assert_eq!(output.to.text(), "one\ntwo\n");
}
