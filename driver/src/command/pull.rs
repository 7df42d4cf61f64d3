//! `modelmount pull`: models into directories, without Kubernetes and without a cache. Credentials and endpoints come
//! from the environment, under the names that the sources know from Secrets.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use modelmount::fetch::{Progress, pull};
use modelmount::size::Size;
use modelmount::{Context, Credentials, Error, ModelRequest, Policy, model};

use super::terminal::{Display, TICK, files};
use super::{Failure, context, runtime};
use crate::args::Pull;

pub(super) fn run(args: &Pull) -> Result<(), Failure> {
    if !args.pairs.len().is_multiple_of(2) {
        return Err(Failure::Usage("every URI needs a destination: URI DEST [URI DEST ...]".to_owned()));
    }
    let requests = args
        .pairs
        .chunks_exact(2)
        .map(|pair| Ok((request(&pair[0], &args.attribute)?, Path::new(&pair[1]))))
        .collect::<Result<Vec<_>, Failure>>()?;
    let context = context(Policy::unrestricted(), &args.trust)?;
    runtime()?.block_on(async {
        let credentials = from_environment();
        for (request, destination) in requests {
            one(&request, &credentials, &context, destination, args).await?;
        }
        Ok(())
    })
}

async fn one(
    request: &ModelRequest,
    credentials: &Credentials,
    context: &Context,
    destination: &Path,
    args: &Pull,
) -> Result<(), Failure> {
    let model = request.open(credentials, context)?;
    let manifest = request.resolve(&model).await?;
    let progress = Arc::<Progress>::default();
    let work = pull(&manifest, model, destination, args.fetch.into(), Arc::clone(&progress));
    let mut work = std::pin::pin!(work);
    let mut display = Display::new(&request.name());
    let mut ticks = tokio::time::interval(TICK);
    let outcome = loop {
        tokio::select! {
            outcome = work.as_mut() => break outcome,
            _ = ticks.tick() => display.show(progress.amounts()),
        }
    };
    let pulled = outcome.inspect_err(|_| display.abandon())?;
    display.done(&format!("{}, {}, {}", files(pulled.files.len()), Size(pulled.bytes()), pulled.digest));
    match request.digest() {
        Some(demanded) if !pulled.has_digest(demanded) => Err(Failure::Failed(format!(
            "{} has the digest {}, and {demanded} was demanded; the files are in {}",
            request.name(),
            pulled.digest,
            destination.display()
        ))),
        _ => Ok(()),
    }
}

/// A model as the command line names it.
pub(super) fn request(uri: &str, attributes: &[(String, String)]) -> Result<ModelRequest, Error> {
    let uri = (model::MODEL_URI.to_owned(), uri.to_owned());
    let attributes: BTreeMap<String, String> = attributes.iter().cloned().chain([uri]).collect();
    ModelRequest::from_attributes(&attributes)
}

/// All of the environment: sources pick the names that they know.
pub(super) fn from_environment() -> Credentials {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("AWS_"))
        .collect()
}
