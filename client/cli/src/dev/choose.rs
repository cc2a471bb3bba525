//! Which name, instance, range and port a location gets: what was given, if no other location has it;
//! else the first usual one that is free.

use std::path::{Path, PathBuf};

use super::{
    DevError,
    layout::command,
    mark::{Mark, USUAL_POOL},
    values::{Instance, LocationName, Range},
};

/// The master's port, if nobody says and it is free.
const USUAL_PORT: u16 = 5555;

/// How many usual values are tried: more locations than that are on no machine.
const TRIES: u32 = 200;

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) name: Option<LocationName>,
    pub(super) instance: Option<Instance>,
    pub(super) range: Option<Range>,
    pub(super) port: Option<u16>,
    pub(super) pool: Option<String>,
}

/// Another location of this machine.
#[derive(Debug, Clone)]
pub(super) struct Other {
    pub(super) data: PathBuf,
    pub(super) mark: Mark,
    /// Whether it has the same ports and addresses as this process.
    pub(super) same_network: bool,
    pub(super) is_alive: bool,
}

/// What this machine tells of values that no known location has.
pub(super) trait Machine {
    fn port_is_free(&self, port: u16) -> bool;
    fn instance_is_free(&self, instance: &Instance) -> bool;
    fn is_routed(&self, range: Range) -> bool;
    /// Whether the client's list has a location of that name which is not one of this machine.
    fn is_known_elsewhere(&self, name: &LocationName) -> bool;
}

/// Whether two locations may not both have something.
struct Clash<'a> {
    others: &'a [Other],
    home: &'a Path,
}

impl Clash<'_> {
    /// One list of locations has no name twice, whether or not they run.
    fn name(&self, name: &LocationName) -> Option<&Other> {
        self.others
            .iter()
            .find(|other| other.mark.home == self.home && other.mark.name == *name)
    }

    fn instance(&self, instance: &Instance) -> Option<&Other> {
        self.others
            .iter()
            .find(|other| other.is_alive && other.mark.instance == *instance)
    }

    fn range(&self, range: Range) -> Option<&Other> {
        let mut living = self.living_here();
        living.find(|other| other.mark.range.overlaps(range))
    }

    fn port(&self, port: u16) -> Option<&Other> {
        self.living_here().find(|other| other.mark.port == port)
    }

    fn living_here(&self) -> impl Iterator<Item = &Other> {
        self.others
            .iter()
            .filter(|other| other.is_alive && other.same_network)
    }

    /// Refuses what another location has.
    fn refuse(&self, mark: &Mark, data: &Path) -> Result<(), DevError> {
        let all = [
            ("--name", mark.name.to_string(), self.name(&mark.name)),
            (
                "--instance",
                mark.instance.to_string(),
                self.instance(&mark.instance),
            ),
            ("--range", mark.range.to_string(), self.range(mark.range)),
            ("--port", mark.port.to_string(), self.port(mark.port)),
        ];
        for (option, value, other) in all {
            if let Some(other) = other {
                return Err(DevError::Clash {
                    option,
                    value: value.into(),
                    data: data.to_owned(),
                    other: other.mark.name.to_string().into(),
                    other_data: other.data.clone(),
                    stop: command(&other.data, &["--stop"]).into(),
                });
            }
        }
        Ok(())
    }
}

/// Refuses to start a location that is there already beside one that has something of it.
pub(super) fn check(mark: &Mark, data: &Path, others: &[Other]) -> Result<(), DevError> {
    let home = &mark.home;
    Clash { others, home }.refuse(mark, data)
}

