//! The lab's command line: `cargo sim`. It can never open a production socket.

fn main() -> std::process::ExitCode {
    redoubt_sim::cli::main()
}
