//! Compile error with an explanation if rmcp's feature `local` is enabled.
//!
//! rmcp's futures are not `Send` then, and a crate cannot see the features of another.

use std::pin::Pin;

use rmcp::{
    RoleServer,
    service::{DynService, RequestContext, ServiceRole},
};

#[diagnostic::on_unimplemented(
    message = "mcp-ws-transport's feature `server` does not go with rmcp's feature `local`, which some \
               dependency enables: its services stay on one thread, and a server runs them on many. Disable \
               rmcp's `local` (`cargo tree -e features -i rmcp` tells who enables it), or use mcp-ws-transport \
               with `default-features = false, features = [\"client\"]`",
    label = "the errors below follow from this one"
)]
trait RunsOnManyThreads {}

impl<T> RunsOnManyThreads for Pin<Box<dyn Future<Output = T> + Send + '_>> {}

// The type of a returned value is checked before the bodies of functions are.
#[expect(dead_code, reason = "only its types are checked")]
fn respond(
    service: &dyn DynService<RoleServer>,
    request: <RoleServer as ServiceRole>::PeerReq,
    context: RequestContext<RoleServer>,
) -> impl RunsOnManyThreads {
    service.handle_request(request, context)
}
