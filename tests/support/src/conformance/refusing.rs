//! Checks 16 to 25: what is not there, not allowed, or not reachable.

use std::time::Duration;

use modelmount::source::Portion;
use modelmount::{Credentials, ErrorKind};

use super::{Suite, authority, expect_error, read, sole};

const REFUSED: &[ErrorKind] = &[ErrorKind::Unauthenticated, ErrorKind::PermissionDenied];
/// How long a source may take to say that nothing listens. Retrying for longer is the transfer's business.
const SECONDS: Duration = Duration::from_secs(10);

pub(super) async fn missing(suite: &Suite<'_>) {
    let credentials = suite.fixture.credentials();
    let check = "16 (a model that is not there is not found, and named)";
    let missing = suite.try_resolve(&suite.fixture.attributes("conformance/no-such-model"), &credentials).await;
    let error = expect_error(check, missing, &[ErrorKind::NotFound]);
    assert!(error.report().contains("no-such-model"), "{check}: {}", error.report());
    suite.assert_no_leak(check, &error, &credentials);

    if suite.fixture.make_empty_directory("conformance/hollow").await {
        let hollow = suite.try_resolve(&suite.fixture.attributes("conformance/hollow"), &credentials).await;
        expect_error("17 (a directory without files is no model)", hollow, &[ErrorKind::NotFound]);
    }

    if let Some(attributes) = suite.fixture.missing_container() {
        let check = "18 (a container that is not there is not found, and named)";
        let error = expect_error(check, suite.try_resolve(&attributes, &credentials).await, &[ErrorKind::NotFound]);
        assert!(error.report().contains(&authority(&attributes)), "{check}: {}", error.report());
    }
}

pub(super) async fn wrong_credentials(suite: &Suite<'_>) {
    let path = "conformance/private.bin";
    suite.fixture.put(path, b"for those who may".to_vec()).await;
    let attributes = suite.fixture.attributes(path);
    let (source, entry) = suite.resolve_file(path).await;
    let check = "19 (who may read is authorized)";
    source.authorize(&entry).await.unwrap_or_else(|error| panic!("{check}: {error:?}"));
    suite.assert_no_leak("20 (a source's Debug shows no secret)", &source, &suite.fixture.credentials());

    let Some(wrong) = suite.fixture.wrong_credentials() else { return };
    // Without any, a source must not find some of the machine's own.
    for (who, credentials) in [("wrong credentials", wrong), ("no credentials", Credentials::none())] {
        let (_, model) = suite.open(&attributes, &credentials);
        let source = sole(&model);
        for (check, refused) in [
            ("21 (listing is refused)", source.list().await.map(drop)),
            ("22 (authorization is refused for a file that others listed)", source.authorize(&entry).await),
            ("23 (reading is refused)", read(&*source, &entry, Portion::Whole).await.map(drop)),
        ] {
            let check = format!("{check} with {who}");
            let error = expect_error(&check, refused, REFUSED);
            suite.assert_no_leak(&check, &error, &credentials);
        }
        suite.assert_no_leak("20 (a source's Debug shows no secret)", &source, &credentials);
    }
}

pub(super) async fn unreachable(suite: &Suite<'_>) {
    let Some(attributes) = suite.fixture.unreachable() else { return };
    let credentials = suite.fixture.credentials();
    let check = "24 (a source that can't be reached is unavailable, within seconds)";
    let answer = tokio::time::timeout(SECONDS, suite.try_resolve(&attributes, &credentials)).await;
    let answer = answer.unwrap_or_else(|_| panic!("{check}: no answer within {SECONDS:?}"));
    let error = expect_error(check, answer, &[ErrorKind::Unavailable]);
    suite.assert_no_leak("25 (nor does its error show a secret)", &error, &credentials);
}
