//! `-it`: a real terminal, driven as a person would, through tmux.

use std::process::Command;

use teu_integration::world::{World, eventually, program};

use crate::Shared;

pub(crate) const TRIALS: &[Shared] = &[
    (
        "terminal::size_at_first_paint_resize_and_ctrl_c",
        interactive,
    ),
    ("terminal::t_without_a_terminal_is_refused", refused),
];

/// A terminal of a given size, in which a command runs.
struct Terminal {
    socket: String,
}

impl Terminal {
    fn open(world: &World, columns: u16, rows: u16, arguments: &str) -> Self {
        let terminal = Self {
            socket: format!("teu-{}", world.instance()),
        };
        let home = world.home();
        let teu = program("teu");
        let line = format!(
            "TEU_HOME={} {} {arguments}; echo status=$?; sleep 1000",
            home.display(),
            teu.display()
        );
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &columns.to_string(),
            "-y",
            &rows.to_string(),
            "sh",
            "-c",
            &line,
        ]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-L", &self.socket])
            .args(arguments)
            .env_remove("TMUX")
            .output()
            .expect("tmux is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn shows(&self, text: &str) {
        let mut screen = String::new();
        eventually(&format!("the screen shows {text:?}"), || {
            screen = self.tmux(&["capture-pane", "-p"]);
            screen.lines().any(|line| line.trim_end().ends_with(text))
        });
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

fn interactive(world: &World) {
    let first_paint = "run -it --name tty-one busybox sh -c 'stty size; exec sh'";
    let terminal = Terminal::open(world, 100, 33, first_paint);
    terminal.shows("33 100");
    terminal.keys(&["tty", "Enter"]);
    terminal.shows("/dev/pts/0");
    terminal.tmux(&["resize-window", "-x", "120", "-y", "40"]);
    eventually("the new size arrives", || {
        world
            .ok(["exec", "tty-one", "sh", "-c", "stty size < /proc/1/fd/0"])
            .trim()
            == "40 120"
    });
    terminal.keys(&["trap 'echo caught''-it' INT; sleep 100", "Enter"]);
    eventually("sleep runs", || {
        world.ok(["exec", "tty-one", "ps"]).contains("sleep 100")
    });
    terminal.keys(&["C-c"]);
    terminal.shows("caught-it");
    terminal.keys(&["exit 9", "Enter"]);
    terminal.shows("status=9");
    // Raw mode is undone: the shell's own echo works again.
    assert!(!world.ok(["ps", "-a"]).contains("tty-one"));
}

fn refused(world: &World) {
    let output = world.teu(["run", "-it", "busybox", "sh"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("terminal"));
}
