//! `modelmount pull`: models into directories, without Kubernetes and without a cache. Credentials and endpoints come
//! from the environment: see [`super::environment`].

use std::path::Path;
use std::sync::Arc;

use modelmount::fetch::{Progress, pull};
use modelmount::net::CaCertificates;
use modelmount::size::Size;
use modelmount::{Context, Credentials, ModelRequest, Policy, model};

use super::environment::Environment;
use super::terminal::{Display, TICK, files};
use super::{Failure, runtime};
use crate::args::{Pull, Trust};

pub(super) fn run(args: &Pull) -> Result<(), Failure> {
    if !args.pairs.len().is_multiple_of(2) {
        return Err(Failure::Usage("every URI needs a destination: URI DEST [URI DEST ...]".to_owned()));
    }
    let environment = Environment::of_this_process()?;
    let requests = args
        .pairs
        .chunks_exact(2)
        .map(|pair| Ok((request(&pair[0], &args.attribute, &environment)?, Path::new(&pair[1]))))
        .collect::<Result<Vec<_>, Failure>>()?;
    let context = unrestricted(&environment, &args.trust)?;
    let credentials = environment.credentials();
    runtime()?.block_on(async {
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

/// A model as the command line and the environment name it. A path of this machine, which KServe takes too, is one.
pub(super) fn request(
    uri: &str,
    attributes: &[(String, String)],
    environment: &Environment,
) -> Result<ModelRequest, Failure> {
    let uri = if Path::new(uri).is_absolute() { format!("file://{uri}") } else { uri.to_owned() };
    let mut all = environment.attributes(&uri);
    all.extend(attributes.iter().cloned());
    all.insert(model::MODEL_URI.to_owned(), uri);
    Ok(ModelRequest::from_attributes(&all)?)
}

/// What a command may reach: all that its user may. An authority that can't be trusted is a matter of configuration.
pub(super) fn unrestricted(environment: &Environment, trust: &Trust) -> Result<Context, Failure> {
    let authorities: Vec<_> = trust.ca_file.iter().cloned().chain(environment.authorities()?).collect();
    CaCertificates::read(&authorities)
        .and_then(|authorities| Context::trusting(Policy::unrestricted(), &authorities))
        .map_err(|error| Failure::Configuration(error.report()))
}
