//! The Controller service, called directly, with a web server that models come from and an API server that knows claims.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use modelmount::Policy;
use modelmount_test_support::ScriptedServer;
use modelmount_test_support::script::{Request as Asked, Response as Answer};
use tempfile::TempDir;

use super::*;
use crate::csi::volume_capability::access_mode::Mode;
use crate::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use crate::csi::{CapacityRange, ListVolumesRequest, VolumeCapability, VolumeContentSource};
use crate::kubernetes::Config;

const SIZE: usize = 1000;
const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// A web server, an API server and a controller.
struct Scene {
    models: ScriptedServer,
    api: ScriptedServer,
    service: ControllerService,
    version: Arc<AtomicU32>,
    _account: TempDir,
}

impl Scene {
    async fn start() -> Self {
        Self::with_api(|_| Answer::new(200).body(r#"{"metadata": {"annotations": {"model": "a/m.gguf"}}}"#)).await
    }

    async fn with_api(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let version = Arc::new(AtomicU32::new(1));
        let models = ScriptedServer::start({
            let version = Arc::clone(&version);
            move |request| serve_model(request, version.load(Ordering::SeqCst))
        })
        .await;
        let api = ScriptedServer::start(answer).await;
        let account = tempfile::tempdir().unwrap();
        std::fs::write(account.path().join("token"), "t").unwrap();
        let config = Config { server: api.url().parse().unwrap(), service_account: account.path().to_owned() };
        let context = Context::new(Policy::new(vec!["127.0.0.0/8".parse().unwrap()], vec!["/".into()])).unwrap();
        let service = ControllerService::new(context, Some(Client::new(config)));
        Self { models, api, service, version, _account: account }
    }

    /// A claim of a class with these parameters besides the model at `path`.
    fn request(&self, path: &str, more: &[(&str, &str)]) -> CreateVolumeRequest {
        let uri = format!("{}{path}", self.models.url());
        let claim = [("pvc/name", "claim"), ("pvc/namespace", "team"), ("pv/name", "pvc-1")];
        let mut parameters = map(&claim.map(|(key, value)| (format!("csi.storage.k8s.io/{key}"), value.to_owned())));
        parameters.insert("modelUri".to_owned(), uri);
        parameters.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let volume_capabilities = vec![capability(Mode::MultiNodeReaderOnly)];
        CreateVolumeRequest { name: "pvc-1".into(), volume_capabilities, parameters, ..Default::default() }
    }

    async fn create(&self, request: CreateVolumeRequest) -> Result<Volume, Status> {
        let answer = self.service.create_volume(Request::new(request)).await?;
        Ok(answer.into_inner().volume.expect("a volume"))
    }

    async fn refused(&self, request: CreateVolumeRequest) -> (Code, String) {
        let status = self.create(request).await.expect_err("must be refused");
        assert!(status.details().is_empty());
        (status.code(), status.message().to_owned())
    }
}

fn serve_model(request: &Asked, version: u32) -> Answer {
    let last = request.target.rsplit('/').next().unwrap_or_default();
    let content = vec![b'x'; SIZE];
    match last {
        "m.gguf" => Answer::content(request, &content).header("etag", format!("\"{version}\"")),
        "unversioned" => Answer::content(request, &content),
        "secret" => Answer::new(401),
        "broken" => Answer::new(503),
        "silent" => Answer::new(200).delay(Duration::from_secs(600)),
        _ => Answer::new(404),
    }
}

fn map(pairs: &[(String, String)]) -> HashMap<String, String> {
    pairs.iter().cloned().collect()
}

fn capability(mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

#[tokio::test]
async fn a_volume_is_its_model_at_the_version_that_its_source_has() {
    let scene = Scene::start().await;
    let first = scene.create(scene.request("/m.gguf", &[])).await.unwrap();
    let uri = format!("{}/m.gguf", scene.models.url());
    let pin = first.volume_context["pin"].clone();
    assert_eq!(first.volume_context, map(&[("modelUri".into(), uri), ("pin".into(), pin.clone())]));
    assert_eq!(first.capacity_bytes, SIZE as i64);
    assert!(is_volume_id(&first.volume_id));
    assert_eq!(scene.create(scene.request("/m.gguf", &[])).await.unwrap(), first);
    let read: u64 =
        scene.models.requests().iter().map(|request| request.range().map_or(1000, |(a, b)| b - a + 1)).sum();
    assert!(read < 10, "a model was downloaded: {read} bytes");

    // The model changes between two tries: still the same volume, of the version of the second.
    scene.version.store(2, Ordering::SeqCst);
    let second = scene.create(scene.request("/m.gguf", &[])).await.unwrap();
    assert_eq!(second.volume_id, first.volume_id);
    assert_ne!(second.volume_context["pin"], pin);
    // Who names a version gets that one.
    let (code, text) = scene.refused(scene.request("/m.gguf", &[("pin", &pin)])).await;
    assert!(code == Code::FailedPrecondition && text.contains("is pinned to the version"), "{text}");
}

#[tokio::test]
async fn pinning_can_be_switched_off_and_a_digest_is_a_pin() {
    let scene = Scene::start().await;
    for parameters in [[("pinRevision", "false")], [("digest", DIGEST)]] {
        for path in ["/m.gguf", "/unversioned"] {
            let volume = scene.create(scene.request(path, &parameters)).await.unwrap();
            assert!(!volume.volume_context.contains_key("pin") && !volume.volume_context.contains_key("pinRevision"));
        }
    }
    let (code, text) = scene.refused(scene.request("/unversioned", &[("pinRevision", "true")])).await;
    assert!(code == Code::FailedPrecondition && text.contains("pinRevision: \"false\""), "{text}");
    // Nor is it taken for a version that somebody names.
    let (code, text) = scene.refused(scene.request("/unversioned", &[("pin", DIGEST)])).await;
    assert!(code == Code::FailedPrecondition && text.contains("tells no versions apart"), "{text}");
}

#[tokio::test]
async fn what_a_class_asks_of_the_controller_is_no_attribute_of_the_volume() {
    let scene = Scene::start().await;
    let plain = scene.create(scene.request("/m.gguf", &[])).await.unwrap();
    let host = format!("{}/", scene.models.url());
    let own = [("pinRevision", "true"), ("ignoreCapacity", "true"), ("allowedUris", host.as_str())];
    assert_eq!(scene.create(scene.request("/m.gguf", &own)).await.unwrap(), plain);
    for (key, _) in own {
        let attributes = [("modelUri".to_owned(), "s3://b/m".to_owned()), (key.to_owned(), "true".to_owned())];
        ModelRequest::from_attributes(&attributes.into()).unwrap_err();
    }
    let other = CreateVolumeRequest { name: "pvc-2".into(), ..scene.request("/m.gguf", &[]) };
    assert_ne!(scene.create(other).await.unwrap().volume_id, plain.volume_id);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_before_anybody_is_asked() {
    let scene = Scene::start().await;
    let good = || scene.request("/m.gguf", &[]);
    let both = vec![capability(Mode::MultiNodeReaderOnly), capability(Mode::MultiNodeMultiWriter)];
    let block = VolumeCapability {
        access_type: Some(AccessType::Block(BlockVolume {})),
        ..capability(Mode::MultiNodeReaderOnly)
    };
    let from = Some(VolumeContentSource { r#type: None });
    let mutable_parameters = map(&[("modelUri".into(), "x".into())]);
    let long = "x".repeat(5000);
    for (request, hint) in [
        (CreateVolumeRequest { name: String::new(), ..good() }, "required"),
        (CreateVolumeRequest { name: "ä".repeat(65), ..good() }, "128"),
        (CreateVolumeRequest { name: "a\u{1}".into(), ..good() }, "control"),
        (CreateVolumeRequest { volume_capabilities: vec![], ..good() }, "required"),
        (CreateVolumeRequest { volume_capabilities: both, ..good() }, "ReadOnlyMany"),
        (CreateVolumeRequest { volume_capabilities: vec![block], ..good() }, "Filesystem"),
        (CreateVolumeRequest { volume_content_source: from, ..good() }, "snapshot"),
        (CreateVolumeRequest { mutable_parameters, ..good() }, "mutable"),
        (CreateVolumeRequest { parameters: HashMap::new(), ..good() }, "no attribute \"modelUri\""),
        (scene.request("/m.gguf", &[("modelUri", "file:///m")]), "files of one node"),
        (scene.request("/m.gguf", &[("modelUri", "s4://x")]), "no source reads"),
        (scene.request("/m.gguf", &[("modelUrl", "x")]), "unknown attribute \"modelUrl\""),
        (scene.request("/m.gguf", &[("pinRevision", "no")]), "pinRevision must be"),
        (scene.request("/m.gguf", &[("ignoreCapacity", "True")]), "ignoreCapacity must be"),
        (scene.request("/m.gguf", &[("pin", "main")]), "pin: a digest is written"),
        (scene.request("/${pvc.uid}", &[]), "modelUri: ${pvc.uid} is unknown"),
        (scene.request("/m.gguf", &[("allowedUris", "models")]), "allowedUris: "),
        (scene.request("/m.gguf", &[("ignorePatterns", &long)]), "4096"),
    ] {
        let (code, text) = scene.refused(request).await;
        assert!(code == Code::InvalidArgument && text.contains(hint), "{hint}: {code:?} {text}");
    }
    let asked = scene.models.requests().len() + scene.api.requests().len();
    assert!(asked <= 1, "only what is too long for a volume is found out late: {asked}");
    scene.create(CreateVolumeRequest { name: "ä".repeat(64), ..good() }).await.unwrap();
}

#[tokio::test]
async fn a_model_that_is_not_there_is_told_from_a_source_that_is_not() {
    let scene = Scene::start().await;
    let (code, text) = scene.refused(scene.request("/missing", &[])).await;
    assert!(code == Code::NotFound && text.contains("/missing"), "{text}");
    assert_eq!(scene.refused(scene.request("/broken", &[])).await.0, Code::Unavailable);
    assert_eq!(scene.refused(scene.request("", &[("modelUri", "http://127.0.0.1:1/m")])).await.0, Code::Unavailable);

    let (code, text) = scene.refused(scene.request("/secret", &[])).await;
    assert!(code == Code::Unauthenticated && text.contains("/provisioner-secret-name"), "{text}");
    let secrets = map(&[("token".into(), "CANARY".into())]);
    let (code, text) = scene.refused(CreateVolumeRequest { secrets, ..scene.request("/secret", &[]) }).await;
    assert!(code == Code::Unauthenticated && !text.contains("provisioner") && !text.contains("CANARY"), "{text}");
    assert_eq!(scene.models.requests().last().unwrap().header("authorization"), Some("Bearer CANARY"));
}

#[tokio::test]
async fn the_answer_comes_before_the_provisioner_gives_up() {
    let scene = Scene::start().await;
    let mut request = Request::new(scene.request("/silent", &[]));
    request.set_timeout(Duration::from_secs(1));
    let start = Instant::now();
    let status = scene.service.create_volume(request).await.unwrap_err();
    assert!(status.code() == Code::Unavailable && status.message().contains("has not answered"), "{status:?}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_claim_gets_what_it_asks_for_or_is_told_what_to_ask_for() {
    let scene = Scene::start().await;
    let asking = |required_bytes, more: &[(&str, &str)]| CreateVolumeRequest {
        capacity_range: Some(CapacityRange { required_bytes, limit_bytes: 0 }),
        ..scene.request("/m.gguf", more)
    };
    let large = scene.create(asking(1 << 30, &[])).await.unwrap();
    assert_eq!(large.capacity_bytes, 1 << 30);
    assert_eq!(scene.create(asking(1000, &[])).await.unwrap(), Volume { capacity_bytes: 1000, ..large });
    let (code, text) = scene.refused(asking(999, &[])).await;
    assert!(code == Code::OutOfRange && text.contains("1000 bytes") && text.contains("storage: 1Mi"), "{text}");
    assert_eq!(scene.create(asking(999, &[("ignoreCapacity", "true")])).await.unwrap().capacity_bytes, 1000);
}

#[tokio::test]
async fn names_of_the_claim_make_the_uri_without_asking_the_api_server() {
    let scene = Scene::start().await;
    let request = scene.request("/${pvc.namespace}/${pvc.name}/${pv.name}/$${x}/m.gguf", &[]);
    let volume = scene.create(request.clone()).await.unwrap();
    let uri = format!("{}/team/claim/pvc-1/${{x}}/m.gguf", scene.models.url());
    assert_eq!(volume.volume_context["modelUri"], uri);
    assert_eq!(scene.api.requests().len(), 0);

    let mut untold = request;
    untold.parameters.retain(|key, _| !key.starts_with("csi.storage.k8s.io/"));
    let (code, text) = scene.refused(untold).await;
    assert!(code == Code::FailedPrecondition && text.contains("--extra-create-metadata"), "{text}");
}

#[tokio::test]
async fn annotations_choose_a_model_within_what_the_class_allows() {
    let annotation = Arc::new(std::sync::Mutex::new(String::new()));
    let said = Arc::clone(&annotation);
    let scene = Scene::with_api(move |_| {
        let body = serde_json::json!({"metadata": {"annotations": {"model": said.lock().unwrap().clone()}}});
        Answer::new(200).body(body.to_string())
    })
    .await;
    let allowed = format!("{}/${{pvc.namespace}}", scene.models.url());
    let create = async |path: &str, value: &str| {
        value.clone_into(&mut annotation.lock().unwrap());
        scene.create(scene.request(path, &[("allowedUris", &allowed)])).await
    };
    let volume = create("/team/${pvc.annotations['model']}", "a/m.gguf").await.unwrap();
    assert_eq!(volume.volume_context["modelUri"], format!("{}/team/a/m.gguf", scene.models.url()));
    assert_eq!(volume.volume_context.len(), 2, "{volume:?}");
    let asked = &scene.api.requests()[0];
    assert_eq!(
        (asked.method.as_str(), asked.target.as_str()),
        ("GET", "/api/v1/namespaces/team/persistentvolumeclaims/claim")
    );

    let before = scene.models.requests().len();
    for (path, value, code) in [
        ("/team/${pvc.annotations['model']}", "../other/m.gguf", Code::FailedPrecondition),
        ("/team/${pvc.annotations['model']}", "%2e%2e/other/m.gguf", Code::FailedPrecondition),
        ("/team/.${pvc.annotations['model']}/other/m.gguf", ".", Code::FailedPrecondition),
        ("/team/.${pvc.annotations['model']}", "./m.gguf", Code::FailedPrecondition),
        ("/team/.${pvc.annotations['model']}", ";/../m.gguf", Code::FailedPrecondition),
        ("/${pvc.annotations['model']}", "other/m.gguf", Code::PermissionDenied),
        ("/${pvc.annotations['model']}", "team-b/m.gguf", Code::PermissionDenied),
        ("${pvc.annotations['model']}", ".evil.example/m.gguf", Code::PermissionDenied),
        ("/team/${pvc.annotations['absent']}", "m.gguf", Code::FailedPrecondition),
    ] {
        let status = create(path, value).await.unwrap_err();
        assert_eq!(status.code(), code, "{path} {value}: {status:?}");
    }
    assert_eq!(scene.models.requests().len(), before, "a source was asked for what is not allowed");
}

#[tokio::test]
async fn no_secret_leads_out_of_what_the_class_allows() {
    let scene = Scene::start().await;
    let server = scene.models.url();
    let with_secret = |request, key: &str, value: &str| {
        let secrets = map(&[(key.to_owned(), value.to_owned())]);
        CreateVolumeRequest { secrets, ..request }
    };
    for (uri, key, attribute) in [
        ("s3://models/m", "AWS_ENDPOINT_URL", "endpoint"),
        ("s3://models/m", "S3_ENDPOINT", "endpoint"),
        ("s3://models/m", "AWS_REGION", "region"),
        ("hf://owner/m", "HF_ENDPOINT", "endpoint"),
        ("modelscope://owner/m", "MODELSCOPE_DOMAIN", "endpoint"),
        ("hdfs://models/m", "HDFS_NAMENODE", "namenode"),
        ("hdfs://models/m", "HDFS_ROOTPATH", "rootPath"),
        ("az://models/m", "AZURE_STORAGE_ACCOUNT", "account"),
    ] {
        let request = scene.request("", &[("modelUri", uri), ("allowedUris", uri)]);
        let (code, text) = scene.refused(with_secret(request, key, &server)).await;
        assert_eq!(code, Code::FailedPrecondition, "{key}: {text}");
        assert!(text.contains(key) && text.contains(&format!("parameter {attribute},")), "{text}");
        assert!(!text.contains(&server), "{text}");
    }
    assert_eq!(scene.models.requests().len(), 0, "a Secret's server was asked");

    // The class says where, whatever the Secret says; and where nothing is bounded, the Secret may.
    let bounded = [("modelUri", "hf://owner/m"), ("allowedUris", "hf://owner"), ("endpoint", server.as_str())];
    scene.refused(with_secret(scene.request("", &bounded), "HF_ENDPOINT", "http://127.0.0.1:1")).await;
    assert_eq!(scene.models.requests().len(), 1);
    scene.refused(with_secret(scene.request("", &bounded[..1]), "HF_ENDPOINT", &server)).await;
    assert_eq!(scene.models.requests().len(), 2);
}

#[tokio::test]
async fn a_class_that_leaves_the_choice_to_claims_must_bound_it() {
    let scene = Scene::start().await;
    let annotated = "/${pvc.annotations['model']}";
    let (code, text) = scene.refused(scene.request(annotated, &[])).await;
    assert!(code == Code::InvalidArgument && text.contains("allowedUris"), "{text}");
    let own = [("allowedUris", "${pvc.annotations['model']}")];
    let (code, text) = scene.refused(scene.request(annotated, &own)).await;
    assert!(code == Code::InvalidArgument && text.contains("can't say what the claim may have"), "{text}");
    assert_eq!(scene.api.requests().len(), 0);
}

#[tokio::test]
async fn annotations_that_can_not_be_read_say_whose_fault_it_is() {
    for (answer, code, hint) in [
        (Answer::new(403), Code::FailedPrecondition, "get on persistentvolumeclaims"),
        (Answer::new(404), Code::NotFound, "team/claim; the claim is gone"),
        (Answer::new(500), Code::Unavailable, "asked again"),
        (Answer::new(200).body("<html>"), Code::Unavailable, "asked again"),
        (Answer::new(200).body(r#"{"metadata": {}}"#), Code::FailedPrecondition, "no annotation \"model\""),
    ] {
        let scene = Scene::with_api(move |_| answer.clone()).await;
        let allowed = scene.models.url();
        let request = scene.request("/${pvc.annotations['model']}", &[("allowedUris", &allowed)]);
        let (found, text) = scene.refused(request.clone()).await;
        assert!(found == code && text.contains(hint), "{hint}: {found:?} {text}");
        let outside = ControllerService { api: None, ..scene.service };
        let status = outside.create_volume(Request::new(request)).await.unwrap_err();
        assert!(
            status.code() == Code::FailedPrecondition && status.message().contains("in a cluster only"),
            "{status:?}"
        );
    }
}

#[tokio::test]
async fn any_id_can_be_deleted_but_no_id_can_not() {
    let scene = Scene::start().await;
    let delete = async |id: &str| {
        let request = DeleteVolumeRequest { volume_id: id.into(), ..Default::default() };
        scene.service.delete_volume(Request::new(request)).await.map(drop)
    };
    assert_eq!(delete("").await.unwrap_err().code(), Code::InvalidArgument);
    delete("whatever").await.unwrap();
    delete(&volume_id("pvc-1", &Default::default())).await.unwrap();
}

#[tokio::test]
async fn validation_confirms_volumes_that_can_be_mounted_as_asked() {
    let scene = Scene::start().await;
    let ask = async |id: &str, modes: &[Mode], context: &[(&str, &str)], parameters: &[(&str, &str)]| {
        let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let request = ValidateVolumeCapabilitiesRequest {
            volume_id: id.into(),
            volume_capabilities: modes.iter().map(|mode| capability(*mode)).collect(),
            volume_context: owned(context),
            parameters: owned(parameters),
            ..Default::default()
        };
        scene.service.validate_volume_capabilities(Request::new(request)).await.map(Response::into_inner)
    };
    let id = volume_id("pvc-1", &Default::default());
    let good = [Mode::SingleNodeWriter, Mode::MultiNodeReaderOnly];
    let context = [("modelUri", "s3://b/m"), ("pin", DIGEST), ("storage.kubernetes.io/csiProvisionerIdentity", "x")];
    let parameters = [("modelUri", "s3://b/${pvc.name}"), ("ignoreCapacity", "true")];
    assert_eq!(ask("", &good, &[], &[]).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(ask(&id, &[], &[], &[]).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(ask("invented", &good, &[], &[]).await.unwrap_err().code(), Code::NotFound);

    // The second as somebody wrote it into a PersistentVolume of their own.
    for id in [id.as_str(), "my model"] {
        let confirmed = ask(id, &good, &context, &parameters).await.unwrap().confirmed.unwrap();
        assert_eq!(confirmed.volume_capabilities, good.map(capability));
        assert_eq!((confirmed.volume_context.len(), confirmed.parameters.len()), (3, 2));
    }
    for (modes, context, parameters, hint) in [
        (&[Mode::SingleNodeWriter, Mode::MultiNodeMultiWriter][..], &context[..], &parameters[..], "ReadOnlyMany"),
        (&good, &[("modelUrl", "x")], &[], "modelUrl"),
        (&good, &[("modelUri", "s3://b/m"), ("allowedUris", "s3://b")], &[], "allowedUris"),
        (&good, &context, &[("ignoreCapacity", "maybe")], "ignoreCapacity"),
    ] {
        let answer = ask(&id, modes, context, parameters).await.unwrap();
        assert!(answer.confirmed.is_none() && answer.message.contains(hint), "{hint}: {answer:?}");
    }
}

#[tokio::test]
async fn nothing_is_announced_that_is_not_there() {
    let service = Scene::start().await.service;
    let answer = service.controller_get_capabilities(Request::new(Default::default())).await.unwrap().into_inner();
    let announced: Vec<_> = answer.capabilities.into_iter().filter_map(|capability| capability.r#type).collect();
    assert_eq!(announced, [Type::Rpc(Rpc { r#type: RpcType::CreateDeleteVolume.into() })]);
    let status = service.list_volumes(Request::new(ListVolumesRequest::default())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}
