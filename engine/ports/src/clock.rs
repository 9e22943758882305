//! Time and randomness of one host.

use redoubt_core::{Instant, WallTime};

/// The clocks of a host. Sleeping is tokio's business in both worlds.
pub trait Clock: Send + Sync {
    /// Returns monotonic time; never steps, not even when the wall clock does.
    fn now(&self) -> Instant;

    /// Returns the wall clock as this host believes it; may step, jump and be wrong by years.
    fn wall(&self) -> WallTime;
}

/// Unpredictable bytes for identities and data keys. Nonces never come from here.
pub trait Entropy: Send + Sync {
    /// Fills the buffer.
    fn fill(&self, buffer: &mut [u8]);

    /// Returns a random 128-bit identity.
    fn id(&self) -> u128 {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        u128::from_be_bytes(bytes)
    }
}
