//! The name that a builder was given: checked at once, told when the builder is awaited.
//!
//! Owner: each builder. Invariant: a chain of calls is never interrupted by `?`; a bad name is the
//! error of the operation that would have used it.

use teu_protocol::ids::{ParseTagError, Tag};

use crate::error::Result;

/// No name, a name, or text that cannot be one.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChosenTag(Option<Result<Tag, ParseTagError>>);

impl ChosenTag {
    pub(crate) fn parse(text: impl AsRef<str>) -> Self {
        Self(Some(text.as_ref().parse()))
    }

    pub(crate) fn known_as(tag: Option<Tag>) -> Self {
        Self(tag.map(Ok))
    }

    /// # Errors
    /// [`crate::Error::Tag`] if the text cannot be a name.
    pub(crate) fn check(self) -> Result<Option<Tag>> {
        Ok(self.0.transpose()?)
    }

    /// The name if it is a good one.
    pub(crate) fn known(&self) -> Option<&Tag> {
        self.0.as_ref()?.as_ref().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn a_bad_name_is_told_when_the_builder_is_used() {
        assert_eq!(ChosenTag::default().check().unwrap(), None);
        assert_eq!(
            ChosenTag::parse("web").check().unwrap().unwrap().as_str(),
            "web"
        );
        assert!(matches!(
            ChosenTag::parse("we b").check(),
            Err(Error::Tag(_))
        ));
    }
}
