//! The rewriting alone, without a connection. What `h2` makes of it is tested over a socket, in `tests/socket.rs`.

use proptest::prelude::*;

use super::*;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
    frame.extend_from_slice(payload);
    frame
}

fn rewritten(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut input = vec![b'P'; PREFACE];
    frames.iter().for_each(|frame| input.extend_from_slice(frame));
    let mut output = Vec::new();
    Rewriter::new().push(&input, &mut output);
    assert_eq!(output[..PREFACE], input[..PREFACE]);
    output.split_off(PREFACE)
}

/// `:method POST`, an authority in the given spelling, `:scheme http`.
fn block(authority: &[u8]) -> Vec<u8> {
    [b"\x83", authority, b"\x86"].concat()
}

#[test]
fn an_authority_is_replaced_in_every_spelling() {
    let cases: [(&[u8], &[u8]); 6] = [
        (b"\x41\x06/a.soc", b"\x41\x01x"),
        (b"\x01\x06/a.soc", b"\x01\x01x"),
        (b"\x11\x06/a.soc", b"\x11\x01x"),
        (b"\x41\x83\xff\xff\xff", b"\x41\x01x"),
        (b"\x40\x0a:authority\x08%2fa.soc", b"\x40\x0a:authority\x01x"),
        (b"\x40\x88\xb8\x3b\x53\x39\xec\x32\x7d\x7f\x02/a", b"\x40\x88\xb8\x3b\x53\x39\xec\x32\x7d\x7f\x01x"),
    ];
    for (before, after) in cases {
        assert_eq!(replace_authority(&block(before)), Some(block(after)), "{before:?}");
    }
    // A length that takes more than one byte.
    let long = [&b"\x41\x7f\xac\x01"[..], &[b'/'; 299]].concat();
    assert_eq!(replace_authority(&block(&long)), Some(block(b"\x41\x01x")));
}

#[test]
fn other_headers_are_not_touched() {
    let path = b"\x04\x06/a.soc";
    let custom = b"\x40\x0a:authoritx\x02/a";
    let empty = b"\x41\x00";
    let indexed = b"\x81\xbe\x3f\xe1\x1f";
    for authority in [&path[..], custom, empty, indexed] {
        assert_eq!(replace_authority(&block(authority)), None, "{authority:?}");
    }
    // Cut off, or a number that never ends.
    for broken in [&b"\x41\x06/a"[..], b"\x41", b"\x41\x01y\x7f\xff\xff\xff\xff\xff\xff\x01"] {
        assert_eq!(replace_authority(broken), None, "{broken:?}");
    }
}

#[test]
fn padding_and_priority_and_continuations_are_understood() {
    let (before, after) = (block(b"\x41\x06/a.soc"), block(b"\x41\x01x"));
    let priority = [0, 0, 0, 0, 16];
    let padded = [&[3][..], &priority, &before, &[0; 3]].concat();
    let expected = frame(HEADERS, PRIORITY | END_HEADERS | 1, &[&priority[..], &after].concat());
    assert_eq!(rewritten(&[frame(HEADERS, PADDED | PRIORITY | END_HEADERS | 1, &padded)]), expected);

    let (one, two) = before.split_at(4);
    let parts = [frame(HEADERS, 1, one), frame(CONTINUATION, 0, &[]), frame(CONTINUATION, END_HEADERS, two)];
    assert_eq!(rewritten(&parts), frame(HEADERS, END_HEADERS | 1, &after));

    // Still more than one frame holds: cut anew.
    let filler = [&b"\x00\x01a\x7f\xa1\x1e"[..], &vec![b'b'; 4000]].concat();
    let large = [&before[..], &filler.repeat(5)].concat();
    let parts: Vec<_> = large.chunks(10_000).collect();
    let last = parts.len() - 1;
    let cut = |(index, part): (usize, &&[u8])| {
        frame(if index == 0 { HEADERS } else { CONTINUATION }, if index == last { END_HEADERS } else { 0 }, part)
    };
    let output = rewritten(&parts.iter().enumerate().map(cut).collect::<Vec<_>>());
    let written = frames(&output).unwrap();
    assert!(written.len() == 2 && written.iter().all(|frame| frame.payload.len() <= MAX_FRAME));
    let joined: Vec<u8> = written.iter().flat_map(|frame| frame.payload.to_vec()).collect();
    assert_eq!(joined, [&after[..], &filler.repeat(5)].concat());
}

#[test]
fn what_is_not_understood_passes_as_it_is() {
    let authority = block(b"\x41\x06/a.soc");
    let data = frame(0, 1, &authority);
    let settings = frame(4, 0, &[]);
    let interrupted = [frame(HEADERS, 0, &authority), frame(0, 0, b"x"), frame(HEADERS, END_HEADERS, &authority)];
    let too_large = [frame(HEADERS, END_HEADERS, &authority.repeat(2000)), frame(HEADERS, END_HEADERS, &authority)];
    let over_padded = [frame(HEADERS, PADDED | END_HEADERS, b"\xff\x83")];
    for frames in [&[data, settings][..], &interrupted, &too_large, &over_padded] {
        assert_eq!(rewritten(frames), frames.concat());
    }
    // Nobody's memory is filled by a block without end.
    let endless: Vec<_> = std::iter::once(frame(HEADERS, 0, &[0; 9000]))
        .chain(std::iter::repeat_with(|| frame(CONTINUATION, 0, &[0; 9000])).take(20))
        .collect();
    assert_eq!(rewritten(&endless), endless.concat());
}

proptest! {
    #[test]
    fn the_size_of_the_pieces_does_not_matter(
        kinds in prop::collection::vec((0..12u8, any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..8),
        cuts in prop::collection::vec(1..30usize, 1..40),
    ) {
        let mut input = vec![b'P'; PREFACE];
        for (kind, flags, payload) in &kinds {
            let authority = block(b"\x41\x06/a.soc");
            input.extend(frame(*kind, *flags, if payload.len() % 3 == 0 { &authority } else { payload }));
        }
        let mut whole = Vec::new();
        Rewriter::new().push(&input, &mut whole);
        let (mut pieces, mut rewriter, mut rest) = (Vec::new(), Rewriter::new(), &input[..]);
        for cut in cuts.iter().cycle().take(2000) {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            rewriter.push(piece, &mut pieces);
            rest = after;
        }
        prop_assert_eq!(&pieces, &whole);
        // Shorter or equal, but for what is still held back.
        prop_assert!(whole.len() <= input.len());
    }

    #[test]
    fn odd_input_never_panics_nor_grows(input in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut output = Vec::new();
        Rewriter::new().push(&input, &mut output);
        prop_assert!(output.len() <= input.len());
        prop_assert!(replace_authority(&input).is_none_or(|replaced| replaced.len() <= input.len()));
    }
}
