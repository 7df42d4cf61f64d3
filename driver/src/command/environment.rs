//! What the environment says about models and credentials, in the names that KServe gives its storage-initializer
//! container (`pkg/credentials` and `python/storage` of kserve/kserve): `pull` takes that container's place.
//!
//! Most names mean to a source what they mean in a Secret, and are handed on as they are. Here is what stands for
//! something else: names of files and directories, and the JSON of a storage secret.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use modelmount::{Credentials, model};

use super::Failure;

/// Where KServe's webhook mounts the bundle of the operator's authorities, unless it says otherwise.
const CA_BUNDLE_DIRECTORY: &str = "/etc/ssl/custom-certs";
const CA_BUNDLE: &str = "cabundle.crt";
/// Where KServe's webhook mounts the pull secret of a registry, unless it says otherwise.
const DOCKER_CONFIG: &str = "/mnt/oci-fetch-auth/config.json";
/// Where KServe's webhook mounts the Secret of an HDFS, unless it says otherwise.
const HDFS_SECRET: &str = "/var/secrets/kserve-hdfscreds";
const HDFS_KEYS: &[&str] = &[
    "HDFS_NAMENODE",
    "USER_PROXY",
    "HDFS_ROOTPATH",
    "TLS_CERT",
    "TLS_KEY",
    "TLS_CA",
    "TLS_SKIP_VERIFY",
    "HEADERS",
    "N_THREADS",
    "KERBEROS_KEYTAB",
    "KERBEROS_PRINCIPAL",
];
/// Those of them that are files, and come in base64 where a JSON document holds them.
const HDFS_FILES: &[&str] = &["KERBEROS_KEYTAB", "TLS_CERT", "TLS_KEY", "TLS_CA"];
/// Members of an S3 storage secret, and the variables that mean the same.
const S3_MEMBERS: &[(&str, &str)] = &[
    ("endpoint_url", "AWS_ENDPOINT_URL"),
    ("access_key_id", "AWS_ACCESS_KEY_ID"),
    ("secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ("region", "AWS_DEFAULT_REGION"),
    ("ca_bundle", "AWS_CA_BUNDLE"),
    ("verify_ssl", "S3_VERIFY_SSL"),
    ("anonymous", "awsAnonymousCredential"),
];
/// Largest file that stands for a credential, in bytes. Kubernetes' Secrets have at most 1 MiB.
const LARGEST_FILE: u64 = 1 << 20;

/// The environment's answers, secrets among them.
pub(super) struct Environment {
    /// The variables; those that a storage secret sets are replaced.
    variables: BTreeMap<String, String>,
    /// What files and storage secrets hold, by the name of the Secret's key.
    further: BTreeMap<String, String>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}

impl Environment {
    /// Reads this process's environment.
    ///
    /// # Errors
    /// [`Failure::Configuration`], naming the variable.
    pub(super) fn of_this_process() -> Result<Self, Failure> {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::new(std::env::vars_os().filter_map(text).collect())
    }

    fn new(variables: BTreeMap<String, String>) -> Result<Self, Failure> {
        let mut environment = Self { variables, further: BTreeMap::new() };
        if environment.get("CONFIDENTIAL_ENABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            // KServe decrypts in place what it has downloaded. To leave it encrypted would only fail later.
            return Err(Failure::Configuration(
                "CONFIDENTIAL_ENABLED is set, and encrypted models are not decrypted here: leave this model to KServe's \
                 own storage-initializer"
                    .to_owned(),
            ));
        }
        environment.read_storage_secret()?;
        if let Some(path) = environment.get("GOOGLE_APPLICATION_CREDENTIALS") {
            let content = read(Path::new(path), "GOOGLE_APPLICATION_CREDENTIALS")?;
            environment.further.insert("gcloud-application-credentials.json".to_owned(), content);
        }
        let docker = PathBuf::from(environment.get("KSERVE_OCI_DOCKER_CONFIG").unwrap_or(DOCKER_CONFIG));
        // As with KServe, a registry may well need no secret.
        if docker.exists() {
            environment.further.insert(".dockerconfigjson".to_owned(), read(&docker, "KSERVE_OCI_DOCKER_CONFIG")?);
        }
        environment.read_hdfs_secret()?;
        Ok(environment)
    }

    /// All names that a source may ask for.
    pub(super) fn credentials(&self) -> Credentials {
        self.variables.iter().chain(&self.further).map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Attributes of every model. What the command line says comes before it.
    pub(super) fn attributes(&self, uri: &str) -> BTreeMap<String, String> {
        let mut attributes = BTreeMap::new();
        for (variable, attribute) in
            [("STORAGE_ALLOW_PATTERNS", model::ALLOW_PATTERNS), ("STORAGE_IGNORE_PATTERNS", model::IGNORE_PATTERNS)]
        {
            if let Some(value) = self.get(variable) {
                attributes.insert(attribute.to_owned(), value.to_owned());
            }
        }
        let insecure = self.get("KSERVE_OCI_INSECURE_REGISTRY").map(str::to_ascii_lowercase);
        if uri.starts_with("oci://") && matches!(insecure.as_deref(), Some("1" | "true" | "yes")) {
            attributes.insert("plainHttp".to_owned(), "true".to_owned());
        }
        // As Google's own client, which KServe uses, reads them.
        let google = self.get("STORAGE_EMULATOR_HOST").or_else(|| self.get("API_ENDPOINT_OVERRIDE"));
        if let Some(endpoint) = google.filter(|_| uri.starts_with("gs://")) {
            attributes.insert("endpoint".to_owned(), endpoint.to_owned());
        }
        attributes
    }

    /// Files with certificates of authorities to trust.
    ///
    /// # Errors
    /// [`Failure::Configuration`] when a file that was named is not there. The bundle of KServe's webhook may be
    /// missing, as with KServe itself; that is said in the log.
    pub(super) fn authorities(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut files = Vec::new();
        for variable in ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"] {
            let Some(file) = self.get(variable).map(PathBuf::from) else { continue };
            if !file.is_file() {
                return Err(Failure::Configuration(format!(
                    "{variable} names {}, which is no file: mount the bundle there, or unset the variable",
                    file.display()
                )));
            }
            files.push(file);
        }
        if self.get("CA_BUNDLE_CONFIGMAP_NAME").is_some() {
            let directory = self.get("CA_BUNDLE_VOLUME_MOUNT_POINT").unwrap_or(CA_BUNDLE_DIRECTORY);
            let file = Path::new(directory).join(CA_BUNDLE);
            if file.is_file() {
                files.push(file);
            } else {
                tracing::warn!(file = %file.display(), "the bundle of CA certificates is not there");
            }
        }
        Ok(files)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// `STORAGE_CONFIG`, a member of KServe's `storage-config` Secret, and what an InferenceService changes in it.
    fn read_storage_secret(&mut self) -> Result<(), Failure> {
        let mut secret = BTreeMap::new();
        for variable in ["STORAGE_CONFIG", "STORAGE_OVERRIDE_CONFIG"] {
            let Some(text) = self.get(variable) else { continue };
            let members: BTreeMap<String, serde_json::Value> = serde_json::from_str(text).map_err(|_| {
                // The parser's own words repeat what it read.
                Failure::Configuration(format!("{variable} is not a JSON object, as a storage secret of KServe is"))
            })?;
            secret.extend(members);
        }
        let text = |name: &str| match secret.get(name) {
            Some(serde_json::Value::String(text)) => Some(text.clone()),
            Some(serde_json::Value::Null) | None => None,
            Some(other) => Some(other.to_string()),
        };
        match text("type").as_deref() {
            Some("s3") => {
                let known = S3_MEMBERS.iter().filter_map(|(member, name)| Some(((*name).to_owned(), text(member)?)));
                self.variables.extend(known.collect::<Vec<_>>());
            }
            Some("hdfs" | "webhdfs") => {
                for key in HDFS_KEYS {
                    let Some(value) = text(key) else { continue };
                    let value = if HDFS_FILES.contains(key) { decode(key, &value)? } else { value };
                    self.further.insert((*key).to_owned(), value);
                }
            }
            // KServe leaves what it does not know to the container's own variables.
            _ => {}
        }
        Ok(())
    }

    fn read_hdfs_secret(&mut self) -> Result<(), Failure> {
        let directory = PathBuf::from(self.get("HDFS_SECRET_DIR").unwrap_or(HDFS_SECRET));
        for key in HDFS_KEYS {
            let file = directory.join(key);
            if file.is_file() && !self.further.contains_key(*key) {
                self.further.insert((*key).to_owned(), read(&file, "HDFS_SECRET_DIR")?);
            }
        }
        Ok(())
    }
}

fn read(file: &Path, variable: &str) -> Result<String, Failure> {
    let refused = |problem: String| Failure::Configuration(format!("{variable}: {} {problem}", file.display()));
    let size = fs::metadata(file).map_err(|error| refused(format!("can't be read ({error})")))?.len();
    if size > LARGEST_FILE {
        return Err(refused(format!("has {size} bytes, and a credential has at most {LARGEST_FILE}")));
    }
    fs::read_to_string(file).map_err(|error| refused(format!("can't be read ({error})")))
}

fn decode(key: &str, value: &str) -> Result<String, Failure> {
    let refused = || Failure::Configuration(format!("STORAGE_CONFIG: {key} is not a text in base64"));
    let bytes = STANDARD.decode(value.trim()).map_err(|_| refused())?;
    String::from_utf8(bytes).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Result<Environment, Failure> {
        Environment::new(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn secret(environment: &Environment, name: &str) -> Option<String> {
        environment.credentials().get(&[name]).map(|value| value.expose().clone())
    }

    #[test]
    fn a_storage_secret_of_kserve_says_the_same_as_variables() {
        let config = r#"{"type":"s3","endpoint_url":"http://minio:9000","access_key_id":"AK","anonymous":false}"#;
        let variables = [
            ("STORAGE_CONFIG", config),
            ("STORAGE_OVERRIDE_CONFIG", r#"{"region":"eu"}"#),
            ("AWS_ACCESS_KEY_ID", "other"),
        ];
        let environment = environment(&variables).unwrap();
        for (name, value) in [
            ("AWS_ENDPOINT_URL", "http://minio:9000"),
            ("AWS_ACCESS_KEY_ID", "AK"),
            ("AWS_DEFAULT_REGION", "eu"),
            ("awsAnonymousCredential", "false"),
        ] {
            assert_eq!(secret(&environment, name).as_deref(), Some(value), "{name}");
        }
    }

    #[test]
    fn an_hdfs_secret_comes_as_json_or_as_files() {
        let config = r#"{"type":"webhdfs","HDFS_NAMENODE":"http://nn:9870","TLS_CA":"cGVt","unknown":"x"}"#;
        let json = environment(&[("STORAGE_CONFIG", config)]).unwrap();
        assert_eq!(secret(&json, "HDFS_NAMENODE").as_deref(), Some("http://nn:9870"));
        assert_eq!(secret(&json, "TLS_CA").as_deref(), Some("pem"));
        assert_eq!(secret(&json, "unknown"), None);

        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("HDFS_NAMENODE"), "http://other:9870\n").unwrap();
        let files = environment(&[("HDFS_SECRET_DIR", directory.path().to_str().unwrap())]).unwrap();
        assert_eq!(secret(&files, "HDFS_NAMENODE").as_deref(), Some("http://other:9870"));
    }

    #[test]
    fn files_that_variables_name_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f");
        fs::write(&file, "{}").unwrap();
        let name = file.to_str().unwrap();
        let google = environment(&[("GOOGLE_APPLICATION_CREDENTIALS", name)]).unwrap();
        assert_eq!(secret(&google, "gcloud-application-credentials.json").as_deref(), Some("{}"));
        let docker = environment(&[("KSERVE_OCI_DOCKER_CONFIG", name)]).unwrap();
        assert_eq!(secret(&docker, ".dockerconfigjson").as_deref(), Some("{}"));
        assert_eq!(environment(&[("AWS_CA_BUNDLE", name)]).unwrap().authorities().unwrap(), [file]);
    }

    #[test]
    fn patterns_and_registries_become_attributes() {
        let environment =
            environment(&[("STORAGE_ALLOW_PATTERNS", r#"["*.json"]"#), ("KSERVE_OCI_INSECURE_REGISTRY", "True")])
                .unwrap();
        let attributes = environment.attributes("oci://registry/model");
        let pairs: Vec<_> = attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("allowPatterns", r#"["*.json"]"#), ("plainHttp", "true")]);
        assert_eq!(environment.attributes("s3://b/m").len(), 1);
    }

    #[test]
    fn googles_endpoint_is_where_googles_client_looks_for_it() {
        let overridden = ("API_ENDPOINT_OVERRIDE", "http://gcs:1");
        let endpoint = |variables: &[(&str, &str)], uri| environment(variables).unwrap().attributes(uri);
        assert_eq!(endpoint(&[overridden], "gs://b/m")["endpoint"], "http://gcs:1");
        let both = [overridden, ("STORAGE_EMULATOR_HOST", "http://gcs:2")];
        assert_eq!(endpoint(&both, "gs://b/m")["endpoint"], "http://gcs:2");
        assert!(endpoint(&both, "s3://b/m").is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_shown() {
        for (variables, hint) in [
            (&[("STORAGE_CONFIG", "hunter2")][..], "STORAGE_CONFIG is not a JSON object"),
            (&[("STORAGE_CONFIG", r#"{"type":"hdfs","TLS_CA":"hunter2!"}"#)], "TLS_CA is not a text in base64"),
            (&[("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent")], "/nonexistent can't be read"),
            (&[("CONFIDENTIAL_ENABLED", "True")], "CONFIDENTIAL_ENABLED is set"),
        ] {
            let failure = environment(variables).unwrap_err().to_string();
            assert!(failure.contains(hint) && !failure.contains("hunter2"), "{failure}");
        }
        let failure = environment(&[("AWS_CA_BUNDLE", "/nonexistent")]).unwrap().authorities().unwrap_err();
        assert!(failure.to_string().contains("AWS_CA_BUNDLE names /nonexistent, which is no file"), "{failure}");
    }
}
