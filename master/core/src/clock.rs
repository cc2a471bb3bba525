//! Time passed: all that is due, in one place.

use crate::Core;

impl Core {
    pub(crate) fn tick(&mut self) {
        self.release_held();
        self.expire_sessions();
        self.expire_orders();
        self.expire_makings();
        self.repeat_destroys();
        self.kill_condemned();
        self.end_all_lingering();
        self.delete_unused_layers();
        self.push_offers();
    }
}
