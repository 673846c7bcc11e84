//! Contenders and cases: the words of the command line.

use std::fmt;

use clap::ValueEnum;

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    Raw,
    Rmcp,
    RmcpJson,
    Ours,
    Plain,
    Stock,
    StockBest,
    Http,
    HttpBest,
    Jsonrpsee,
    TowerMcp,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Raw => "raw tungstenite",
            Self::Rmcp => "rmcp alone",
            Self::RmcpJson => "rmcp alone, through JSON",
            Self::Ours => "mcp-ws-transport",
            Self::Plain => "mcp-ws-transport, no resume",
            Self::Stock => "stock adaptor",
            Self::StockBest => "stock adaptor, best form",
            Self::Http => "streamable HTTP",
            Self::HttpBest => "streamable HTTP, best form",
            Self::Jsonrpsee => "jsonrpsee",
            Self::TowerMcp => "tower-mcp",
        })
    }
}

impl Contender {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|name| name.get_name().to_owned()).unwrap_or_default()
    }
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Case {
    /// The next call is made when the last one has returned
    #[value(name = "in-flight-1")]
    InFlight1,
    /// this number of calls is in flight at any time, on one connection
    #[value(name = "in-flight-64")]
    InFlight64,
    #[value(name = "in-flight-1024")]
    InFlight1024,
    /// Many calls in flight on the server alone: its client is a raw one
    Server,
    /// This number of connections, with one call in flight on each
    #[value(name = "connections-64")]
    Connections64,
    #[value(name = "connections-1000")]
    Connections1000,
    /// A large request, and a small answer
    #[value(name = "request-64k")]
    Request64K,
    /// A small request, and a large answer
    #[value(name = "answer-64k")]
    Answer64K,
    /// Requests and responses of the same size
    #[value(name = "echo-64k")]
    Echo64K,
    #[value(name = "request-1m")]
    Request1M,
    #[value(name = "answer-1m")]
    Answer1M,
    #[value(name = "echo-1m")]
    Echo1M,
    /// One report of progress, and then the result
    Progress,
    /// A stream of 100 reports, and then the result, all through a relay
    Relay,
}

impl Case {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|name| name.get_name().to_owned()).unwrap_or_default()
    }

    pub(crate) fn heading(self) -> &'static str {
        match self {
            Self::InFlight1 => "one call in flight",
            Self::InFlight64 => "64 calls in flight, one connection",
            Self::InFlight1024 => "1,024 calls in flight, one connection",
            Self::Server => "64 in flight, server under a raw client",
            Self::Connections64 => "64 connections, one call on each",
            Self::Connections1000 => "1,000 connections, one call on each",
            Self::Request64K => "request of 64 KiB, small answer",
            Self::Answer64K => "small request, answer of 64 KiB",
            Self::Echo64K => "64 KiB there and back",
            Self::Request1M => "request of 1 MB, small answer",
            Self::Answer1M => "small request, answer of 1 MB",
            Self::Echo1M => "1 MB there and back",
            Self::Progress => "a progress report, then the result",
            Self::Relay => "100 progress reports through a relay",
        }
    }
}
