//! The supervisor: a small shell script that runs a worker, outlives us, and writes down how the worker ended.

use std::process::Stdio;

use tokio::process::{Child, Command};

use super::folder::{Folder, Lock};
use crate::Worker;

/// Arguments: the folder, the kernel's boot id, then the worker's command. Standard input is the lock, which stays taken as long as
/// somebody has it open: the supervisor all its life, the worker until its pid is on the disk.
///
/// Signals meant for everybody (a shutdown, a closed terminal) reach the supervisor too: it notes them and goes on waiting. A trap,
/// unlike an ignored signal, is not inherited by the worker. `wait` returns early when a trap runs, hence the loop. The output is the
/// worker's alone: shells remark on children that a signal ended.
const SCRIPT: &str = r#"
folder=$1 boot=$2
shift 2
trap : HUP INT TERM
exec 3<&0 </dev/null
(
    read -r stat </proc/self/stat
    printf '%s %s\n' "$boot" "$stat" >"$folder/pid.part" && mv -f "$folder/pid.part" "$folder/pid" || exit 125
    exec "$@" 3<&-
) &
worker=$!
exec >/dev/null 2>&1
while :; do
    wait "$worker"
    code=$?
    kill -0 "$worker" 2>/dev/null || break
done
[ -e "$folder/pid" ] || exit "$code"
until printf '%s\n' "$code" >"$folder/exit.part" && mv -f "$folder/exit.part" "$folder/exit"; do
    [ -e "$folder/pid" ] || exit 1
    sleep 1
done
"#;

/// Starts a supervisor that holds the lock, in a process group of its own so that a terminal's Ctrl-C does not reach it.
pub(super) fn spawn(folder: &Folder, lock: Lock, worker: &Worker) -> std::io::Result<Child> {
    folder.write_spec(worker)?;
    let output = std::fs::File::options().append(true).create(true).open(folder.output())?;
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", SCRIPT, "tidemill-supervisor"])
        .arg(folder.path())
        .arg(super::folder::boot_id())
        .args(&worker.command)
        .envs(worker.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::from(lock.into_file()))
        .stdout(Stdio::from(output.try_clone()?))
        .stderr(Stdio::from(output))
        .process_group(0);
    command.spawn()
}
