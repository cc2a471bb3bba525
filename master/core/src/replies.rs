//! What a session was answered lately, so that a retried request has its effect once.
//!
//! Bounded in number, bytes and time. Retryable refusals are never remembered: the retry is meant
//! to be tried.

use std::collections::VecDeque;

use teu_protocol::{
    ids::RequestId,
    message::{ContainerInfo, Refusal, ReplyBody},
};

use crate::limits;

type Answer = Result<ReplyBody, Refusal>;

/// One session's memory, oldest first.
#[derive(Debug, Default)]
pub(crate) struct ReplyMemory {
    kept: VecDeque<Kept>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    request: RequestId,
    answer: Answer,
    bytes: usize,
    until_ms: u64,
}

impl ReplyMemory {
    /// The answer that `request` was given, if it is still known.
    pub(crate) fn get(&self, request: &RequestId, now_ms: u64) -> Option<&Answer> {
        let kept = self
            .kept
            .iter()
            .rev()
            .find(|kept| kept.request == *request)?;
        (kept.until_ms > now_ms).then_some(&kept.answer)
    }

    /// Remembers, unless a retry should be tried again or the answer is too large to keep.
    pub(crate) fn keep(&mut self, request: RequestId, answer: &Answer, now_ms: u64) {
        let bytes = size(answer);
        let again = answer.as_ref().is_err_and(|refusal| refusal.retryable);
        if again || bytes > limits::REPLY_BYTES_REMEMBERED {
            return;
        }
        let until_ms = now_ms + limits::REPLY_REMEMBERED_MS;
        self.kept.push_back(Kept {
            request,
            answer: answer.clone(),
            bytes,
            until_ms,
        });
        self.bytes += bytes;
        while self.is_over(now_ms) {
            let Some(oldest) = self.kept.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes;
        }
    }

    fn is_over(&self, now_ms: u64) -> bool {
        self.kept.len() > limits::REPLIES_REMEMBERED
            || self.bytes > limits::REPLY_BYTES_REMEMBERED
            || self
                .kept
                .front()
                .is_some_and(|kept| kept.until_ms <= now_ms)
    }
}

/// About what an answer takes in memory.
fn size(answer: &Answer) -> usize {
    const FIXED: usize = 256;
    FIXED
        + match answer {
            Err(refusal) => refusal.message.len(),
            Ok(ReplyBody::Spawned(info) | ReplyBody::Container(info)) => info_size(info),
            Ok(ReplyBody::Volume(info)) => {
                let labels = info.spec.labels.iter();
                let labels: usize = labels.map(|(k, v)| k.len() + v.len() + 48).sum();
                labels + info.used_by.len() * 16
            }
            Ok(ReplyBody::Image(image)) => image.names.iter().map(|n| n.len() + 24).sum(),
            Ok(_) => 0,
        }
}

fn info_size(info: &ContainerInfo) -> usize {
    let command: usize = info.command.iter().map(|word| word.len() + 24).sum();
    let labels: usize = info
        .labels
        .iter()
        .map(|(k, v)| k.len() + v.len() + 48)
        .sum();
    let volumes: usize = info.volumes.iter().map(|m| m.path.len() + 48).sum();
    command + labels + info.image_name.len() + info.allowed_from.len() * 16 + volumes
}

#[cfg(test)]
mod tests {
    use super::*;
    use teu_protocol::message::RefusalCode;

    fn id(n: u8) -> RequestId {
        RequestId::from_bytes([n; 16])
    }

    #[test]
    fn an_answer_is_replayed_until_it_is_too_old() {
        let mut memory = ReplyMemory::default();
        memory.keep(id(1), &Ok(ReplyBody::Done), 0);
        assert_eq!(memory.get(&id(1), 10), Some(&Ok(ReplyBody::Done)));
        assert_eq!(memory.get(&id(2), 10), None);
        assert_eq!(memory.get(&id(1), limits::REPLY_REMEMBERED_MS), None);
    }

    #[test]
    fn what_should_be_retried_is_not_remembered() {
        let mut memory = ReplyMemory::default();
        for code in RefusalCode::ALL {
            memory.keep(id(7), &Err(Refusal::new(code, "no")), 0);
            assert_eq!(
                memory.get(&id(7), 1).is_none(),
                code.is_retryable(),
                "{code:?}"
            );
            memory = ReplyMemory::default();
        }
    }

    #[test]
    fn memory_is_bounded_in_number_and_bytes() {
        let mut memory = ReplyMemory::default();
        for n in 0..200 {
            memory.keep(id(n), &Ok(ReplyBody::Done), 0);
        }
        assert_eq!(memory.kept.len(), limits::REPLIES_REMEMBERED);
        assert!(memory.get(&id(0), 1).is_none() && memory.get(&id(199), 1).is_some());
        let long = Err(Refusal::new(RefusalCode::BadRequest, "x".repeat(30_000)));
        for n in 0..9 {
            memory.keep(id(n), &long, 0);
        }
        assert!(memory.bytes <= limits::REPLY_BYTES_REMEMBERED);
        assert_eq!(
            memory.bytes,
            memory.kept.iter().map(|kept| kept.bytes).sum::<usize>()
        );
    }
}