/// The values of a location that is to be made.
pub(super) fn choose(
    wanted: &Wanted,
    data: &Path,
    home: &Path,
    others: &[Other],
    machine: &impl Machine,
) -> Result<Mark, DevError> {
    let clash = Clash { others, home };
    // Those of stopped locations are left to them, so that they can be started again.
    let stopped = |has: &dyn Fn(&Mark) -> bool| others.iter().any(|other| has(&other.mark));
    let name = given_or(&wanted.name, LocationName::usual, |name| {
        clash.name(name).is_none() && !machine.is_known_elsewhere(name)
    });
    let instance = given_or(&wanted.instance, Instance::usual, |instance| {
        machine.instance_is_free(instance) && !stopped(&|mark| mark.instance == *instance)
    });
    let range = given_or(&wanted.range, Range::usual, |range| {
        !machine.is_routed(*range) && !stopped(&|mark| mark.range.overlaps(*range))
    });
    let nth_port =
        |number: u32| USUAL_PORT.saturating_add(u16::try_from(number - 1).unwrap_or(u16::MAX));
    let port = given_or(&wanted.port, nth_port, |port| {
        machine.port_is_free(*port) && !stopped(&|mark| mark.port == *port)
    });
    let pool = wanted.pool.clone();
    let mark = Mark::new(
        name.ok_or(DevError::NothingFree("--name"))?,
        instance.ok_or(DevError::NothingFree("--instance"))?,
        range.ok_or(DevError::NothingFree("--range"))?,
        port.ok_or(DevError::NothingFree("--port"))?,
        pool.unwrap_or_else(|| USUAL_POOL.to_owned()),
        home.to_owned(),
    );
    clash.refuse(&mark, data)?;
    if machine.is_known_elsewhere(&mark.name) {
        return Err(DevError::NameTaken(mark.name.to_string()));
    }
    if !machine.instance_is_free(&mark.instance) {
        return Err(DevError::InstanceTaken(mark.instance.to_string()));
    }
    if !machine.port_is_free(mark.port) {
        return Err(DevError::PortTaken(mark.port));
    }
    Ok(mark)
}

fn given_or<T: Clone>(
    given: &Option<T>,
    usual: impl Fn(u32) -> T,
    is_free: impl Fn(&T) -> bool,
) -> Option<T> {
    given
        .clone()
        .or_else(|| (1..=TRIES).map(usual).find(|value| is_free(value)))
}

