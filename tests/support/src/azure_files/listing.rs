//! "List Directories and Files".

use std::collections::BTreeMap;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Behaviour, Node, Share, error};
use crate::script::{Request, Response};

pub(super) fn answer(
    nodes: &Share,
    directory: &str,
    query: &BTreeMap<String, String>,
    request: &Request,
    behaviour: &Behaviour,
) -> Response {
    if query.get("restype").is_none_or(|restype| restype != "directory") {
        return error(400, "InvalidQueryParameterValue");
    }
    let wants_etags = query.get("include").is_some_and(|include| include.split(',').any(|one| one == "Etag"));
    if wants_etags && request.header("x-ms-file-extended-info") != Some("true") {
        return error(400, "MissingRequiredHeader");
    }
    if !directory.is_empty() && !matches!(nodes.get(directory), Some(Node::Directory)) {
        return error(404, "ResourceNotFound");
    }
    let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
    let children: Vec<(&str, &Node)> = nodes
        .range(prefix.clone()..)
        .take_while(|(path, _)| path.starts_with(&prefix))
        .filter_map(|(path, node)| Some((path.strip_prefix(&prefix)?, node)))
        .filter(|(name, _)| !name.contains('/'))
        .collect();

    // The marker is opaque: the number of entries that were told, in a dress.
    let first = match query.get("marker").map(|marker| marker.strip_prefix("2!").map(str::parse)) {
        None => 0,
        Some(Some(Ok(first))) => first,
        Some(_) => return error(400, "InvalidQueryParameterValue"),
    };
    let page = children.iter().skip(first).take(behaviour.page_size);
    let entries: String = page.map(|(name, node)| entry(name, node, wants_etags && behaviour.etags)).collect();
    let told = first + behaviour.page_size;
    let next = if told < children.len() { format!("2!{told}") } else { String::new() };
    let xml = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults \
         ServiceEndpoint=\"https://account.file.core.windows.net/\" ShareName=\"share\" DirectoryPath=\"{}\">\
         <DirectoryId>13835128424026341376</DirectoryId><Entries>{entries}</Entries><NextMarker>{next}</NextMarker>\
         </EnumerationResults>",
        escape(directory)
    );
    Response::new(200).header("content-type", "application/xml").body(xml)
}

fn entry(name: &str, node: &Node, etags: bool) -> String {
    // Two characters that names may have and XML has not.
    let name = match name.contains(['\u{fffe}', '\u{ffff}']) {
        true => format!("<Name Encoded=\"true\">{}</Name>", utf8_percent_encode(name, NON_ALPHANUMERIC)),
        false => format!("<Name>{}</Name>", escape(name)),
    };
    match node {
        Node::Directory => format!("<Directory><FileId>1</FileId>{name}<Properties /></Directory>"),
        Node::File { content, etag, .. } => {
            let etag = if etags { format!("<Etag>{}</Etag>", escape(etag)) } else { String::new() };
            format!(
                "<File><FileId>1</FileId>{name}<Properties><Content-Length>{}</Content-Length>{etag}</Properties></File>",
                content.len()
            )
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
