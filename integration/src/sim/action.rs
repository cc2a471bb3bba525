//! What may happen, as values: a test is a list of these.

use proptest::prelude::*;

/// Something that happens. The numbers choose among what is there (modulo its count).
#[derive(Debug, Clone, Copy)]
pub enum Action {
    /// Some link delivers its next message.
    Deliver(u8),
    /// Time passes, in milliseconds, and what is on the way arrives.
    Pass(u16),
    /// A client program starts.
    Start(u8),
    /// A client asks for something.
    Ask(u8, Wish, u16),
    /// A client closes one of its streams.
    CloseStream(u8),
    /// A client says goodbye.
    Goodbye(u8),
    /// A client is killed.
    Kill(u8),
    /// A client's or node's connection breaks; the master notices after so many milliseconds.
    Cut(u8, u16),
    /// The master dies in the middle of performing its effects, and is started again.
    CrashMaster(u8, u16),
    /// A node's agent dies and is started again.
    CrashNode(u8, u16),
    /// A container's first process ends by itself.
    Exit(u8),
    /// The node's next orders to destroy fail.
    Stubborn(u8),
    /// The node's next address is one that it has given already.
    SameAddress(u8),
}

/// What a client may ask for.
#[derive(Debug, Clone, Copy)]
pub enum Wish {
    /// A container, that ends with its session, its attachment or its first process.
    Spawn,
    /// A container gone.
    Destroy,
    /// A process that ends with the client.
    Exec,
    /// A connection to a port.
    Tunnel,
    /// To see everything.
    List,
    /// Something about another session's container.
    Steal,
    /// The end of its session.
    EndSession,
}

/// Any action, the usual ones more often.
pub fn any_action() -> impl Strategy<Value = Action> {
    let n = any::<u8>;
    prop_oneof![
        20 => n().prop_map(Action::Deliver),
        12 => (1u16..1_500).prop_map(Action::Pass),
        4 => n().prop_map(Action::Start),
        20 => (n(), any_wish(), any::<u16>()).prop_map(|(c, w, n)| Action::Ask(c, w, n)),
        2 => n().prop_map(Action::CloseStream),
        1 => n().prop_map(Action::Goodbye),
        2 => n().prop_map(Action::Kill),
        5 => (n(), 0u16..4_000).prop_map(|(l, ms)| Action::Cut(l, ms)),
        1 => (n(), 0u16..4_000).prop_map(|(k, ms)| Action::CrashMaster(k, ms)),
        2 => (n(), 0u16..6_000).prop_map(|(k, ms)| Action::CrashNode(k, ms)),
        2 => n().prop_map(Action::Exit),
        1 => n().prop_map(Action::Stubborn),
        1 => n().prop_map(Action::SameAddress),
    ]
}

fn any_wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        12 => Just(Wish::Spawn),
        4 => Just(Wish::Destroy),
        4 => Just(Wish::Exec),
        6 => Just(Wish::Tunnel),
        2 => Just(Wish::List),
        2 => Just(Wish::Steal),
        1 => Just(Wish::EndSession),
    ]
}
