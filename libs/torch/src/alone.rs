//! Tests that need a process of their own.

/// Whether this process runs that test alone. If not, another one does: what they change belongs to a process.
pub(crate) fn alone(test: &str) -> bool {
    let is_given = |argument: &str| std::env::args().any(|given| given == argument);
    if is_given(test) && is_given("--exact") {
        return true;
    }
    let mut own = std::process::Command::new(std::env::current_exe().unwrap());
    let out = own.args([test, "--exact"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
    false
}
