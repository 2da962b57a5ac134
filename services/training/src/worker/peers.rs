//! The ranks of a job that has a pod for each: they gather at rank 0, and each keeps a connection to it, over which nothing goes but a
//! farewell. One that ends without is a rank that is lost; where its machine has vanished, the kernel's keep-alive tells.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use socket2::{SockRef, TcpKeepalive};
use tidemill_platform::worker;
use tidemill_torch::ranks::{Ranks, Store};

use super::place::PodPlace;
use crate::error::{Error, Result};
use crate::learning::World;

/// How long a pod waits for the others: they may queue for nodes, or fetch large images.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(200);
/// How long one try to connect may take, and a caller to say who it is.
const TRY: Duration = Duration::from_secs(5);
/// How long a machine that has vanished may be silent: after two seconds it is asked every second.
const SILENCE: Duration = Duration::from_secs(5);
/// What rank 0 grants for more losses of one cause to be seen, and for its own work to fail by itself, before it ends.
const SETTLE: Duration = Duration::from_secs(2);
/// What a rank sends that ends, and is not lost.
const FAREWELL: u8 = b'.';

/// What a rank says to rank 0 on its arrival.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Hello {
    /// The job's uid.
    run: String,
    rank: usize,
    size: usize,
}

/// What rank 0 answers once all have come.
#[derive(Debug, Serialize, Deserialize)]
struct Welcome {
    /// Port of the store on rank 0's host.
    store: u16,
}

/// The connections of this rank: of rank 0 to every other, of each other to rank 0.
pub(crate) struct Peers {
    lines: Vec<TcpStream>,
    /// Served by rank 0 alone, for as long as there are ranks.
    store: Option<Store>,
}

impl PodPlace {
    /// Waits until all ranks of the run have come, and joins them. From now on this process ends soon after a rank is lost. `None` if it
    /// was asked to stop meanwhile.
    pub(crate) fn meet(&self, run: &str, stop: &dyn Fn() -> bool) -> Result<Option<(Peers, World)>> {
        match self.rank {
            0 => self.gather(run, stop),
            _ => self.arrive(run, stop),
        }
    }

    /// Awaits the others as rank 0. After half an hour the run is begun anew with those that have come.
    fn gather(&self, run: &str, stop: &dyn Fn() -> bool) -> Result<Option<(Peers, World)>> {
        let Some(listener) = self.until(stop, TcpListener::bind)? else { return Ok(None) };
        let failed = |error: io::Error| Error::Ranks(format!("{}:{}: {error}", self.host, self.port));
        listener.set_nonblocking(true).map_err(failed)?;
        let own = listener.local_addr().map_err(failed)?.ip();
        let roll = Arc::new(Roll::new(self.size));
        let mut lines: Vec<Option<TcpStream>> = (1..self.size).map(|_| None).collect();
        let began = Instant::now();
        while lines.iter().any(Option::is_none) {
            if stop() || roll.any_left() {
                return Ok(None);
            }
            if began.elapsed() > PATIENCE {
                tracing::warn!(missing = lines.iter().filter(|line| line.is_none()).count(), "ranks have not come");
                begin_anew_with(1 + lines.iter().flatten().count());
            }
            let mut line = match listener.accept() {
                Ok((line, _)) => line,
                Err(_) => {
                    std::thread::sleep(LOOK);
                    continue;
                }
            };
            match self.admit(&mut line, run, &lines) {
                Ok(rank) => {
                    tracing::info!(rank, of = self.size, "rank has come");
                    roll.follow(line.try_clone().map_err(failed)?);
                    lines[rank - 1] = Some(line);
                }
                Err(error) => tracing::warn!(%error, "a caller is turned away"),
            }
        }
        let store = Store::serve(own).map_err(crate::learning::Error::from)?;
        let mut lines: Vec<TcpStream> = lines.into_iter().flatten().collect();
        for line in &mut lines {
            // One that has gone meanwhile is noticed by its follower.
            let _gone = write_line(line, &Welcome { store: store.address().port() });
        }
        let world = self.join(store.address(), own)?;
        Ok(Some((Peers { lines, store: Some(store) }, world)))
    }

    /// Who calls, if it is a rank of this run that has not come yet.
    fn admit(&self, line: &mut TcpStream, run: &str, lines: &[Option<TcpStream>]) -> io::Result<usize> {
        line.set_nonblocking(false)?;
        line.set_read_timeout(Some(TRY))?;
        let hello: Hello = read_line(line, || true)?.ok_or(ErrorKind::UnexpectedEof)?;
        let known = (1..self.size).contains(&hello.rank) && lines[hello.rank - 1].is_none();
        if hello.run != run || hello.size != self.size || !known {
            return Err(io::Error::other(format!("{hello:?} is none of those who are awaited")));
        }
        keep_alive(line)?;
        Ok(hello.rank)
    }

    /// Calls at rank 0 as one of the others.
    fn arrive(&self, run: &str, stop: &dyn Fn() -> bool) -> Result<Option<(Peers, World)>> {
        let Some(mut line) = self.until(stop, |at| TcpStream::connect_timeout(&at, TRY))? else { return Ok(None) };
        let lost = |error: io::Error| Error::RankLost(format!("rank 0 has gone before all had come together: {error}"));
        keep_alive(&line).and_then(|()| line.set_read_timeout(Some(LOOK))).map_err(lost)?;
        write_line(&mut line, &Hello { run: run.to_owned(), rank: self.rank, size: self.size }).map_err(lost)?;
        let Some(welcome) = read_line::<Welcome>(&mut line, stop).map_err(lost)? else {
            farewell([&line]);
            return Ok(None);
        };
        let (own, first) = (line.local_addr().map_err(lost)?.ip(), line.peer_addr().map_err(lost)?.ip());
        end_with(line.try_clone().map_err(lost)?);
        let world = self.join(SocketAddr::new(first, welcome.store), own)?;
        Ok(Some((Peers { lines: vec![line], store: None }, world)))
    }

