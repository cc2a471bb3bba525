//! The seam between a keeper and the OCI runtime library.
//!
//! Owner: the stub, a single-threaded process of its own. Invariant: nothing else in TEU knows that
//! libcontainer exists.
//!
//! The trait has only what libcontainer does for us. Killing is a signal to the pid that
//! [`Runtime::create`] returns; deleting is nothing, as its state lies on the stub's private tmpfs;
//! and further processes are made by `tenant`, because libcontainer 0.7's tenant builder neither
//! joins the user namespace nor installs seccomp (see there).

use std::{collections::HashMap, path::PathBuf};

use libcontainer::{
    container::{Container, builder::ContainerBuilder},
    error::LibcontainerError,
    oci_spec::runtime::Spec,
    syscall::syscall::SyscallType,
    workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError},
};

use super::payload::Payload;

/// Makes a container's first process, in two steps.
pub(super) trait Runtime {
    type Error: std::error::Error;

    /// Makes namespaces, mounts and the process, which then waits. Its parent is the caller's
    /// parent. Returns its pid.
    fn create(&mut self, spec: &Spec, payload: Payload) -> Result<i32, Self::Error>;

    /// Lets the process go on to [`Payload::execute`].
    fn start(&mut self) -> Result<(), Self::Error>;
}

/// youki's libcontainer, its files kept below a scratch directory.
#[derive(Debug)]
pub(super) struct Libcontainer {
    pub id: String,
    pub bundle: PathBuf,
    pub state: PathBuf,
    container: Option<Container>,
}

impl Libcontainer {
    pub(super) fn new(id: String, bundle: PathBuf, state: PathBuf) -> Self {
        Self {
            id,
            bundle,
            state,
            container: None,
        }
    }
}

impl Runtime for Libcontainer {
    type Error = LibcontainerError;

    fn create(&mut self, spec: &Spec, payload: Payload) -> Result<i32, LibcontainerError> {
        spec.save(self.bundle.join("config.json"))?;
        let container = ContainerBuilder::new(self.id.clone(), SyscallType::default())
            .with_executor(PayloadExecutor(payload))
            .with_root_path(&self.state)?
            .as_init(&self.bundle)
            .with_systemd(false)
            .as_sibling(true)
            .with_detach(true)
            .build()?;
        let pid = container.pid().map_or(0, |pid| pid.as_raw());
        self.container = Some(container);
        Ok(pid)
    }

    fn start(&mut self) -> Result<(), LibcontainerError> {
        match &mut self.container {
            Some(container) => container.start(),
            None => Err(LibcontainerError::NoDirectory),
        }
    }
}

/// Our last steps in the place of libcontainer's own.
#[derive(Debug, Clone)]
struct PayloadExecutor(Payload);

impl Executor for PayloadExecutor {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        self.0.clone().execute()
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}
