//! The OCI runtime specification that a container is made from.
//!
//! Pure: a plan goes in, a [`Spec`] comes out. Invariant: what protects the host is not a choice of
//! the plan: namespaces, capabilities, `no_new_privs`, masked paths are always the same. The process
//! that it makes is the container's root in `/`: the payload enters the working directory and becomes
//! the user, in the same way as for a further process.
//! Limits are not in it (the keeper sets them in its own cgroup), nor is seccomp (installed by the
//! process itself, from a program compiled ahead), nor the network and cgroup namespaces
//! (inherited from the stub, which owns them).

use std::path::Path;

use oci_spec::{
    OciSpecError,
    runtime::{
        Capabilities, Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespace,
        LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder, ProcessBuilder,
        RootBuilder, Spec, SpecBuilder, UserBuilder,
    },
};

/// [`CAPABILITIES`](super::credentials::CAPABILITIES) in the specification's words.
const ROOTS: [Capability; 11] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::NetBindService,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// What a container must not read, as in Docker.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// What it may read and never write.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What the specification depends on.
#[derive(Debug)]
pub struct SpecInput<'a> {
    pub root: &'a Path,
    pub read_only_root: bool,
    pub hostname: &'a str,
    /// The user namespace to join, as a path that the runtime's children can open.
    pub userns: &'a Path,
    pub args: &'a [String],
    pub shm_bytes: u64,
}

/// Builds the specification.
///
/// # Errors
/// What the builders refuse: nothing that a plan can contain.
pub fn spec(input: &SpecInput<'_>) -> Result<Spec, OciSpecError> {
    let caps: Capabilities = ROOTS.into_iter().collect();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(caps.clone())
        .effective(caps.clone())
        .permitted(caps)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()?;
    let user = UserBuilder::default()
        .uid(0u32)
        .gid(0u32)
        .umask(0o022u32)
        .build()?;
    let process = ProcessBuilder::default()
        .terminal(false)
        .user(user)
        .args(input.args.to_vec())
        // The payload brings the real environment; this one only satisfies the runtime, which would
        // look for HOME in a file of the image.
        .env(vec!["PATH=/".to_owned(), "HOME=/".to_owned()])
        .cwd("/")
        .capabilities(capabilities)
        .rlimits(Vec::new())
        .no_new_privileges(true)
        .build()?;
    let linux = LinuxBuilder::default()
        .namespaces(namespaces(input.userns)?)
        .masked_paths(MASKED.map(str::to_owned).to_vec())
        .readonly_paths(READ_ONLY.map(str::to_owned).to_vec())
        .rootfs_propagation("private")
        .build()?;
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .root(
            RootBuilder::default()
                .path(input.root)
                .readonly(input.read_only_root)
                .build()?,
        )
        .hostname(input.hostname)
        .mounts(mounts(input.shm_bytes)?)
        .process(process)
        .linux(linux)
        .build()?;
    // The builder's default asks for device rules that need cgroup v1 controllers.
    if let Some(linux) = spec.linux_mut() {
        linux
            .set_resources(None)
            .set_cgroups_path(None)
            .set_seccomp(None)
            .set_devices(None);
    }
    Ok(spec)
}

fn namespaces(userns: &Path) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let user = LinuxNamespaceBuilder::default()
        .typ(LinuxNamespaceType::User)
        .path(userns)
        .build()?;
    let fresh = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
    ];
    let mut all = vec![user];
    for typ in fresh {
        all.push(LinuxNamespaceBuilder::default().typ(typ).build()?);
    }
    Ok(all)
}

/// `/sys` is not here: a sysfs of the container's network can only be mounted by the stub.
fn mounts(shm_bytes: u64) -> Result<Vec<Mount>, OciSpecError> {
    let shm = format!("size={shm_bytes}");
    let table: [(&str, &str, &[&str]); 5] = [
        ("proc", "/proc", &["nosuid", "noexec", "nodev"]),
        (
            "tmpfs",
            "/dev",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        (
            "devpts",
            "/dev/pts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        (
            "tmpfs",
            "/dev/shm",
            &["nosuid", "noexec", "nodev", "mode=1777", &shm],
        ),
        ("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    table
        .into_iter()
        .map(|(kind, target, options)| {
            MountBuilder::default()
                .typ(kind)
                .source(kind)
                .destination(target)
                .options(
                    options
                        .iter()
                        .map(|&one| one.to_owned())
                        .collect::<Vec<_>>(),
                )
                .build()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use libcontainer::capabilities::CapabilityExt;

    use super::*;
    use crate::sys::credentials::CAPABILITIES;

    #[test]
    fn what_protects_the_host_is_always_there() {
        let spec = spec(&SpecInput {
            root: Path::new("/r"),
            read_only_root: false,
            hostname: "h",
            userns: Path::new("/proc/self/fd/9"),
            args: &["true".to_owned()],
            shm_bytes: 1 << 20,
        })
        .unwrap();
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.no_new_privileges(), Some(true));
        let caps = process.capabilities().as_ref().unwrap();
        let bits = |one: &Capability| 1 << CapabilityExt::to_cap(one).index();
        let bounding = caps.bounding().as_ref().unwrap();
        assert_eq!(bounding.iter().map(bits).sum::<u64>(), CAPABILITIES.bits());
        assert_eq!(process.cwd(), Path::new("/"));
        assert_eq!((process.user().uid(), process.user().gid()), (0, 0));
        assert!(
            !caps
                .bounding()
                .as_ref()
                .unwrap()
                .contains(&Capability::SysAdmin)
        );
        assert!(caps.ambient().as_ref().unwrap().is_empty());
        let linux = spec.linux().as_ref().unwrap();
        let kinds: Vec<_> = linux
            .namespaces()
            .as_ref()
            .unwrap()
            .iter()
            .map(LinuxNamespace::typ)
            .collect();
        assert!(kinds.contains(&LinuxNamespaceType::User));
        assert!(kinds.contains(&LinuxNamespaceType::Pid));
        assert!(
            linux
                .masked_paths()
                .as_ref()
                .unwrap()
                .iter()
                .any(|one| one == "/proc/kcore")
        );
        assert_eq!(spec.mounts().as_ref().unwrap().len(), 5);
    }
}
