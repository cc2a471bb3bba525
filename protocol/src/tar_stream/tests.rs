//! The `tar` crate writes, this reader reads; damage is found, never a panic or a large allocation.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;

fn limits() -> TarLimits {
    TarLimits {
        members: 100,
        path_bytes: 300,
        extension_bytes: 2_000,
    }
}

fn header(kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o4755);
    header.set_uid(33);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header
}

fn read_all(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, TarError> {
    let mut stream = TarStream::new(bytes, limits());
    let mut members = Vec::new();
    while let Some(member) = stream.next_member()? {
        let mut data = Vec::new();
        stream
            .read_to_end(&mut data)
            .map_err(|source| TarError::Read { at: 0, source })?;
        members.push((member, data));
    }
    Ok(members)
}

fn sample() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut file = header(tar::EntryType::Regular, 5);
    builder
        .append_data(&mut file, "bin/sh", &b"hello"[..])
        .unwrap();
    let long = format!("{}/end", "long/".repeat(40));
    let mut file = header(tar::EntryType::Regular, 600);
    builder
        .append_data(&mut file, &long, &[7_u8; 600][..])
        .unwrap();
    let mut link = header(tar::EntryType::Symlink, 0);
    builder.append_link(&mut link, "bin/ash", &long).unwrap();
    let mut dir = header(tar::EntryType::Directory, 0);
    builder.append_data(&mut dir, "etc/", &b""[..]).unwrap();
    builder
        .append_pax_extensions([("SCHILY.xattr.user.a", &b"1"[..]), ("uid", b"70000")])
        .unwrap();
    let mut file = header(tar::EntryType::Regular, 0);
    builder.append_data(&mut file, "x", &b""[..]).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn what_the_tar_crate_writes_is_read() {
    let bytes = sample();
    let members = read_all(&bytes).unwrap();
    let long = format!("{}/end", "long/".repeat(40));
    let paths: Vec<&[u8]> = members.iter().map(|(member, _)| &*member.path).collect();
    assert_eq!(
        paths,
        [b"bin/sh", long.as_bytes(), b"bin/ash", b"etc", b"x"]
    );
    assert_eq!(members[0].1, b"hello");
    assert_eq!((members[0].0.mode, members[0].0.uid), (0o4755, 33));
    assert_eq!(members[1].1, [7; 600]);
    assert_eq!(members[2].0.link, long.as_bytes());
    assert_eq!(members[2].0.kind, Kind::Symlink);
    assert_eq!(members[3].0.kind, Kind::Directory);
    assert_eq!(members[4].0.uid, 70_000);
    assert_eq!(members[4].0.xattrs, [(b"user.a".to_vec(), b"1".to_vec())]);

    // Unread data is skipped, and offsets point at it.
    let mut stream = TarStream::new(Cursor::new(&bytes), limits());
    let mut again = Vec::new();
    while let Some(member) = stream.next_member_seeking().unwrap() {
        again.push(member);
    }
    assert!(again.iter().eq(members.iter().map(|(member, _)| member)));
    let offset = usize::try_from(again[0].data_offset).unwrap();
    assert_eq!(&bytes[offset..offset + 5], b"hello");
}

#[test]
fn a_size_in_a_pax_record_counts() {
    let mut builder = tar::Builder::new(Vec::new());
    builder
        .append_pax_extensions([("size", &b"5"[..])])
        .unwrap();
    let mut file = header(tar::EntryType::Regular, 0);
    file.set_path("a").unwrap();
    file.set_cksum();
    builder.append(&file, &b""[..]).unwrap();
    let mut bytes = builder.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes.extend([b'x'; 5]);
    bytes.extend([0; 507 + 1024]);
    let members = read_all(&bytes).unwrap();
    assert_eq!(members[0].1, b"xxxxx");
}

#[test]
fn claims_are_checked_before_they_cost_memory() {
    for kind in [
        tar::EntryType::GNULongName,
        tar::EntryType::GNULongLink,
        tar::EntryType::XHeader,
    ] {
        let mut bomb = header(kind, 1 << 40);
        bomb.set_path("x").unwrap();
        bomb.set_cksum();
        let mut bytes = bomb.as_bytes().to_vec();
        bytes.extend([b'a'; 4096]);
        assert!(
            matches!(read_all(&bytes), Err(TarError::Limit { .. })),
            "{kind:?}"
        );
    }
    let mut many = tar::Builder::new(Vec::new());
    for number in 0..101 {
        let mut file = header(tar::EntryType::Regular, 0);
        many.append_data(&mut file, format!("f{number}"), &b""[..])
            .unwrap();
    }
    let bytes = many.into_inner().unwrap();
    assert!(matches!(
        read_all(&bytes),
        Err(TarError::Limit {
            what: "number of members",
            ..
        })
    ));

    let mut huge = header(tar::EntryType::Regular, u64::MAX - 600);
    huge.set_path("x").unwrap();
    huge.set_cksum();
    assert!(matches!(
        read_all(huge.as_bytes()),
        Err(TarError::Malformed { .. })
    ));

    let mut chain = Vec::new();
    for _ in 0..20 {
        let mut global = header(tar::EntryType::XGlobalHeader, 0);
        global.set_path("x").unwrap();
        global.set_cksum();
        chain.extend(global.as_bytes());
    }
    assert!(matches!(read_all(&chain), Err(TarError::Limit { .. })));
}

#[test]
fn damage_is_found() {
    let good = sample();
    let mut flipped = good.clone();
    flipped[0] ^= 1;
    assert!(matches!(
        read_all(&flipped),
        Err(TarError::Malformed { at: 0, .. })
    ));
    assert!(
        matches!(read_all(&good[..700]), Err(TarError::Truncated { .. })),
        "in the padding"
    );
    assert!(
        matches!(read_all(&good[..515]), Err(TarError::Read { .. })),
        "in data"
    );
    assert!(
        matches!(read_all(&good[..100]), Err(TarError::Truncated { .. })),
        "in a header"
    );
    let mut lone = vec![0; 512];
    lone.extend(&good);
    assert!(matches!(read_all(&lone), Err(TarError::Malformed { .. })));
    assert!(read_all(&[]).unwrap().is_empty());
    for code in [b'S', b'V', b'M', b'D', b'Z'] {
        let mut odd = header(tar::EntryType::new(code), 0);
        odd.set_path("x").unwrap();
        odd.set_cksum();
        assert!(matches!(
            read_all(odd.as_bytes()),
            Err(TarError::Unsupported { .. })
        ));
    }
}

proptest! {
    #[test]
    fn any_damage_ends_in_an_error_or_other_members(
        at in 0_usize..4096,
        value: u8,
        cut in 0_usize..8192,
    ) {
        let mut bytes = sample();
        let length = bytes.len();
        bytes[at % length] = value;
        bytes.truncate(cut.max(1));
        if let Ok(members) = read_all(&bytes) {
            prop_assert!(members.len() <= 6);
        }
    }

    #[test]
    fn arbitrary_blocks_never_panic(blocks in proptest::collection::vec(any::<[u8; 32]>(), 0..100)) {
        let _ = read_all(&blocks.concat());
    }

    #[test]
    fn arbitrary_fields_with_a_right_checksum_never_panic(
        fields in proptest::collection::vec((0_usize..512, any::<u8>()), 0..60),
        kind in prop::sample::select(b"\x0001234567xgLKSV".to_vec()),
    ) {
        let mut block = *header(tar::EntryType::Regular, 3).as_bytes();
        for (at, byte) in fields {
            block[at] = byte;
        }
        block[156] = kind;
        let mut sealed = tar::Header::new_old();
        *sealed.as_mut_bytes() = block;
        sealed.set_cksum();
        let mut bytes = sealed.as_bytes().to_vec();
        bytes.extend([0; 2048]);
        let _ = read_all(&bytes);
    }

    #[test]
    fn pax_records_never_panic(block in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = pax::Records::parse(&block);
    }
}
