use super::*;

/// Returns the answer of a server of `config` to `offers`.
fn answer(config: Config, offers: &[&str]) -> Option<String> {
    config.answer(offers.iter().map(|offer| offer.as_bytes())).map(|(_, answer)| answer)
}

#[test]
fn a_server_answers_what_it_was_offered_and_can_do() {
    let none = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for (offers, without, with) in [
        (&[][..], None, None),
        (&["permessage-deflate"], Some(none), Some("permessage-deflate")),
        (
            // Node's ws, browsers, the Python SDK.
            &["permessage-deflate; client_max_window_bits"],
            Some(none),
            Some("permessage-deflate"),
        ),
        (
            &["permessage-deflate; client_max_window_bits=\"12\""],
            Some(none),
            Some("permessage-deflate"),
        ),
        (&[Config::default().offer()], Some(none), Some(none)),
        (
            &["permessage-deflate; server_no_context_takeover"],
            Some(none),
            Some("permessage-deflate; server_no_context_takeover"),
        ),
        (
            &["permessage-deflate; server_max_window_bits=\"10\""],
            Some(&*format!("{none}; server_max_window_bits=10")),
            Some("permessage-deflate; server_max_window_bits=10"),
        ),
        (
            // The first that can be accepted, over all lines.
            &["x-webkit-deflate-frame, permessage-deflate; unknown", "permessage-deflate"],
            Some(none),
            Some("permessage-deflate"),
        ),
        (
            &["permessage-deflate;server_max_window_bits=8,permessage-deflate"],
            Some(none),
            Some("permessage-deflate"),
        ),
        (&["permessage-deflate; server_max_window_bits=8"], None, None),
        (&["permessage-deflate; server_max_window_bits"], None, None),
        (&["permessage-deflate; server_max_window_bits=7"], None, None),
        (&["permessage-deflate; server_max_window_bits=16"], None, None),
        (&["permessage-deflate; server_max_window_bits=010"], None, None),
        (&["permessage-deflate; server_max_window_bits=+9"], None, None),
        (&["permessage-deflate; client_max_window_bits=0"], None, None),
        (&["permessage-deflate; client_max_window_bits=x"], None, None),
        (&["permessage-deflate; client_max_window_bits; client_max_window_bits"], None, None),
        (&["permessage-deflate; server_no_context_takeover=1"], None, None),
        (
            &["permessage-deflate; server_no_context_takeover; server_no_context_takeover"],
            None,
            None,
        ),
        (&["permessage-deflate; client_no_context_takeover=\"\""], None, None),
        (&["permessage-deflate; mystery"], None, None),
        (&["permessage-deflate="], None, None),
        (&["permessage-bzip2"], None, None),
        (&["Permessage-Deflate"], None, None),
    ] {
        assert_eq!(answer(Config::default(), offers).as_deref(), without, "{offers:?}");
        let takeover = Config::default().context_takeover(true);
        assert_eq!(answer(takeover, offers).as_deref(), with, "{offers:?}");
    }
}

#[test]
fn a_client_takes_no_answer_but_one_to_its_offer() {
    let none = "permessage-deflate; server_no_context_takeover";
    let confirmed = |config: Config, answers: &[&str]| {
        config
            .confirm(answers.iter().map(|answer| answer.as_bytes()))
            .map(|agreed| agreed.is_some())
    };
    for (answers, expected) in [
        (&[][..], Ok(false)),
        (&[""], Ok(false)),
        (&[none], Ok(true)),
        (&["permessage-deflate;server_no_context_takeover;client_max_window_bits=8"], Ok(true)),
        (
            &["permessage-deflate; client_no_context_takeover; server_no_context_takeover; \
               server_max_window_bits=\"9\""],
            Ok(true),
        ),
        (
            &["permessage-deflate"],
            Err("permessage-deflate without server_no_context_takeover, which was asked for"),
        ),
        (&["permessage-bzip2"], Err("permessage-bzip2, which was not offered")),
        (&[none, none], Err("more than one extension, where one was offered")),
        (&["permessage-deflate; "], Err("malformed")),
        (
            &["permessage-deflate; server_no_context_takeover; server_no_context_takeover"],
            Err("permessage-deflate with server_no_context_takeover more than once"),
        ),
        (
            &["permessage-deflate; server_no_context_takeover; level=9"],
            Err("permessage-deflate with the unknown parameter level"),
        ),
        (
            &["permessage-deflate; server_no_context_takeover; server_max_window_bits"],
            Err("permessage-deflate with server_max_window_bits without a value"),
        ),
        (
            &["permessage-deflate; server_no_context_takeover; client_max_window_bits"],
            Err("permessage-deflate with client_max_window_bits without a value"),
        ),
        (
            &["permessage-deflate; server_no_context_takeover; client_max_window_bits=16"],
            Err("permessage-deflate with an invalid client_max_window_bits"),
        ),
    ] {
        let outcome = confirmed(Config::default(), answers);
        assert_eq!(outcome, expected.map_err(str::to_owned), "{answers:?}");
    }
    let takeover = Config::default().context_takeover(true);
    assert_eq!(confirmed(takeover, &["permessage-deflate"]), Ok(true));
}

#[test]
fn who_compresses_is_told_from_the_side() {
    let offered = ["permessage-deflate; server_no_context_takeover; server_max_window_bits=10"];
    let (agreement, _) = Config::default()
        .context_takeover(true)
        .answer(offered.iter().map(|offer| offer.as_bytes()))
        .unwrap();
    let (out, back) = (agreement.outbound(Side::Server), agreement.inbound(Side::Server));
    assert_eq!((out.takeover, out.bits), (false, 10));
    assert_eq!((back.takeover, back.bits), (true, 15));
    assert_eq!(agreement.outbound(Side::Client), back);
    assert_eq!(agreement.inbound(Side::Client), out);
}
