//! Messages survive the wire, and their encoding is the documented one.

use super::*;
use crate::ids::{ContainerId, StreamId};

#[test]
fn a_request_is_a_map_with_named_fields() {
    let request = ClientToMaster::Request(Box::new(Request {
        id: RequestId::from_bytes([7; 16]),
        body: RequestBody::Wake(ContainerId::from_bytes([9; 16])),
    }));
    let bytes = encode(&request).unwrap();
    // {"Request": {"id": bin16, "body": {"Wake": bin16}}}
    let mut expected = vec![0x81, 0xa7];
    expected.extend(b"Request");
    expected.extend([0x82, 0xa2, b'i', b'd', 0xc4, 16]);
    expected.extend([7; 16]);
    expected.push(0xa4);
    expected.extend(b"body");
    expected.extend([0x81, 0xa4]);
    expected.extend(b"Wake");
    expected.extend([0xc4, 16]);
    expected.extend([9; 16]);
    assert_eq!(bytes, expected);
    assert_eq!(decode::<ClientToMaster>(&bytes).unwrap(), request);
}

#[test]
fn unit_variants_are_strings_and_results_are_maps() {
    assert_eq!(encode(&ClientToMaster::Goodbye).unwrap(), b"\xa7Goodbye");
    let reply = Reply {
        id: RequestId::from_bytes([1; 16]),
        result: Err(Refusal::new(RefusalCode::NotFound, "no such container")),
    };
    let bytes = encode(&MasterToClient::Reply(Box::new(reply.clone()))).unwrap();
    assert!(bytes.windows(3).any(|w| w == b"Err"));
    assert_eq!(
        decode::<MasterToClient>(&bytes).unwrap(),
        MasterToClient::Reply(Box::new(reply))
    );
}

#[test]
fn a_message_of_another_direction_does_not_parse() {
    let bytes = encode(&MasterToClient::Event(Event {
        seq: 1,
        body: EventBody::Warning("x".into()),
    }))
    .unwrap();
    assert!(decode::<ClientToMaster>(&bytes).is_err());
}

#[test]
fn a_renumbered_frame_keeps_all_but_its_number() {
    let frame = StreamFrame::Credit {
        stream: StreamId(1),
        bytes: 5,
    };
    let other = frame.clone().renumbered(StreamId(2));
    assert_eq!(other.stream(), StreamId(2));
    assert_eq!(other.renumbered(StreamId(1)), frame);
}

#[test]
fn a_length_that_lies_does_not_allocate() {
    // {"Request": array32 of 2^32-1 elements …} and nothing behind it.
    let mut bytes = vec![0x81, 0xa7];
    bytes.extend(b"Request");
    bytes.extend([0xdd, 0xff, 0xff, 0xff, 0xff]);
    assert!(decode::<ClientToMaster>(&bytes).is_err());
    let mut bytes = vec![0x81, 0xa6];
    bytes.extend(b"Images");
    bytes.extend([0xdd, 0xff, 0xff, 0xff, 0xff]);
    assert!(decode::<ReplyBody>(&bytes).is_err());
}
