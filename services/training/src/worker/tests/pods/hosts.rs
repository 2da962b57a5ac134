//! Hosts for pods: loopback addresses, or network namespaces that a switch connects.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Makes names of namespaces differ.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Where pods run.
pub(super) struct Hosts {
    /// Name of the namespaces, up to their number; none on loopback.
    name: Option<String>,
    count: usize,
    port: u16,
}

impl Hosts {
    /// An address that is not the usual one, and a port that was free.
    pub(super) fn loopback() -> Self {
        let port = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).unwrap().local_addr().unwrap().port();
        Self { name: None, count: 0, port }
    }

    /// So many hosts with a cable each to one switch. `None` for who may not make namespaces.
    pub(super) fn apart(count: usize) -> Option<Self> {
        let name = format!("tm{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        if !ip(&format!("netns add {name}-switch")) {
            println!("skipped: pods on hosts of their own: network namespaces need root and iproute2");
            return None;
        }
        let hosts = Self { name: Some(name.clone()), count, port: 29500 };
        let done = |command: String| assert!(ip(&command), "ip {command}");
        done(format!("-n {name}-switch link add switch type bridge"));
        done(format!("-n {name}-switch link set switch up"));
        for at in 0..count {
            let host = format!("{name}-{at}");
            done(format!("netns add {host}"));
            done(format!("-n {host} link add eth0 type veth peer name cable{at} netns {name}-switch"));
            done(format!("-n {name}-switch link set cable{at} master switch up"));
            done(format!("-n {host} addr add 10.213.0.{}/24 dev eth0", at + 1));
            done(format!("-n {host} link set eth0 up"));
            done(format!("-n {host} link set lo up"));
        }
        Some(hosts)
    }

    /// Where rank 0 awaits the others.
    pub(super) fn first(&self) -> (IpAddr, u16) {
        let host = if self.name.is_some() { Ipv4Addr::new(10, 213, 0, 1) } else { Ipv4Addr::new(127, 0, 0, 2) };
        (host.into(), self.port)
    }

    /// This program, on a host.
    pub(super) fn command(&self, at: usize) -> Command {
        let program = std::env::current_exe().unwrap();
        let Some(name) = &self.name else { return Command::new(program) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{name}-{at}")]).arg(program);
        command
    }

    /// Pulls a host's cable at the switch's end: nothing tells either side that the other is gone.
    pub(super) fn unplug(&self, at: usize) {
        let name = self.name.as_ref().unwrap();
        assert!(ip(&format!("-n {name}-switch link set cable{at} nomaster")));
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let Some(name) = &self.name else { return };
        for at in 0..self.count {
            ip(&format!("netns del {name}-{at}"));
        }
        ip(&format!("netns del {name}-switch"));
    }
}

fn ip(command: &str) -> bool {
    Command::new("ip").args(command.split(' ')).output().is_ok_and(|done| done.status.success())
}
