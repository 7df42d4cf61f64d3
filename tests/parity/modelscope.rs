//! ModelScope, by its own client, on an emulator of the hub.

use modelmount_test_support::ModelScopeHub;
use modelmount_test_support::hub::{Access, READER};
use modelmount_test_support::model;

use crate::{Both, environment, names};

async fn start() -> Option<(ModelScopeHub, Both)> {
    let hub = ModelScopeHub::start().await;
    let files = |seed| model::small(seed).into_iter().map(|(path, bytes)| (path, bytes.into()));
    hub.put_all("acme/m", "v1", files(1));
    hub.put_all("acme/m", "master", files(2));
    hub.put("acme/m", "deep/er/adapter.bin", "adapter");
    // By name: its client's cookies are for a host, whatever the port, and the store's is another host.
    let url = hub.url().replace("127.0.0.1", "localhost");
    let both = Both::new(environment([("MODELSCOPE_ENDPOINT", &url)]))?;
    Some((hub, both))
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_revisions_patterns_and_tokens() {
    let Some((hub, both)) = start().await else { return };
    let mut expected = model::small(2);
    expected.insert("deep/er/adapter.bin".to_owned(), b"adapter".to_vec());
    assert_eq!(both.same("modelscope://acme/m"), expected);
    assert_eq!(both.same("modelscope://acme/m:v1"), model::small(1));
    both.refused("modelscope://acme/none");
    both.refused("modelscope://acme/m/deep/none");
    both.refused("modelscope://acme");

    hub.set_access("acme/m", Access::Private);
    assert!(both.refused("modelscope://acme/m").contains("MODELSCOPE_API_TOKEN"));
    let both = both.with("MODELSCOPE_API_TOKEN", READER);
    assert_eq!(both.same("modelscope://acme/m"), expected);
    let both = both.with("STORAGE_ALLOW_PATTERNS", "deep/*");
    assert_eq!(names(&both.same("modelscope://acme/m")), ["deep/er/adapter.bin"]);
}
