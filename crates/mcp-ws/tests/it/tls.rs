//! `wss://`: a certificate that is trusted, and those that are not.

use std::{fs, path::Path};

use rcgen::{CertifiedKey, generate_simple_self_signed};

use crate::{Running, run, server, text};

/// Makes a certificate for this name, and returns its file and that of its key.
fn certificate(folder: &Path, name: &str) -> (String, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([name.to_owned()]).unwrap();
    let file = |end: &str, text: String| {
        let file = folder.join(format!("{name}.{end}"));
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    (file("pem", cert.pem()), file("key", signing_key.serialize_pem()))
}

#[tokio::test]
async fn files_without_what_they_are_for_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(folder.path(), "localhost");
    let written = |name: &str, text: String| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let plain = fs::read_to_string(&key).unwrap();
    let encrypted = written("encrypted", plain.replace(" PRIVATE KEY", " ENCRYPTED PRIVATE KEY"));
    let older = written(
        "older",
        plain.replace(" PRIVATE KEY", " RSA PRIVATE KEY").replacen(
            "KEY-----\n",
            "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n",
            1,
        ),
    );
    let named = written("named", "CERTIFICATE-----\nPRIVATE KEY-----\n".to_owned());
    let contents = |file: &str| fs::read_to_string(file).unwrap();
    let both = |name: &str, one: &str, other: &str| written(name, contents(one) + &contents(other));
    let older_first = both("older_first", &older, &key);
    let with_older = both("with_older", &cert, &older);
    let url = "wss://127.0.0.1:1/mcp";
    for (cert, key, says) in [
        (&cert, &encrypted, "--client-key FILE: the private key in it is encrypted"),
        (&cert, &older, "--client-key FILE: the private key in it is encrypted"),
        (&cert, &older_first, "--client-key FILE: the private key in it is encrypted"),
        (&with_older, &key, "--client-cert FILE: the private key in it is encrypted"),
        (&cert, &named, "--client-key FILE: there is no private key in it"),
        (&named, &key, "--client-cert FILE: there is no certificate in it"),
    ] {
        let failed = run(&["ping", url, "--client-cert", cert, "--client-key", key]).await;
        let told = text(&failed.stderr);
        let says = says.replace("FILE", if says.contains("-key") { key } else { cert });
        assert_eq!(failed.status.code(), Some(2), "{told}");
        assert!(told.lines().count() == 1 && told.contains(&says), "{told}");
    }
    // It is looked for by line, and what else there is does not matter.
    let text_before = format!("key of localhost\r\n{}", plain.replace('\n', "\r\n"));
    let text_before = written("with_text", text_before);
    let older_last = both("older_last", &key, &older);
    let encrypted_first = both("encrypted_first", &encrypted, &key);
    let with_encrypted = both("with_encrypted", &cert, &encrypted);
    let (_server, url) =
        Running::serve(&["--tls-cert", &cert, "--tls-key", &key], server(&[])).await;
    let url = url.replace("127.0.0.1", "localhost");
    for (client_cert, client_key) in [
        (&cert, &text_before),
        (&cert, &older_last),
        (&cert, &encrypted_first),
        (&with_encrypted, &key),
    ] {
        let files = ["--client-cert", client_cert, "--client-key", client_key];
        let pinged = run(&[&["ping", &url, "--ca", &cert][..], &files].concat()).await;
        assert!(pinged.status.success(), "{files:?}: {}", text(&pinged.stderr));
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_an_exit_code_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(folder.path(), "localhost");
    let (other, _) = certificate(folder.path(), "other.test");
    let options = ["--tls-cert", &cert, "--tls-key", &key];
    let (_secret, url) = Running::serve(&options, server(&[])).await;
    let (_plain, plain) = Running::serve(&[], server(&[])).await;
    assert!(url.starts_with("wss://"), "{url}");
    let by_name = url.replace("127.0.0.1", "localhost");

    let pinged = run(&["ping", &by_name, "--ca", &cert]).await;
    assert!(pinged.status.success(), "{}", text(&pinged.stderr));
    assert!(text(&pinged.stdout).contains("encryption    TLS"), "{}", text(&pinged.stdout));

    let no_tls = plain.replace("ws://", "wss://");
    for (command, url, ca, says) in [
        ("ping", &by_name, None, "--ca"),
        ("tools", &by_name, Some(&other), "--ca"),
        ("ping", &url, Some(&cert), "dial one of the names"),
        ("ping", &no_tls, Some(&cert), "ws://"),
    ] {
        let mut arguments = vec![command, url];
        arguments.extend(ca.into_iter().flat_map(|ca| ["--ca", ca]));
        let failed = run(&arguments).await;
        let told = text(&failed.stderr);
        assert_eq!(failed.status.code(), Some(5), "{arguments:?}: {told}");
        assert!(told.lines().count() == 1 && told.contains(says), "{arguments:?}: {told}");
    }
    // Going on makes no sense.
    let mut host = Running::start(&["connect", &by_name]);
    assert_eq!(host.ended().await.code(), Some(5));
}
