//! Panics of the harness as results, for programs that go on after one.

/// Runs `work` and turns a panic of the harness, which it has printed already, into an error: the
/// first line of its message.
///
/// # Errors
/// The harness panicked.
pub fn caught<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        scope.spawn(work).join().map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let text = text.unwrap_or("the harness panicked");
            text.lines().next().unwrap_or_default().to_owned()
        })
    })
}
