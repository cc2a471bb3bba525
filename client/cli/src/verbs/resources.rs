//! `teu resources`: what the location offers now.

use std::process::ExitCode;

use clap::Args;
use teu::{Location, NodeOffer, VolumeInfo};

use crate::{
    args::{Format, Globals, Listing},
    failure::Failure,
    json, output,
};

/// Arguments of `teu resources`.
#[derive(Debug, Args)]
pub(crate) struct ResourcesArgs {
    /// Go on printing as the offer changes (one JSON document a line with --format json)
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    listing: Listing,
}

/// Runs `teu resources`.
pub(crate) async fn run(globals: &Globals, args: ResourcesArgs) -> Result<ExitCode, Failure> {
    let location = super::connect(globals, "resources").await?;
    let mut offer = location.offer();
    loop {
        print(&location, args.listing, args.watch)?;
        if !args.watch || offer.changed().await.is_err() {
            break;
        }
        offer.mark_unchanged();
    }
    location.close().await;
    Ok(ExitCode::SUCCESS)
}

fn print(location: &Location, listing: Listing, watch: bool) -> Result<(), Failure> {
    let (nodes, volumes) = (location.ranked_nodes(), location.volumes());
    match (listing.quiet, listing.format) {
        (true, _) => nodes
            .iter()
            .try_for_each(|node| output::line(&node.id.to_string())),
        (false, Format::Json) if watch => output::json_line(&rows(&nodes)),
        (false, Format::Json) => output::json(&rows(&nodes)),
        (false, Format::Table) => {
            let header = [
                "NODE",
                "STATE",
                "CPU FREE",
                "MEMORY FREE",
                "DISK FREE",
                "DISK I/O",
                "CONTAINERS",
                "POOL FREE",
                "VOLUMES",
            ];
            let rows = nodes.iter().map(|node| cells(node, &volumes));
            output::table(&header, rows.collect())
        }
    }
}

fn rows(nodes: &[NodeOffer]) -> Vec<json::Node<'_>> {
    nodes.iter().map(json::Node::from).collect()
}

fn cells(node: &NodeOffer, volumes: &[VolumeInfo]) -> Vec<String> {
    let (has, uses) = (&node.capacity, &node.usage);
    let cores = |millis: u64| format!("{}.{}", millis / 1000, millis % 1000 / 100);
    let cpu_free = has.cpu_millis.saturating_sub(uses.cpu_used_millis);
    let io = uses.disk_read_bytes_per_s + uses.disk_write_bytes_per_s;
    vec![
        node.name.clone(),
        json::node_state(node.state).to_owned(),
        format!("{} of {}", cores(cpu_free), cores(has.cpu_millis)),
        format!(
            "{} of {}",
            output::bytes(uses.memory_free_bytes),
            output::bytes(has.memory_bytes)
        ),
        format!(
            "{} of {}",
            output::bytes(uses.disk_free_bytes),
            output::bytes(has.disk_bytes)
        ),
        format!("{}/s", output::bytes(io)),
        match node.containers_max {
            // A master of before 0.3 does not tell.
            0 => uses.containers.to_string(),
            most => format!("{} of {most}", uses.containers),
        },
        match has.pool_bytes {
            0 => "-".to_owned(),
            all => format!(
                "{} of {}",
                output::bytes(uses.pool_free_bytes),
                output::bytes(all)
            ),
        },
        volumes
            .iter()
            .filter(|volume| volume.node == node.id)
            .count()
            .to_string(),
    ]
}
