//! What Prometheus' clients tell of any process, read from /proc when it is asked for. Written here and not recorded, because
//! counters of the `metrics` crate are whole numbers and seconds of a processor are not.

use std::fmt::Write;

use super::TABLE;

/// Linux counts processor time in hundredths of a second for everybody who reads it from /proc, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// Appends the process' metrics; what cannot be read is left out.
pub(super) fn render(text: &mut String) {
    let stat = read("/proc/self/stat");
    // The name of the program, in parentheses, may hold anything: fields are counted after it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    let status = read("/proc/self/status");
    let bytes = |key: &str| number_after(&status, key).map(|kilobytes| kilobytes * 1024.0);
    let boot = number_after(&read("/proc/stat"), "btime");
    let limits = read("/proc/self/limits");
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
    let values = [
        (
            "process_cpu_seconds_total",
            ticks(11).zip(ticks(12)).map(|(user, system)| (user + system) / TICKS_PER_SECOND),
        ),
        ("process_max_fds", number_after(&limits, "Max open files")),
        ("process_open_fds", open),
        ("process_resident_memory_bytes", bytes("VmRSS:")),
        ("process_start_time_seconds", boot.zip(ticks(19)).map(|(boot, start)| boot + start / TICKS_PER_SECOND)),
        ("process_threads", number_after(&status, "Threads:")),
        ("process_virtual_memory_bytes", bytes("VmSize:")),
    ];
    for (name, value) in values {
        let Some(metric) = TABLE.iter().find(|metric| metric.name == name) else { continue };
        let Some(value) = value else { continue };
        let kind = metric.kind.name();
        // Writing to a String cannot fail.
        let _written = write!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n{name} {value}\n\n", metric.help);
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The first number on the line that starts with a key.
fn number_after(text: &str, key: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_a_size_a_start_and_open_files() {
        let mut text = String::new();
        super::render(&mut text);
        for name in ["process_cpu_seconds_total", "process_open_fds", "process_resident_memory_bytes"] {
            assert!(text.contains(&format!("\n{name} ")), "{text}");
        }
        let start = super::number_after(&text, "process_start_time_seconds").unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((0.0..86_400.0).contains(&(now - start)), "{start} is not a while before {now}");
    }
}
