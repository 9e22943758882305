//! Holds a recovery point while this process uses it: pins it in the vault and renews the pin.
//!
//! A vault that takes no pin can be read all the same: a recovery is not refused for that, the user is told.

use crate::failure::{Exit, Failure, Outcome};
use crate::output::say;
use crate::recovery::{Found, point_name};
use redoubt_core::maintenance::PIN_RENEW_EVERY;
use redoubt_host::HostEntropy;
use redoubt_vault::{Pin, VaultError};

/// Does something with the point held.
pub(crate) async fn while_held<T>(found: &Found, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let (vault, machine, name) = (&found.recovery.vault, found.recovery.machine, point_name(&found.point));
    let mut pin = match vault.pin(machine, found.point.id, &HostEntropy).await {
        Ok(pin) => pin,
        Err(VaultError::NoPoint { .. }) => {
            let what = format!("point {name} has just been given up, as the rules of retention say");
            return Err(Failure::new(Exit::Refused, what).hint("choose another one of `redoubt points`"));
        }
        Err(error) => {
            say(format!("warning: cannot pin point {name}, so it may be given up while in use: {error}"));
            return work.await;
        }
    };
    let outcome = tokio::select! {
        biased;
        outcome = work => outcome,
        () = renew(&mut pin, &name) => unreachable!("a pin is renewed for ever"),
    };
    if let Err(error) = pin.remove().await {
        say(format!("warning: the pin of point {name} stays until it has been watched for a day: {error}"));
    }
    outcome
}

async fn renew(pin: &mut Pin, name: &str) {
    loop {
        tokio::time::sleep(PIN_RENEW_EVERY).await;
        if let Err(error) = pin.renew(&HostEntropy).await {
            say(format!("warning: cannot renew the pin of point {name}: {error}"));
        }
    }
}
