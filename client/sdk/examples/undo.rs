//! Undo: a volume keeps files, a snapshot keeps them as they were, and a rollback brings them back
//! while the container runs. Needs a location with a pool (`teu doctor` tells) and the image `busybox`.
#![allow(clippy::print_stdout)]

use teu::{Container, Lifetime};

#[tokio::main]
async fn main() -> teu::Result<()> {
    let location = teu::Location::connect().await?;

    // The account's volume `notes`, made if there is none yet. It outlives this program: when the
    // call returns, it is on the node's disk.
    let notes = location.ensure_volume("notes").quota(64 << 20).await?;

    // A container that has it at /notes. It runs on the volume's node, wherever that is.
    let writer = location
        .spawn("busybox")
        .command(["sleep", "3600"])
        .volume(&notes, "/notes")
        .lifetime(Lifetime::Attachment)
        .await?;

    shell(&writer, "echo 'do not lose me' > /notes/today").await?;

    // From here on there is something to go back to. (A second run of this program finds the name taken.)
    if notes
        .snapshots()
        .await?
        .iter()
        .any(|one| one.name.as_str() == "before")
    {
        notes.destroy_snapshot("before").await?;
    }
    notes.snapshot("before").await?;

    // The mistake. The file is closed again, so nothing keeps the volume busy.
    shell(&writer, "echo oops > /notes/today").await?;
    print!(
        "after the mistake:  {}",
        shell(&writer, "cat /notes/today").await?
    );

    // Undo. The container goes on running and sees the old file. Were a program still holding a file of
    // the volume open, this would be refused with `RefusalCode::Busy`, and the message would name it.
    notes.rollback("before").await?;
    print!(
        "after the rollback: {}",
        shell(&writer, "cat /notes/today").await?
    );

    let usage = notes.usage().await?;
    println!(
        "{} bytes of files, {} snapshots",
        usage.referenced_bytes, usage.snapshots
    );

    writer.destroy().await?;
    // The volume stays: `teu volume ls` lists it, `notes.destroy()` would end it.
    location.close().await;
    Ok(())
}

/// Runs a line in the container and gives what it printed.
async fn shell(container: &Container, line: &str) -> teu::Result<String> {
    let output = container.run(["sh", "-c", line]).output().await?;
    Ok(output.stdout_str().into_owned())
}
