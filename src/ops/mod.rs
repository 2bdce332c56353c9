//! What an operator sees of the running program: its log, what the service manager is told, and the maintenance that it
//! does by itself.

pub mod logging;
pub mod maintenance;
pub mod service_manager;
