//! The lab's command line: `cargo sim`. It can never open a production socket.

/// Runs allocate a lot and free it on the same thread: a sixth of their time went into the system's allocator and its page
/// faults. No digest depends on addresses, so none depends on this.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    redoubt_sim::cli::main()
}
