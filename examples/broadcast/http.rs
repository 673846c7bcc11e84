//! `POST /broadcast`: a message to all, or to one.

use std::time::Duration;

use axum::{
    body::to_bytes,
    extract::{Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    message::{MAX_MESSAGE, NO_TYPE, RoomMessage},
    room::Room,
};

pub(crate) async fn broadcast(State(room): State<Room>, request: Request) -> Response {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_json = kind.is_some_and(|kind| {
        let essence = kind.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    });
    // Else any web page could send it without being asked first.
    if !is_json {
        let what = "content-type is not application/json";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, what).into_response();
    }
    let body = timeout(Duration::from_secs(10), to_bytes(request.into_body(), MAX_MESSAGE)).await;
    let Ok(Ok(body)) = body else {
        let what = "the body is too large, or too late";
        return (StatusCode::PAYLOAD_TOO_LARGE, what).into_response();
    };
    let message = RoomMessage::parse(&body).and_then(|message| match message.is_reserved() {
        true => Err(NO_TYPE.to_owned()),
        false => Ok(message),
    });
    match message.and_then(|message| room.send(&RoomMessage { sender: None, ..message })) {
        Ok(reached) => (
            StatusCode::ACCEPTED,
            [("content-type", "application/json")],
            json!({ "reached": reached }).to_string(),
        )
            .into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, error).into_response(),
    }
}
