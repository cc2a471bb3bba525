//! `teu ps --filter KIND=VALUE`.

use std::str::FromStr;

use super::Row;
use crate::json::{Container, container_state};

/// A condition on a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    kind: Kind,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Id,
    Status,
    Exited,
    Label,
    Ancestor,
    Node,
    Volume,
    Session,
}

/// As they are written, with Docker's spellings.
const KINDS: [(&str, Kind); 9] = [
    ("name", Kind::Name),
    ("id", Kind::Id),
    ("status", Kind::Status),
    ("exited", Kind::Exited),
    ("label", Kind::Label),
    ("ancestor", Kind::Ancestor),
    ("node", Kind::Node),
    ("volume", Kind::Volume),
    ("session", Kind::Session),
];

const STATES: [&str; 5] = ["requested", "preparing", "asleep", "running", "exited"];

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = KINDS.map(|(name, _)| name).join(", ");
        let (kind, value) = text
            .split_once('=')
            .filter(|(_, value)| !value.is_empty())
            .ok_or_else(|| format!("KIND=VALUE is expected, KIND one of {names}"))?;
        let (_, kind) = KINDS
            .into_iter()
            .find(|(name, _)| *name == kind)
            .ok_or_else(|| format!("`{kind}` is no kind of filter: these are: {names}"))?;
        if kind == Kind::Status && !STATES.contains(&value) {
            return Err(format!(
                "`{value}` is no state: these are: {}",
                STATES.join(", ")
            ));
        }
        if kind == Kind::Exited && value.parse::<u8>().is_err() {
            return Err(format!("`{value}` is no exit code: 0 to 255 are"));
        }
        Ok(Self {
            kind,
            value: value.to_owned(),
        })
    }
}

impl Filter {
    /// Whether those that have ended are meant too.
    pub(super) const fn is_about_state(&self) -> bool {
        matches!(self.kind, Kind::Status | Kind::Exited)
    }

    fn fits(&self, row: &Row) -> bool {
        let (info, value) = (&row.info, self.value.as_str());
        match self.kind {
            Kind::Name => info
                .tag
                .as_ref()
                .is_some_and(|tag| tag.as_str().contains(value)),
            Kind::Id => info.id.to_string().starts_with(value),
            Kind::Status => container_state(&info.state) == value,
            Kind::Exited => {
                Container::exit_code(&info.state).is_some_and(|code| value.parse() == Ok(code))
            }
            Kind::Label => match value.split_once('=') {
                Some((key, wanted)) => info.labels.get(key).is_some_and(|has| has == wanted),
                None => info.labels.contains_key(value),
            },
            Kind::Ancestor => {
                let name = info.image_name.as_str();
                let untagged = name.strip_suffix(":latest").unwrap_or(name);
                name == value || untagged == value || info.image.to_string().contains(value)
            }
            Kind::Node => row.node_name == value || info.node.to_string().starts_with(value),
            Kind::Volume => row
                .mounts
                .iter()
                .any(|mount| mount.split(':').next() == Some(value)),
            Kind::Session => row.session == value,
        }
    }
}

/// Of one kind any may fit, of several kinds all must.
pub(super) fn fits(filters: &[Filter], row: &Row) -> bool {
    filters.iter().all(|filter| {
        filters
            .iter()
            .filter(|other| other.kind == filter.kind)
            .any(|other| other.fits(row))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::tests::container;

    fn row() -> Row {
        Row {
            info: container(),
            session: "default".to_owned(),
            node_name: "pc".to_owned(),
            node_lost: false,
            ports: Vec::new(),
            mounts: vec!["db:/data:ro".to_owned()],
        }
    }

    fn fit(texts: &[&str]) -> bool {
        let filters: Vec<Filter> = texts.iter().map(|text| text.parse().unwrap()).collect();
        fits(&filters, &row())
    }

    #[test]
    fn each_kind_finds_what_it_should() {
        for good in [
            "name=we",
            "status=exited",
            "exited=9",
            "label=a",
            "label=a=b",
            "ancestor=nginx",
            "node=pc",
            "volume=db",
            "session=default",
        ] {
            assert!(fit(&[good]), "{good}");
        }
        for bad in [
            "name=x",
            "status=running",
            "exited=0",
            "label=b",
            "label=a=c",
            "ancestor=ngin",
            "volume=d",
            "session=s",
        ] {
            assert!(!fit(&[bad]), "{bad}");
        }
    }

    #[test]
    fn of_one_kind_any_of_several_all() {
        assert!(fit(&["name=x", "name=web"]));
        assert!(!fit(&["name=web", "label=x"]));
        assert!(fit(&[]));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for bad in ["", "name", "name=", "colour=red", "status=up", "exited=300"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }
}