/// Refuses what was given if the location of that directory is another.
pub(super) fn same(
    wanted: &Wanted,
    mark: &Mark,
    data: &Path,
    flags: &[&str],
) -> Result<(), DevError> {
    let text = |value: &Option<_>| value.as_ref().map(ToString::to_string);
    let all = [
        ("--name", text(&wanted.name), mark.name.to_string()),
        (
            "--instance",
            wanted.instance.as_ref().map(ToString::to_string),
            mark.instance.to_string(),
        ),
        (
            "--range",
            wanted.range.as_ref().map(ToString::to_string),
            mark.range.to_string(),
        ),
        (
            "--port",
            wanted.port.as_ref().map(ToString::to_string),
            mark.port.to_string(),
        ),
        ("--pool", wanted.pool.clone(), mark.pool.clone()),
    ];
    for (option, given, has) in all {
        if let Some(given) = given
            && given != has
        {
            return Err(DevError::Differs {
                option,
                given: given.into(),
                has: has.into(),
                name: mark.name.to_string().into(),
                data: data.to_owned(),
                command: command(data, flags).into(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Empty;

    impl Machine for Empty {
        fn port_is_free(&self, port: u16) -> bool {
            port != 5557
        }

        fn instance_is_free(&self, instance: &Instance) -> bool {
            instance.as_str() != "teu3"
        }

        fn is_routed(&self, range: Range) -> bool {
            range.to_string() == "10.79.0.0/16"
        }

        fn is_known_elsewhere(&self, name: &LocationName) -> bool {
            name.as_str() == "far"
        }
    }

    fn chosen(wanted: &Wanted, others: &[Other]) -> Result<Mark, DevError> {
        choose(wanted, Path::new("/d"), Path::new("/home"), others, &Empty)
    }

    fn other(mark: Mark) -> Other {
        Other {
            data: "/other".into(),
            mark,
            same_network: true,
            is_alive: true,
        }
    }

    #[test]
    fn a_machine_of_its_own_has_the_usual_values() {
        let mark = chosen(&Wanted::default(), &[]).unwrap();
        let texts = (mark.name.as_str(), mark.instance.as_str(), mark.port);
        assert_eq!(texts, ("dev", "teu", 5555));
        assert_eq!(mark.range.to_string(), "10.77.0.0/16");
    }

    #[test]
    fn what_was_not_given_is_free() {
        let first = chosen(&Wanted::default(), &[]).unwrap();
        let second = chosen(&Wanted::default(), &[other(first.clone())]).unwrap();
        assert_eq!(
            (second.name.as_str(), second.instance.as_str(), second.port),
            ("dev2", "teu2", 5556)
        );
        assert_eq!(second.range.to_string(), "10.78.0.0/16");
        let third = chosen(&Wanted::default(), &[other(first), other(second)]).unwrap();
        assert_eq!(
            (third.name.as_str(), third.instance.as_str(), third.port),
            ("dev3", "teu4", 5558)
        );
        assert_eq!(third.range.to_string(), "10.80.0.0/16");
    }

    #[test]
    fn what_was_given_and_another_has_is_refused_with_its_name() {
        let first = chosen(&Wanted::default(), &[]).unwrap();
        let cases = [
            (
                "--name",
                Wanted {
                    name: Some(first.name.clone()),
                    ..Wanted::default()
                },
            ),
            (
                "--instance",
                Wanted {
                    instance: Some(first.instance.clone()),
                    ..Wanted::default()
                },
            ),
            (
                "--range",
                Wanted {
                    range: "10.77.8.0/24".parse().ok(),
                    ..Wanted::default()
                },
            ),
            (
                "--port",
                Wanted {
                    port: Some(5555),
                    ..Wanted::default()
                },
            ),
        ];
        for (wrong, wanted) in cases {
            let error = chosen(&wanted, &[other(first.clone())]).unwrap_err();
            let DevError::Clash { option, other, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!((*option, &**other), (wrong, "dev"));
            assert!(error.to_string().contains("location `dev`"), "{error}");
        }
    }

    #[test]
    fn a_location_that_is_stopped_or_elsewhere_is_in_nobodys_way() {
        let first = chosen(&Wanted::default(), &[]).unwrap();
        let wanted = Wanted {
            name: "second".parse().ok(),
            instance: Some(first.instance.clone()),
            range: Some(first.range),
            port: Some(first.port),
            pool: None,
        };
        let mut stopped = other(first.clone());
        stopped.is_alive = false;
        assert!(chosen(&wanted, &[stopped]).is_ok());
        let mut elsewhere = other(first);
        elsewhere.same_network = false;
        let error = chosen(&wanted, &[elsewhere.clone()]).unwrap_err();
        assert!(error.to_string().contains("--instance"), "{error}");
        let wanted = Wanted {
            instance: "mine".parse().ok(),
            ..wanted
        };
        assert!(chosen(&wanted, &[elsewhere]).is_ok());
    }

    #[test]
    fn a_directory_of_another_location_is_refused_with_both_values_and_the_command() {
        let mark = chosen(&Wanted::default(), &[]).unwrap();
        let data = Path::new("/my data");
        assert!(same(&Wanted::default(), &mark, data, &[]).is_ok());
        let wanted = Wanted {
            name: "typo".parse().ok(),
            ..Wanted::default()
        };
        let error = same(&wanted, &mark, data, &["--purge"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/my data holds the location `dev` with --name dev, not --name typo"
        );
        let help = miette::Diagnostic::help(&error).unwrap().to_string();
        assert!(
            help.contains("`teu dev --purge --data '/my data'`"),
            "{help}"
        );
        let wanted = Wanted {
            pool: Some("none".to_owned()),
            ..Wanted::default()
        };
        assert!(same(&wanted, &mark, data, &[]).is_err());
    }

    #[test]
    fn a_location_elsewhere_keeps_its_name() {
        let wanted = Wanted {
            name: "far".parse().ok(),
            ..Wanted::default()
        };
        let error = chosen(&wanted, &[]).unwrap_err();
        assert!(matches!(error, DevError::NameTaken(_)), "{error}");
    }
}
