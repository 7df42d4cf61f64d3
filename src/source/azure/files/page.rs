//! One page of a directory's listing ("List Directories and Files"), as XML. Pure.

use percent_encoding::percent_decode_str;
use quick_xml::de::from_reader;
use serde::Deserialize;

use crate::error::shown;
use crate::source::object::quoted;

/// What a directory holds, or a part of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) children: Vec<Child>,
    /// Where the next page begins.
    pub(super) next: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Child {
    Directory { name: String },
    File { name: String, size: u64, etag: Option<String> },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// It is something else.
    NoListing,
    /// This can't be the name of a file in its directory.
    Name(String),
}

#[derive(Deserialize)]
#[serde(rename = "EnumerationResults", rename_all = "PascalCase")]
struct EnumerationResults {
    entries: Entries,
    #[serde(default)]
    next_marker: Option<String>,
}

#[derive(Deserialize, Default)]
struct Entries {
    #[serde(default, rename = "$value")]
    entries: Vec<Kind>,
}

#[derive(Deserialize)]
enum Kind {
    File(Node),
    Directory(Node),
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    name: Name,
    #[serde(default)]
    properties: Properties,
}

#[derive(Deserialize)]
struct Name {
    /// Set when the name has characters that XML has not.
    #[serde(default, rename = "@Encoded")]
    encoded: bool,
    #[serde(default, rename = "$text")]
    text: String,
}

#[derive(Deserialize, Default)]
struct Properties {
    #[serde(rename = "Content-Length")]
    content_length: Option<u64>,
    #[serde(rename = "Etag")]
    etag: Option<String>,
}

/// Reads a page.
pub(super) fn parse(body: &[u8]) -> Result<Page, Problem> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if !contains(body, b"<EnumerationResults") {
        return Err(Problem::NoListing);
    }
    let results: EnumerationResults = from_reader(body).map_err(|_| Problem::NoListing)?;
    let children = results.entries.entries.into_iter().filter_map(|kind| match kind {
        Kind::Directory(node) => Some(node.name.checked().map(|name| Child::Directory { name })),
        Kind::File(node) => Some(node.name.checked().and_then(|name| {
            let Properties { content_length, etag } = node.properties;
            let size = content_length.ok_or(Problem::NoListing)?;
            Ok(Child::File { name, size, etag: etag.as_deref().and_then(quoted) })
        })),
        Kind::Other => None,
    });
    Ok(Page {
        children: children.collect::<Result<_, _>>()?,
        next: results.next_marker.filter(|next| !next.is_empty()),
    })
}

fn contains(body: &[u8], words: &[u8]) -> bool {
    body.windows(words.len()).take(4096).any(|window| window == words)
}

impl Name {
    /// A name leads nowhere but into its own directory.
    fn checked(self) -> Result<String, Problem> {
        let wrong = |name: &str| Problem::Name(shown(name));
        let name = if self.encoded {
            let decoded = percent_decode_str(&self.text).decode_utf8();
            decoded.map_err(|_| wrong(&self.text))?.into_owned()
        } else {
            self.text
        };
        if matches!(name.as_str(), "" | "." | "..") || name.contains(['/', '\\', '\0']) {
            return Err(wrong(&name));
        }
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn listing(entries: &str, next: &str) -> String {
        format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults \
             ServiceEndpoint=\"https://acct.file.core.windows.net/\" ShareName=\"s\" DirectoryPath=\"m\"><MaxResults>5\
             </MaxResults><DirectoryId>1</DirectoryId><Entries>{entries}</Entries>{next}</EnumerationResults>"
        )
    }

    fn file(name: &str) -> String {
        format!(
            "<File><FileId>7</FileId><Name>{name}</Name><Properties><Content-Length>3</Content-Length>\
             <Etag>\"0x8D\"</Etag></Properties></File>"
        )
    }

    #[test]
    fn a_page_is_read_as_azure_writes_it() {
        let entries = format!(
            "<Directory><Name>inner</Name><Properties/></Directory>{}<File><Name Encoded=\"true\">c%EF%BF%BE</Name>\
             <Properties><Content-Length>0</Content-Length></Properties></File>{}",
            file("a&amp; b.bin"),
            file("z")
        );
        let page = parse(listing(&entries, "<NextMarker>2!8</NextMarker>").as_bytes()).unwrap();
        let file = |name: &str| Child::File { name: name.into(), size: 3, etag: Some("\"0x8D\"".into()) };
        let odd = Child::File { name: "c\u{fffe}".into(), size: 0, etag: None };
        let directory = Child::Directory { name: "inner".into() };
        assert_eq!(
            page,
            Page { children: vec![directory, file("a& b.bin"), odd, file("z")], next: Some("2!8".into()) }
        );
        let empty = Page { children: Vec::new(), next: None };
        assert_eq!(parse(listing("", "<NextMarker />").as_bytes()).unwrap(), empty);
    }

    #[test]
    fn hostile_pages_are_refused() {
        for name in ["..", ".", "", "a/b", "../x", "a\\b"] {
            assert!(matches!(parse(listing(&file(name), "").as_bytes()), Err(Problem::Name(_))), "{name}");
        }
        for body in ["", "<html>Sign in</html>", "<EnumerationResults>", "<EnumerationResults/>", "{}"] {
            assert_eq!(parse(body.as_bytes()), Err(Problem::NoListing), "{body}");
        }
        let encoded = format!("<Directory><Name Encoded=\"true\">{}</Name></Directory>", "%ff".repeat(5000));
        let Err(Problem::Name(name)) = parse(listing(&encoded, "").as_bytes()) else { panic!("it is no name") };
        assert!(name.len() < 200, "{name}");
        let sizeless = "<File><Name>a</Name><Properties/></File>";
        assert_eq!(parse(listing(sizeless, "").as_bytes()), Err(Problem::NoListing));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
        }

        #[test]
        fn no_name_leads_out_of_its_directory(name in "[a-z./%&;\\\\]{0,12}", encoded in any::<bool>()) {
            let name = name.replace('&', "&amp;");
            let attribute = if encoded { " Encoded=\"true\"" } else { "" };
            let entry = format!("<Directory><Name{attribute}>{name}</Name></Directory>");
            if let Ok(page) = parse(listing(&entry, "").as_bytes()) {
                for child in page.children {
                    let Child::Directory { name } = child else { panic!("a directory") };
                    prop_assert!(!name.is_empty() && name != "." && name != ".." && !name.contains('/'));
                }
            }
        }
    }
}
