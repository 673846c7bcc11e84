/// Side of the opening handshake, which is independent of the MCP role. The client masks its frames
/// (RFC 6455, section 5.1), the server closes the TCP connection (section 7.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The side that dialled.
    Client,
    /// The side that accepted.
    Server,
}
