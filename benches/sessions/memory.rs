//! The memory of idle sessions.

use crate::{
    common::{Result, machine::resident, script::Script, server::Server},
    contender::Contender,
    options::Options,
    session::{self, Session},
};

/// Measures by how many KiB the server grows for each session. `None` where that cannot be told.
pub(crate) async fn measure(
    contender: Contender,
    server: &Server,
    options: &Options,
) -> Result<Option<f64>> {
    let pid = server.pid();
    let script = Script::new()?;
    // The first session of a server costs what all of them share.
    drop(open(contender, server, &script).await?);
    tokio::time::sleep(options.idle()).await;
    let Some(before) = resident(pid) else { return Ok(None) };
    let mut sessions = Vec::with_capacity(options.sessions());
    for _ in 0..options.sessions() {
        sessions.push(open(contender, server, &script).await?);
    }
    tokio::time::sleep(options.idle()).await;
    let after = resident(pid).ok_or("the server is gone")?;
    for session in &mut sessions {
        session.check(&script).await?;
    }
    Ok(Some((after - before) / sessions.len() as f64))
}

pub(crate) async fn open(
    contender: Contender,
    server: &Server,
    script: &Script,
) -> Result<Session> {
    let mut session = Session::connect(contender, server.addr(), session::lean()).await?;
    if contender != Contender::Raw {
        session.initialize(script).await?;
        session.settle(script).await?;
    }
    Ok(session)
}
