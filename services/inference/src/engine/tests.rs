use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::*;

/// Counts up: after token n comes n + 1, modulo 100. Token 77 makes it panic, 78 makes it fail.
#[derive(Clone, Default)]
struct Counting {
    caches: Arc<AtomicUsize>,
    reads: Arc<Mutex<Vec<usize>>>,
    /// While shut, reads wait.
    gate: Arc<(Mutex<bool>, Condvar)>,
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Counting {
    fn shut(&self, shut: bool) {
        *self.gate.0.lock().unwrap() = shut;
        self.gate.1.notify_all();
    }
}

impl Decoder for Counting {
    type Cache = Counted;

    fn cache(&self, _capacity: usize) -> Result<Counted, Failure> {
        self.caches.fetch_add(1, SeqCst);
        Ok(Counted(self.caches.clone()))
    }

    fn read(&self, _cache: &mut Counted, ids: &[u32], logits: &mut Vec<f32>) -> Result<(), Failure> {
        let shut = self.gate.0.lock().unwrap();
        drop(self.gate.1.wait_while(shut, |shut| *shut).unwrap());
        self.reads.lock().unwrap().push(ids.len());
        let last = *ids.last().unwrap();
        assert_ne!(last, 77, "an unlucky token");
        if last == 78 {
            return Err(Failure("78 is not readable".to_owned()));
        }
        logits.clear();
        logits.resize(100, 0.0);
        logits[(last as usize + 1) % 100] = 100.0;
        Ok(())
    }
}

const LIMITS: Limits = Limits { running: 4, waiting: 8, prefill: 3, threads: 1 };

fn job(prompt: &[u32], max_tokens: usize) -> Job {
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    Job { prompt: prompt.to_vec(), max_tokens, sampling, seed: 1, end: Arc::from([50]), span: tracing::Span::none() }
}

fn all(mut tokens: Tokens) -> Vec<Result<Step, Failure>> {
    std::iter::from_fn(|| tokens.blocking_recv()).collect()
}

fn written(tokens: Tokens) -> (Vec<u32>, Step) {
    let mut steps: Vec<Step> = all(tokens).into_iter().map(Result::unwrap).collect();
    let end = steps.pop().unwrap();
    let token = |step| match step {
        Step::Token(token) => token,
        other => panic!("{other:?} before the end"),
    };
    (steps.into_iter().map(token).collect(), end)
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within 10 s");
        std::thread::yield_now();
    }
}

#[test]
fn a_sequence_ends_at_its_length_or_at_an_end_token() {
    let engine = Engine::start(Counting::default(), LIMITS, &TaskTracker::new()).unwrap();
    assert_eq!(written(engine.submit(job(&[1], 3)).unwrap()), (vec![2, 3, 4], Step::Full));
    assert_eq!(written(engine.submit(job(&[47], 9)).unwrap()), (vec![48, 49], Step::Ended));
    until("idle", || engine.load() == 0);
}

#[test]
fn a_long_prompt_is_read_in_pieces() {
    let decoder = Counting::default();
    let engine = Engine::start(decoder.clone(), LIMITS, &TaskTracker::new()).unwrap();
    written(engine.submit(job(&[9; 8], 2)).unwrap());
    assert_eq!(*decoder.reads.lock().unwrap(), [3, 3, 2, 1]);
}

#[test]
fn a_failure_or_a_panic_ends_its_own_sequence_only() {
    let engine = Engine::start(Counting::default(), LIMITS, &TaskTracker::new()).unwrap();
    let failing = engine.submit(job(&[75], 9)).unwrap();
    let refused = engine.submit(job(&[1, 78], 9)).unwrap();
    let healthy = engine.submit(job(&[20], 20)).unwrap();
    let steps = all(failing);
    assert!(steps.last().unwrap().as_ref().unwrap_err().0.contains("an unlucky token"), "{steps:?}");
    assert!(all(refused)[0].as_ref().unwrap_err().0.contains("not readable"));
    assert_eq!(written(healthy), ((21..41).collect(), Step::Full));
}

#[test]
fn a_reader_that_leaves_frees_its_sequence_within_a_step() {
    let decoder = Counting::default();
    let engine = Engine::start(decoder.clone(), LIMITS, &TaskTracker::new()).unwrap();
    let never = Arc::from([]);
    for _ in 0..20 {
        let mut tokens = engine.submit(Job { end: Arc::clone(&never), ..job(&[1], 1_000_000) }).unwrap();
        assert_eq!(tokens.blocking_recv().unwrap().unwrap(), Step::Token(2));
        decoder.shut(true);
        drop(tokens);
        let before = decoder.reads.lock().unwrap().len();
        decoder.shut(false);
        until("free", || engine.load() == 0 && decoder.caches.load(SeqCst) == 0);
        assert!(decoder.reads.lock().unwrap().len() <= before + 1, "more than one step after the reader left");
    }
}

#[test]
fn a_full_queue_refuses_and_readers_that_left_make_room() {
    let decoder = Counting::default();
    decoder.shut(true);
    let engine =
        Engine::start(decoder.clone(), Limits { running: 1, waiting: 2, ..LIMITS }, &TaskTracker::new()).unwrap();
    let first = engine.submit(job(&[1], 1)).unwrap();
    until("the first runs", || decoder.caches.load(SeqCst) == 1);
    let second = engine.submit(job(&[2], 1)).unwrap();
    let third = engine.submit(job(&[3], 1)).unwrap();
    assert_eq!(engine.submit(job(&[4], 1)).unwrap_err(), Busy { running: 1, waiting: 2 });
    drop(second);
    let fourth = engine.submit(job(&[4], 1)).unwrap();
    decoder.shut(false);
    for (tokens, expected) in [(first, 2), (third, 4), (fourth, 5)] {
        assert_eq!(written(tokens), (vec![expected], Step::Full));
    }
}

#[test]
fn what_was_accepted_is_finished_after_the_engine_was_dropped() {
    let decoder = Counting::default();
    decoder.shut(true);
    let engine = Engine::start(decoder.clone(), Limits { running: 1, ..LIMITS }, &TaskTracker::new()).unwrap();
    let tokens: Vec<Tokens> = (0..6).map(|n| engine.submit(job(&[n], 5)).unwrap()).collect();
    drop(engine);
    decoder.shut(false);
    for (n, tokens) in (0..).zip(tokens) {
        assert_eq!(written(tokens), ((n + 1..n + 6).collect(), Step::Full));
    }
    until("the model is freed", || Arc::strong_count(&decoder.caches) == 1);
}
