//! Work that may wait for a device, on tokio's blocking pool.

/// Runs `work` on the blocking pool. A panic in it goes on in the caller.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Only a runtime that is being torn down cancels blocking work; nobody polls this then.
        Err(_) => std::future::pending().await,
    }
}
