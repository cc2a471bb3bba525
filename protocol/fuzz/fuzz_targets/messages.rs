//! The typed messages: whatever bytes come, parsing does not panic, and what was parsed survives being
//! written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};
use teu_protocol::message::{
    self,
    ClientToMaster, Initiate, MasterToClient, MasterToNode, NodeToMaster, Welcome,
};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else {
        return;
    };
    match choice % 6 {
        0 => survives::<ClientToMaster>(bytes),
        1 => survives::<MasterToClient>(bytes),
        2 => survives::<NodeToMaster>(bytes),
        3 => survives::<MasterToNode>(bytes),
        4 => survives::<Initiate>(bytes),
        _ => survives::<Welcome>(bytes),
    }
});

/// Compares bytes, not values: a NaN is not equal to itself.
fn survives<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(first) = message::decode::<T>(bytes) else {
        return;
    };
    let written = rmp_serde::to_vec_named(&first).expect("what was read can be written");
    let second: T = rmp_serde::from_slice(&written).expect("what was written can be read");
    let again = rmp_serde::to_vec_named(&second).expect("and written again");
    assert_eq!(written, again);
}