    fn join(&self, store: SocketAddr, own: IpAddr) -> Result<World> {
        let ranks = Ranks::join(store, own, self.rank, self.size).map_err(crate::learning::Error::from)?;
        Ok(World::among(ranks))
    }

    /// Tries something at the host of rank 0 until it succeeds: its name may not be known yet, or still be that of a former pod.
    fn until<T>(&self, stop: &dyn Fn() -> bool, act: impl Fn(SocketAddr) -> io::Result<T>) -> Result<Option<T>> {
        let (began, mut said) = (Instant::now(), String::new());
        while !stop() {
            let mut cause = "its name has no address".to_owned();
            match (self.host.as_str(), self.port).to_socket_addrs() {
                Err(error) => cause = error.to_string(),
                Ok(addresses) => {
                    for address in addresses {
                        match act(address) {
                            Ok(done) => return Ok(Some(done)),
                            Err(error) => cause = format!("{address}: {error}"),
                        }
                    }
                }
            }
            if began.elapsed() > PATIENCE {
                return Err(Error::Ranks(format!("rank 0 at {}:{}: {cause}", self.host, self.port)));
            }
            if cause != said {
                tracing::info!(host = self.host, port = self.port, cause, "rank 0 is awaited");
                said = cause;
            }
            std::thread::sleep(LOOK);
        }
        Ok(None)
    }
}

impl Peers {
    /// Ends the connections in order: the work is done, or stopped everywhere.
    pub(crate) fn leave(&self) {
        farewell(&self.lines);
    }

    /// Waits after an error in talking to other ranks, for the end of this process: whoever is lost, rank 0 sees it, and ends. Where
    /// nobody is, all begin anew.
    pub(crate) fn settle(&self, error: &Error) {
        tracing::warn!(%error, "other ranks cannot be reached");
        std::thread::sleep(2 * SETTLE);
        if self.store.is_some() {
            begin_anew_with(self.lines.len() + 1);
        }
        std::thread::sleep(2 * SETTLE);
    }
}

/// Rank 0's list of the others.
struct Roll {
    size: usize,
    lost: AtomicUsize,
    left: AtomicUsize,
}

impl Roll {
    fn new(size: usize) -> Self {
        Self { size, lost: AtomicUsize::new(0), left: AtomicUsize::new(0) }
    }

    fn any_left(&self) -> bool {
        self.left.load(Ordering::SeqCst) > 0
    }

    /// Follows a rank to its end.
    fn follow(self: &Arc<Self>, line: TcpStream) {
        let roll = self.clone();
        std::thread::spawn(move || {
            if fares_well(line) {
                roll.left.fetch_add(1, Ordering::SeqCst);
                return;
            }
            roll.lost.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(SETTLE);
            let lost = roll.lost.load(Ordering::SeqCst);
            tracing::warn!(lost, remaining = roll.size - lost, "ranks are lost; the others begin anew");
            begin_anew_with(roll.size - lost);
        });
    }
}

/// Ends this process, and lets the service start the job again on so many ranks.
fn begin_anew_with(ranks: usize) -> ! {
    std::process::exit(worker::remain(ranks))
}

/// Lets this process end with rank 0, unless that ends well.
fn end_with(line: TcpStream) {
    std::thread::spawn(move || {
        if !fares_well(line) {
            tracing::warn!("rank 0 is lost");
            std::process::exit(1);
        }
    });
}

/// Waits for the other end, and says whether it ended in order.
fn fares_well(mut line: TcpStream) -> bool {
    line.set_read_timeout(None).is_ok() && line.read_exact(&mut [0]).is_ok()
}

fn farewell<'a>(lines: impl IntoIterator<Item = &'a TcpStream>) {
    for mut line in lines {
        // Who has gone needs none.
        let _gone = line.write_all(&[FAREWELL]);
    }
}

/// Makes a read fail soon after the other machine has vanished.
fn keep_alive(line: &TcpStream) -> io::Result<()> {
    let second = Duration::from_secs(1);
    let often = TcpKeepalive::new().with_time(2 * second).with_interval(second).with_retries(3);
    SockRef::from(line).set_tcp_keepalive(&often)?;
    // What was sent and not acknowledged would else be sent anew for many minutes, and no question asked meanwhile.
    SockRef::from(line).set_tcp_user_timeout(Some(SILENCE))
}

fn write_line<T: Serialize>(line: &mut TcpStream, what: &T) -> io::Result<()> {
    let text = serde_json::to_string(what).expect("plain data is always JSON");
    line.write_all(format!("{text}\n").as_bytes())
}

/// One line, and not a byte more. `None` if stopped meanwhile; looked at as often as the connection's reads time out.
fn read_line<T: for<'de> Deserialize<'de>>(line: &mut TcpStream, stop: impl Fn() -> bool) -> io::Result<Option<T>> {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while text.len() < 1 << 10 {
        match line.read_exact(&mut byte) {
            Ok(()) if byte == [b'\n'] => return Ok(Some(serde_json::from_slice(&text)?)),
            Ok(()) => text.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::WouldBlock && stop() => return Ok(None),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::InvalidData.into())
}
