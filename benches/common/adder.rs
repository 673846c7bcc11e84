//! An rmcp service of one tool, without state.

use rmcp::{
    Json, ServerHandler, handler::server::wrapper::Parameters, tool, tool_handler, tool_router,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Adder;

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Summands {
    a: i64,
    b: i64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Sum {
    sum: i64,
}

#[tool_router]
impl Adder {
    #[tool(description = "Adds two numbers")]
    async fn add(&self, Parameters(Summands { a, b }): Parameters<Summands>) -> Json<Sum> {
        Json(Sum { sum: a + b })
    }
}

#[tool_handler]
impl ServerHandler for Adder {}
