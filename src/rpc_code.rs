//! JSON-RPC error codes that this crate makes.

use rmcp::model::ErrorCode;

/// JSON-RPC code of a call whose link was lost, or of the refusal of one request too many. Errors
/// with it are made by this side; their `data` says which of both it is.
pub const UNAVAILABLE: ErrorCode = ErrorCode(-32000);

/// JSON-RPC code of the error that ends a request past its deadline, made by this side. Its `data`
/// has the `reason` `timed_out` and the `outcome`, `not_sent` or `outcome_unknown`, and the `cause`
/// `unreadable_answer` if an unreadable answer may have been that of the request.
pub const TIMED_OUT: ErrorCode = ErrorCode(-32001);

/// Code of a request that is rejected for want of authentication.
#[cfg(feature = "server")]
pub(crate) const UNAUTHENTICATED: ErrorCode = ErrorCode(-32001);
