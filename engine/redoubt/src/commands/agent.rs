//! `redoubt agent`: an agent that streams to process servers elsewhere.

use crate::cli::Agent;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::say;
use crate::services::agent;
use crate::settings::plan;
use crate::signals::Signals;
use redoubt_wire::StreamKey;

pub(crate) async fn run(args: Agent) -> Outcome<()> {
    let stop = Signals::catch()?.watch();
    let format = args.common.format;
    let (plan, servers) = plan::agent(args)?;
    let keys = plan.key.read().map_err(|failure| {
        let hint = "copy the key file of the vault from the process server, and name it with --key";
        if failure.exit == Exit::Unreachable { failure.hint(hint) } else { failure }
    })?;
    let prepared = agent::prepare(&plan).await?;
    let machine =
        prepared.record.machine().ok_or_else(|| Failure::new(Exit::Tool, "the record has no machine"))?;
    prepared.state.save(&prepared.record).await?;
    say(format!("machine {machine}"));
    let key = StreamKey::new(keys.stream_key(machine));
    let launch = agent::Launch { service: "agent", format, servers, key, probe: None };
    agent::run(launch, plan, prepared, stop).await
}
