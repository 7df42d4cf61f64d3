//! Hugging Face, by its own client, on an emulator of the hub.

use modelmount_test_support::HuggingFaceHub;
use modelmount_test_support::hub::{Access, GUEST, READER};
use modelmount_test_support::model::{self, Files};

use crate::{Both, Outcome, differs, environment, names};

/// A hub with one model, whose tag `v1` is a version before the last.
async fn start() -> Option<(HuggingFaceHub, Both)> {
    let hub = HuggingFaceHub::start().await;
    let files = |seed| model::small(seed).into_iter().map(|(path, bytes)| (path, bytes.into()));
    hub.put_all("acme/m", "main", files(1));
    hub.tag("acme/m", "v1");
    hub.put_all("acme/m", "main", files(2));
    hub.put("acme/m", "deep/er/adapter.bin", "adapter");
    hub.put("acme/m-v2", "config.json", "a neighbour");
    let both = Both::new(environment([("HF_ENDPOINT", &hub.url())]))?;
    Some((hub, both))
}

/// What KServe's leaves is the model, and the notes of Hugging Face's client about it.
fn both_ways(both: &Both, uri: &str) -> Files {
    both.same_but("notes of Hugging Face's client", |path| path.starts_with(".cache/huggingface/"), uri)
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_revisions_and_patterns() {
    let Some((hub, both)) = start().await else { return };
    let mut expected = model::small(2);
    expected.insert("deep/er/adapter.bin".to_owned(), b"adapter".to_vec());
    assert_eq!(both_ways(&both, "hf://acme/m"), expected);
    assert_eq!(both_ways(&both, "hf://acme/m:v1"), model::small(1));
    assert_eq!(both_ways(&both, &format!("hf://acme/m:{}", hub.commit("acme/m", "v1"))), model::small(1));
    assert_eq!(names(&both_ways(&both, "hf://acme/m-v2")), ["config.json"]);
    assert!(both.refused("hf://acme/m:none").contains("none"));
    assert!(both.refused("hf://acme/none").contains("no such repository"));
    both.refused("hf://acme");
    both.refused("hf:///m");

    let both = both.with("STORAGE_ALLOW_PATTERNS", "*.json,deep/*").with("STORAGE_IGNORE_PATTERNS", r#"["vocab*"]"#);
    let some = both_ways(&both, "hf://acme/m");
    assert!(some.contains_key("deep/er/adapter.bin") && some.contains_key("config.json"), "{:?}", names(&some));
    assert!(!some.contains_key("model.safetensors") && !some.keys().any(|name| name.starts_with("vocab")));
}

#[tokio::test(flavor = "multi_thread")]
async fn gated_and_private_repositories() {
    let Some((hub, mut both)) = start().await else { return };
    for access in [Access::Gated, Access::Private] {
        hub.set_access("acme/m", access);
        both.environment.remove("HF_TOKEN");
        assert!(both.refused("hf://acme/m").contains("HF_TOKEN"));
        both = both.with("HF_TOKEN", GUEST);
        assert!(!both.refused("hf://acme/m").contains(GUEST));
        both = both.with("HF_TOKEN", "unknown");
        both.refused("hf://acme/m");
        both = both.with("HF_TOKEN", READER);
        assert!(both_ways(&both, "hf://acme/m").contains_key("model.safetensors"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_forms_of_uri() {
    let Some((hub, both)) = start().await else { return };
    differs("more forms of URI");
    hub.put("datasets/acme/d", "train.json", "[]");
    for (uri, expected) in [
        ("hf://acme/m@v1/config.json", "config.json"),
        ("hf://acme/m/deep", "er/adapter.bin"),
        ("hf://datasets/acme/d", "train.json"),
    ] {
        let (theirs, ours): (Outcome, Outcome) = both.download(uri);
        theirs.unwrap_err();
        assert_eq!(names(&ours.unwrap()), [expected], "{uri}");
    }
}

/// KServe's says nothing of a pattern that matches nothing; a server would find no model.
#[tokio::test(flavor = "multi_thread")]
async fn patterns_that_match_nothing() {
    let Some((_hub, both)) = start().await else { return };
    differs("nothing matches");
    let (theirs, ours) = both.with("STORAGE_ALLOW_PATTERNS", "*.none").download("hf://acme/m");
    assert!(theirs.unwrap().keys().all(|path| path.starts_with(".cache/")));
    let ours = ours.unwrap_err();
    assert!(ours.said.contains("allowPatterns") && ours.left.is_empty(), "{ours:?}");
}
