//! Archives and layers, as strangers make them: what comes out can be laid out below a directory, and is not endless.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modelmount::unpack::{Kind, Unpack, sizes};
use modelmount::{RelPath, Selection};

fuzz_target!(|input: &[u8]| {
    let Some((how, archive)) = input.split_first() else { return };
    let kind = [Kind::Archive, Kind::Perhaps, Kind::Layer(0)][usize::from(how % 3)];
    let below = (how & 4 != 0).then(|| RelPath::parse("models").expect("it is one"));
    let unpack = Unpack { kind, below, into: None, selection: Selection::default() };
    let Ok(Some(files)) = sizes(archive, &unpack) else { return };
    for path in files.keys() {
        assert!(path.ancestors().all(|ancestor| !files.contains_key(ancestor)), "{path} lies in a file");
    }
    let made: u64 = files.values().sum();
    assert!(made < 2 << 30, "{made} bytes out of {}", archive.len());
});
