//! Random sequences of what happens to a node, against a model of what the cache must then know.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use modelmount::Digest;
use modelmount::cache::Lease;
use modelmount_test_support::Pattern;
use modelmount_test_support::model::Files;
use proptest::prelude::*;

use crate::memory::{Memory, source};
use crate::node::{Node, PART, assert_snapshot, limits, walk};

/// Models that share files with one another: model `i` has the files whose numbers' bits it has.
const MODELS: usize = 7;
const FILES: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Fetch(usize),
    /// Begins a fetch and gives it up after so many turns.
    GiveUp(usize, usize),
    Restart,
    PowerLoss,
    /// The model's manifest is torn.
    Tear(usize),
    Lease(usize),
    Release(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let model = 0..MODELS;
    prop_oneof![
        4 => model.clone().prop_map(Step::Fetch),
        2 => (model.clone(), 0..40usize).prop_map(|(model, turns)| Step::GiveUp(model, turns)),
        1 => Just(Step::Restart),
        1 => Just(Step::PowerLoss),
        1 => model.clone().prop_map(Step::Tear),
        1 => model.clone().prop_map(Step::Lease),
        1 => model.prop_map(Step::Release),
    ]
}

fn files(model: usize) -> Files {
    let sizes = [0, 3, PART + 1, 3 * PART];
    let has = |file: &usize| (model + 1) >> (file % 3) & 1 == 1 || *file == 3 && model == 6;
    (0..FILES).filter(has).map(|i| (format!("{i}"), Pattern::new(i as u64).bytes(0, sizes[i] as usize))).collect()
}

/// All models are directories of one store, so that equal files are one file to it: the locator is the base name.
async fn run(steps: Vec<Step>) {
    let mut node = Node::new(limits(2));
    let mut present = BTreeSet::new();
    let mut leased = BTreeSet::new();
    let mut models = Vec::new();
    for model in 0..MODELS {
        let memory = Memory::new(&files(model));
        let manifest = memory.manifest().await;
        models.push((files(model), memory, manifest));
    }
    for step in steps {
        match step {
            Step::Fetch(model) => {
                let (files, memory, manifest) = &models[model];
                assert_snapshot(&node.fetch(&source(memory), manifest).await.unwrap(), files);
                present.insert(manifest.id());
            }
            Step::GiveUp(model, turns) => {
                let (_, memory, manifest) = &models[model];
                let transfer = node.transfers().join(manifest.clone(), source(memory));
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                drop(transfer);
            }
            Step::Restart => node.restart().await,
            Step::PowerLoss => {
                // What was not flushed may be gone, and what was is not: only the cache knows which.
                node.restart_after_power_loss(|_| ()).await;
                present.retain(|id| node.cache().snapshot(*id).is_some());
            }
            Step::Tear(model) => {
                let id = models[model].2.id();
                let manifest = node.root().join("snapshots").join(id.hex()).join("manifest.json");
                if manifest.exists() {
                    fs::write(manifest, "").unwrap();
                    node.restart().await;
                    present.remove(&id);
                }
            }
            Step::Lease(model) => {
                node.cache().leases().put(lease(models[model].2.id(), model)).unwrap();
                leased.insert(model);
            }
            Step::Release(model) => {
                node.cache().leases().remove(&model.to_string(), "/target");
                leased.remove(&model);
            }
        }
        let leases: BTreeSet<String> = node.cache().leases().all().into_iter().map(|lease| lease.volume_id).collect();
        assert_eq!(leases, leased.iter().map(usize::to_string).collect());
        for (files, _, manifest) in &models {
            match node.cache().snapshot(manifest.id()) {
                Some(snapshot) => assert_snapshot(&snapshot, files),
                None => assert!(!present.contains(&manifest.id()), "a model was lost"),
            }
        }
    }
    // Every blob is what its name says.
    for (path, _) in walk(&node.root().join("blobs")) {
        let bytes = fs::read(node.root().join("blobs").join(&path)).unwrap();
        assert!(path.ends_with(&Digest::of(bytes).hex()), "{path}");
    }
}

fn lease(id: Digest, model: usize) -> Lease {
    let target = "/target".to_owned();
    Lease { volume_id: model.to_string(), target, arguments: id, snapshot: Some(id), bytes: 0, files: 0 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_cache_serves_what_was_fetched(steps in proptest::collection::vec(step(), 1..14)) {
        let runtime = Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());
        runtime.block_on(run(steps));
    }
}
