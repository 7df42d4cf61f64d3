//! `modelmount cache`: a look into a cache, also while a plugin has it open; and its end.

use modelmount::Cache;
use modelmount::cache::{self, Summary};
use modelmount::size::Size;

use super::resolve::json;
use super::terminal::note;
use super::{Failure, print};
use crate::args::{CacheLs, CacheRm, Output};

pub(super) fn ls(args: &CacheLs) -> Result<(), Failure> {
    let models = Cache::list(&args.cache_dir)?;
    print(&match args.output {
        Output::Text => text(&models),
        Output::Json => json(&models)?,
    });
    Ok(())
}

pub(super) fn rm(args: &CacheRm) -> Result<(), Failure> {
    cache::remove(&args.cache_dir, args.force)?;
    note(&format!("removed the cache at {}", args.cache_dir.display()));
    Ok(())
}

fn text(models: &[Summary]) -> String {
    if models.is_empty() {
        return "no models\n".to_owned();
    }
    let mut text = format!("{:<14} {:>10} {:>7} {:>7}  URI\n", "MODEL", "SIZE", "FILES", "VOLUMES");
    for model in models {
        let id = &model.id.hex()[..12];
        let size = Size(model.bytes).to_string();
        text.push_str(&format!("{id:<14} {size:>10} {:>7} {:>7}  {}\n", model.files, model.leases, model.uri));
    }
    text
}
